package cronjob

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	// manyMissed is how many missed times are reported as too many.
	manyMissed = 100
	// late is added to the time at which a CronJob is looked at again, so that the clock has surely
	// reached the scheduled time then.
	late = 100 * time.Millisecond
)

// plan is what a reconcile of a CronJob does, in this order: Jobs are replaced by one that is
// created, the status is written, and old Jobs are deleted.
type plan struct {
	// replace has the Jobs that are deleted for the one to create.
	replace []*batchv1.Job
	// create is the Job to create, nil for none.
	create *batchv1.Job
	// status is the new status, without the Job to create.
	status *batchv1.CronJobStatus
	// scheduled is the time for which create is created.
	scheduled time.Time
	// clean has the Jobs beyond the history limits. They are deleted last: the status has to show
	// their times first.
	clean []*batchv1.Job
	// events are recorded when all is done.
	events []event
	// again is when the CronJob has to be looked at again; 0 for when it changes.
	again time.Duration
}

type event struct{ typ, reason, message string }

// planner makes the plan of one CronJob.
type planner struct {
	cron *batchv1.CronJob
	jobs []*batchv1.Job
	now  time.Time
	plan *plan
}

// newPlan returns what a reconcile of a CronJob does at a time, given all Jobs that it controls.
func newPlan(c *batchv1.CronJob, jobs []*batchv1.Job, now time.Time) *plan {
	p := &planner{cron: c, jobs: jobs, now: now, plan: &plan{status: &batchv1.CronJobStatus{}}}
	if c.Status != nil {
		p.plan.status = proto.CloneOf(c.Status)
	}
	p.clean(batch.JobComplete, c.GetSpec().SuccessfulJobsHistoryLimit)
	p.clean(batch.JobFailed, c.GetSpec().FailedJobsHistoryLimit)
	p.observe()
	if c.GetMetadata().GetDeletionTimestamp() == nil && !c.GetSpec().GetSuspend() {
		p.schedule()
	}
	return p.plan
}

func (p *planner) record(typ, reason, format string, args ...any) {
	p.plan.events = append(p.plan.events, event{typ, reason, fmt.Sprintf(format, args...)})
}

// clean deletes the oldest of the Jobs that ended with a condition, beyond a limit.
func (p *planner) clean(ended string, limit *int32) {
	if limit == nil {
		return
	}
	var all []*batchv1.Job
	for _, j := range p.jobs {
		if batch.HasCondition(j, ended) {
			all = append(all, j)
		}
	}
	slices.SortFunc(all, func(a, b *batchv1.Job) int {
		return cmp.Or(startOf(a).Compare(startOf(b)), cmp.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName()))
	})
	if n := len(all) - int(*limit); n > 0 {
		p.plan.clean = append(p.plan.clean, all[:n]...)
	}
}

// startOf is when a Job began; a time far ahead for one that has not.
func startOf(j *batchv1.Job) time.Time {
	if t := j.GetStatus().GetStartTime(); t != nil {
		return t.AsTime()
	}
	return time.Unix(1<<40, 0)
}

// observe brings the list of active Jobs up to date.
func (p *planner) observe() {
	status, active := p.plan.status, []*corev1.ObjectReference{}
	known := map[string]bool{}
	for _, ref := range status.GetActive() {
		known[ref.GetUid()] = true
		i := slices.IndexFunc(p.jobs, func(j *batchv1.Job) bool { return j.GetMetadata().GetUid() == ref.GetUid() })
		switch {
		case i < 0:
			p.record(events.Normal, "MissingJob", "Active job went missing: %s", ref.GetName())
		case batch.Finished(p.jobs[i]) != nil:
			p.record(events.Normal, "SawCompletedJob", "Saw completed job: %s, condition: %s", ref.GetName(), batch.Finished(p.jobs[i]).GetType())
		default:
			active = append(active, ref)
		}
	}
	for _, j := range p.jobs {
		m := j.GetMetadata()
		// The status could not be written when a Job with a time was created, if it does not show
		// the Job.
		due, err := time.Parse(time.RFC3339, m.GetAnnotations()[batch.AnnotationScheduled])
		if err == nil && (status.LastScheduleTime == nil || due.After(status.LastScheduleTime.AsTime())) {
			status.LastScheduleTime = timestamppb.New(due)
		}
		if batch.Finished(j) == nil && m.GetDeletionTimestamp() == nil && !known[m.GetUid()] {
			if err == nil {
				active = append(active, events.ReferenceTo(j))
			} else {
				p.record(events.Warning, "UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", m.GetName())
			}
		}
		if end := j.GetStatus().GetCompletionTime(); end != nil && batch.HasCondition(j, batch.JobComplete) &&
			(status.LastSuccessfulTime == nil || end.AsTime().After(status.LastSuccessfulTime.AsTime())) {
			status.LastSuccessfulTime = end
		}
	}
	status.Active = active
}

// schedule decides whether a Job is created now, and when the CronJob is looked at again.
func (p *planner) schedule() {
	s := p.cron.GetSpec()
	schedule, err := batch.ParseSchedule(s)
	if err != nil {
		reason := "UnparseableSchedule"
		message := fmt.Sprintf("unparseable schedule: %q : %s", s.GetSchedule(), err)
		if _, err := batch.Zone(s); err != nil {
			reason, message = "UnknownTimeZone", fmt.Sprintf("invalid timeZone: %q: %s", s.GetTimeZone(), err)
		}
		p.record(events.Warning, reason, "%s", message)
		return
	}
	due, missed, err := lastDue(schedule, p.earliest(true), p.now)
	if err != nil {
		p.record(events.Warning, "InvalidSchedule", "invalid schedule: %s : %s", s.GetSchedule(), err)
		return
	}
	p.plan.again = p.untilNext(schedule)
	if due.IsZero() {
		return
	}
	if missed > manyMissed {
		p.record(events.Warning, "TooManyMissedTimes",
			"too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	}
	p.start(due)
}

// earliest is the time after which scheduled times count: that of the last Job or of the creation,
// and, with the deadline, no time for which it has passed.
func (p *planner) earliest(deadline bool) time.Time {
	earliest := p.cron.GetMetadata().GetCreationTimestamp().AsTime()
	if last := p.plan.status.GetLastScheduleTime(); last != nil {
		earliest = last.AsTime()
	}
	if s := p.cron.GetSpec(); deadline && s.StartingDeadlineSeconds != nil {
		if limit := p.now.Add(-time.Duration(s.GetStartingDeadlineSeconds()) * time.Second); limit.After(earliest) {
			return limit
		}
	}
	return earliest
}

// untilNext is how long it takes until the next scheduled time.
func (p *planner) untilNext(schedule batch.Schedule) time.Duration {
	earliest := p.earliest(false)
	last, missed, err := lastDue(schedule, earliest, p.now)
	switch {
	case err != nil, last.IsZero() && missed > 0:
		last = p.now
	case last.IsZero():
		last = earliest
	}
	next := schedule.Next(last)
	if next.IsZero() {
		return 0
	}
	return max(next.Add(late).Sub(p.now), late)
}

// lastDue returns the last scheduled time after earliest and not after now, zero when there is
// none, and about how many there are.
func lastDue(schedule batch.Schedule, earliest, now time.Time) (due time.Time, missed int64, err error) {
	first := schedule.Next(earliest)
	if first.IsZero() {
		return time.Time{}, 0, errNever
	}
	if now.Before(first) {
		return time.Time{}, 0, nil
	}
	second := schedule.Next(first)
	if second.IsZero() {
		return time.Time{}, 0, errNever
	}
	if now.Before(second) {
		return first, 1, nil
	}
	period := int64(second.Sub(first).Round(time.Second).Seconds())
	if period < 1 {
		return time.Time{}, 0, errNever
	}
	missed = int64(now.Sub(first).Seconds())/period + 1
	// The periods of a schedule such as that of working days differ: the search begins two before
	// the last.
	for t := schedule.Next(first.Add(time.Duration((missed-2)*period) * time.Second)); !t.IsZero() && !t.After(now); t = schedule.Next(t) {
		due = t
	}
	if due.IsZero() {
		due = search(schedule, first, now)
	}
	return due, missed, nil
}

// search returns the last scheduled time not after now of a schedule with long pauses, such as one
// of every minute of a day in the year. The time first is one.
func search(schedule batch.Schedule, first, now time.Time) time.Time {
	before, after := first, now
	for after.Sub(before) > time.Second {
		middle := before.Add(after.Sub(before) / 2)
		if schedule.Next(middle).After(now) {
			after = middle
		} else {
			before = middle
		}
	}
	if due := schedule.Next(before); !due.After(now) {
		return due
	}
	return first
}

var errNever = errors.New("time difference between two schedules is less than 1 second")

// start creates the Job of a scheduled time, unless it is too late or the concurrency policy
// forbids it.
func (p *planner) start(due time.Time) {
	s, status := p.cron.GetSpec(), p.plan.status
	name := jobName(p.cron, due)
	if s.StartingDeadlineSeconds != nil && due.Add(time.Duration(s.GetStartingDeadlineSeconds())*time.Second).Before(p.now) {
		p.record(events.Warning, "MissSchedule", "Missed scheduled time to start a job: %s", due.UTC().Format(time.RFC1123Z))
		return
	}
	if last := status.GetLastScheduleTime(); last != nil && last.AsTime().Equal(due) ||
		slices.ContainsFunc(status.GetActive(), func(ref *corev1.ObjectReference) bool { return ref.GetName() == name }) {
		return // It has been created.
	}
	if s.GetConcurrencyPolicy() == batch.ConcurrencyForbid && len(status.GetActive()) > 0 {
		p.record(events.Normal, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
		return
	}
	if s.GetConcurrencyPolicy() == batch.ConcurrencyReplace {
		for _, j := range p.jobs {
			if slices.ContainsFunc(status.GetActive(), func(ref *corev1.ObjectReference) bool { return ref.GetUid() == j.GetMetadata().GetUid() }) {
				p.plan.replace = append(p.plan.replace, j)
			}
		}
		status.Active = nil
	}
	p.plan.scheduled = due
	p.plan.create = newJob(p.cron, due)
}

// jobName is the name of the Job of a scheduled time. It is the same for everybody who creates it,
// so that the Job is created once.
func jobName(c *batchv1.CronJob, due time.Time) string {
	return fmt.Sprintf("%s-%d", c.GetMetadata().GetName(), due.Unix()/60)
}

// newJob makes the Job of a scheduled time.
func newJob(c *batchv1.CronJob, due time.Time) *batchv1.Job {
	template := proto.CloneOf(c.GetSpec().GetJobTemplate())
	annotations := maps.Clone(template.GetMetadata().GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	if c.GetSpec().TimeZone == nil {
		due = due.UTC() // The zone of this process says nothing to others.
	}
	annotations[batch.AnnotationScheduled] = due.Format(time.RFC3339)
	return &batchv1.Job{
		Metadata: &metav1.ObjectMeta{
			Name: jobName(c, due), Namespace: c.GetMetadata().GetNamespace(), Labels: template.GetMetadata().GetLabels(),
			Annotations: annotations, OwnerReferences: []*metav1.OwnerReference{kinds.NewControllerRef(c)},
		},
		Spec: template.GetSpec(),
	}
}

// started notes in the status that a Job was created for a scheduled time.
func started(s *batchv1.CronJobStatus, ref *corev1.ObjectReference, due time.Time) {
	s.Active = append(s.Active, ref)
	s.LastScheduleTime = timestamppb.New(due)
}
