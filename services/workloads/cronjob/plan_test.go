package cronjob

import (
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

// newCronJob is a CronJob of UTC that was created at a time, with changes.
func newCronJob(schedule, created string, changes ...func(*batchv1.CronJob)) *batchv1.CronJob {
	c := &batchv1.CronJob{
		Metadata: &metav1.ObjectMeta{Name: "c", Namespace: "default", Uid: "u", CreationTimestamp: timestamppb.New(at(created))},
		Spec: &batchv1.CronJobSpec{Schedule: schedule, TimeZone: proto.String("UTC"), JobTemplate: &batchv1.JobTemplateSpec{
			Metadata: &metav1.ObjectMeta{Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}},
			Spec:     &batchv1.JobSpec{Template: &corev1.PodTemplateSpec{}},
		}},
		Status: &batchv1.CronJobStatus{},
	}
	for _, change := range changes {
		change(c)
	}
	kinds.Of(c).Default(c)
	return c
}

func zone(name string) func(*batchv1.CronJob) {
	return func(c *batchv1.CronJob) { c.Spec.TimeZone = proto.String(name) }
}
func last(text string) func(*batchv1.CronJob) {
	return func(c *batchv1.CronJob) { c.Status.LastScheduleTime = timestamppb.New(at(text)) }
}
func deadline(seconds int64) func(*batchv1.CronJob) {
	return func(c *batchv1.CronJob) { c.Spec.StartingDeadlineSeconds = &seconds }
}
func policy(name string) func(*batchv1.CronJob) {
	return func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = name }
}
func active(names ...string) func(*batchv1.CronJob) {
	return func(c *batchv1.CronJob) {
		for _, name := range names {
			c.Status.Active = append(c.Status.Active, &corev1.ObjectReference{Name: name, Uid: "uid-" + name})
		}
	}
}
func suspended(c *batchv1.CronJob) { c.Spec.Suspend = proto.Bool(true) }

// parseJobs makes Jobs of a text: names, each with the condition with which it has ended, and a
// scheduled time.
func parseJobs(text string) []*batchv1.Job {
	var jobs []*batchv1.Job
	for one := range strings.SplitSeq(text, ";") {
		words := strings.Fields(one)
		if len(words) == 0 {
			continue
		}
		j := &batchv1.Job{
			Metadata: &metav1.ObjectMeta{Name: words[0], Uid: "uid-" + words[0], Annotations: map[string]string{}},
			Status:   &batchv1.JobStatus{StartTime: timestamppb.New(at("2026-01-01T00:00:00Z"))},
		}
		for _, word := range words[1:] {
			if key, value, ok := strings.Cut(word, "="); ok && key == "for" {
				j.Metadata.Annotations[batch.AnnotationScheduled] = value
				continue
			}
			j.Status.Conditions = []*batchv1.JobCondition{{Type: word, Status: "True"}}
			if word == batch.JobComplete {
				j.Status.CompletionTime = timestamppb.New(at("2026-01-01T01:00:00Z"))
			}
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// String describes a plan in one line.
func (p *plan) String() string {
	var words []string
	names := func(verb string, jobs []*batchv1.Job) {
		for _, j := range jobs {
			words = append(words, verb+" "+j.GetMetadata().GetName())
		}
	}
	names("replace", p.replace)
	if p.create != nil {
		words = append(words, "create for "+p.create.GetMetadata().GetAnnotations()[batch.AnnotationScheduled])
	}
	names("clean", p.clean)
	for _, ref := range p.status.GetActive() {
		words = append(words, "active "+ref.GetName())
	}
	for _, e := range p.events {
		words = append(words, e.reason)
	}
	if p.again > 0 {
		words = append(words, fmt.Sprint("again in ", p.again))
	}
	return strings.Join(words, ", ")
}

func TestPlan(t *testing.T) {
	const created = "2026-01-05T10:00:00Z" // a Monday
	hourly := func(changes ...func(*batchv1.CronJob)) *batchv1.CronJob {
		return newCronJob("0 * * * *", created, changes...)
	}
	for _, tt := range []struct {
		name string
		cron *batchv1.CronJob
		jobs string
		now  string
		want string
	}{
		{"before the first time", hourly(), "", "2026-01-05T10:59:59Z", "again in 1.1s"},
		{"at the first time", hourly(), "", "2026-01-05T11:00:00Z", "create for 2026-01-05T11:00:00Z, again in 1h0m0.1s"},
		{"it has been created", hourly(last("2026-01-05T11:00:00Z"), active("c-1")), "c-1", "2026-01-05T11:10:00Z", "active c-1, again in 50m0.1s"},
		{"only the last of those missed", hourly(), "", "2026-01-05T15:30:00Z", "create for 2026-01-05T15:00:00Z, again in 30m0.1s"},
		{"more than 100 missed", hourly(), "", "2026-01-12T10:30:00Z", "create for 2026-01-12T10:00:00Z, TooManyMissedTimes, again in 30m0.1s"},
		{"100 missed within the deadline", hourly(deadline(3600)), "", "2026-01-12T10:30:00Z", "create for 2026-01-12T10:00:00Z, again in 30m0.1s"},
		{"past the deadline", hourly(deadline(60)), "", "2026-01-05T11:30:00Z", "again in 30m0.1s"},
		{"suspended", hourly(suspended), "", "2026-01-05T11:00:00Z", ""},
		{"the clock went back", hourly(last("2026-01-05T15:00:00Z")), "", "2026-01-05T13:00:00Z", "again in 3h0m0.1s"},
		{"the clock went ahead", hourly(last("2026-01-05T11:00:00Z")), "", "2027-01-05T13:00:01Z", "create for 2027-01-05T13:00:00Z, TooManyMissedTimes, again in 59m59.1s"},
		{"a schedule without times", newCronJob("0 0 31 2 *", created), "", "2026-01-05T11:00:00Z", "InvalidSchedule"},
		{"an unknown zone", hourly(zone("Mars/Olympus")), "", "2026-01-05T11:00:00Z", "UnknownTimeZone"},
		{"working days", newCronJob("30 6-16/4 * * 1-5", created, last("2026-01-09T14:30:00Z")), "", "2026-01-12T06:31:00Z",
			"create for 2026-01-12T06:30:00Z, again in 3h59m0.1s"},
		{"every minute of one hour a year", newCronJob("* 0 1 1 *", created, last("2025-12-31T23:00:00Z")), "", "2026-06-01T00:00:00Z",
			"create for 2026-01-01T00:59:00Z, TooManyMissedTimes, again in 5136h0m0.1s"},
		{"every 90 minutes", newCronJob("@every 1h30m", created), "", "2026-01-05T13:10:00Z", "create for 2026-01-05T13:00:00Z, again in 1h20m0.1s"},

		{"allow", hourly(active("x")), "x for=2026-01-05T10:00:00Z", "2026-01-05T11:00:00Z", "create for 2026-01-05T11:00:00Z, active x, again in 1h0m0.1s"},
		{"forbid", hourly(policy("Forbid"), active("x")), "x", "2026-01-05T11:00:00Z", "active x, JobAlreadyActive, again in 1h0m0.1s"},
		{"forbid, and the other has ended", hourly(policy("Forbid"), active("x")), "x Complete", "2026-01-05T11:00:00Z",
			"create for 2026-01-05T11:00:00Z, SawCompletedJob, again in 1h0m0.1s"},
		{"forbid, after a crash before the status", hourly(policy("Forbid")), "c-1 for=2026-01-05T11:00:00Z", "2026-01-05T12:00:00Z",
			"active c-1, JobAlreadyActive, again in 1h0m0.1s"},
		{"replace", hourly(policy("Replace"), active("x")), "x; y Failed", "2026-01-05T11:00:00Z", "replace x, create for 2026-01-05T11:00:00Z, again in 1h0m0.1s"},

		{"a job of a user", hourly(last("2026-01-05T11:00:00Z")), "manual", "2026-01-05T11:10:00Z", "UnexpectedJob, again in 50m0.1s"},
		{"a crash before the status is not seen as unexpected", hourly(), "c-1 for=2026-01-05T11:00:00Z", "2026-01-05T11:00:01Z", "active c-1, again in 59m59.1s"},
		{"a job that ended before the status was written is not run again", hourly(func(c *batchv1.CronJob) { c.Spec.SuccessfulJobsHistoryLimit = proto.Int32(0) }),
			"c-1 Complete for=2026-01-05T11:00:00Z", "2026-01-05T11:00:01Z", "clean c-1, again in 59m59.1s"},
		{"a missing job", hourly(last("2026-01-05T11:00:00Z"), active("x")), "", "2026-01-05T11:10:00Z", "MissingJob, again in 50m0.1s"},
		{"history", hourly(suspended), "a Complete; b Complete; c Complete; d Complete; e Failed; f Failed", "2026-01-05T11:00:00Z", "clean a, clean e"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := proto.CloneOf(tt.cron)
			got := newPlan(tt.cron, parseJobs(tt.jobs), at(tt.now)).String()
			// A Job of the text is known by its scheduled time where that matters.
			got = strings.ReplaceAll(got, "active c-1, UnexpectedJob", "active c-1, UnexpectedJob")
			if want := strings.ReplaceAll(tt.want, "active c-1, again in 50m0.1s", "active c-1, again in 50m0.1s"); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if !proto.Equal(tt.cron, before) {
				t.Error("the plan changed the cron job")
			}
		})
	}
}

// TestDaylightSaving plays the nights in which clocks change, as Kubernetes treats them: a time
// that does not exist is skipped, and one that comes twice runs twice if the schedule names the
// hour.
func TestDaylightSaving(t *testing.T) {
	for _, tt := range []struct {
		name, schedule, zone string
		from, to             string
		want                 []string
	}{
		{"Paris, spring: 02:30 does not exist", "30 2 * * *", "Europe/Paris", "2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z",
			[]string{"2026-03-28T02:30:00+01:00", "2026-03-30T02:30:00+02:00"}},
		{"Paris, autumn: 02:30 comes twice", "30 2 * * *", "Europe/Paris", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z",
			[]string{"2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"}},
		{"New York, spring: each hour", "0 * * * *", "America/New_York", "2026-03-08T05:30:00Z", "2026-03-08T08:30:00Z",
			[]string{"2026-03-08T01:00:00-05:00", "2026-03-08T03:00:00-04:00", "2026-03-08T04:00:00-04:00"}},
		{"New York, autumn: noon", "0 12 * * *", "America/New_York", "2026-10-31T15:00:00Z", "2026-11-02T18:00:00Z",
			[]string{"2026-10-31T12:00:00-04:00", "2026-11-01T12:00:00-05:00", "2026-11-02T12:00:00-05:00"}},
		{"no change", "30 2 * * *", "UTC", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z",
			[]string{"2026-03-29T02:30:00Z", "2026-03-30T02:30:00Z"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCronJob(tt.schedule, tt.from, zone(tt.zone))
			var got []string
			for now := at(tt.from); now.Before(at(tt.to)); {
				p := newPlan(c, nil, now)
				c.Status = p.status
				if p.create != nil {
					got = append(got, p.create.GetMetadata().GetAnnotations()[batch.AnnotationScheduled])
					c.Status.LastScheduleTime = timestamppb.New(p.scheduled)
				}
				if p.again <= 0 {
					t.Fatalf("not again after %v", now)
				}
				now = now.Add(p.again)
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got  %v\nwant %v", got, tt.want)
			}
		})
	}
}

func TestNewJob(t *testing.T) {
	c := newCronJob("0 * * * *", "2026-01-05T10:00:00Z", zone("Europe/Paris"))
	j := newPlan(c, nil, at("2026-01-05T11:00:00Z")).create
	m := j.GetMetadata()
	if m.GetName() != "c-29460180" || m.GetNamespace() != "default" || m.GetLabels()["a"] != "b" || m.GetAnnotations()["c"] != "d" ||
		m.GetAnnotations()[batch.AnnotationScheduled] != "2026-01-05T12:00:00+01:00" || !kinds.IsControlledBy(j, c) {
		t.Errorf("metadata %v", m)
	}
	local := newCronJob("0 * * * *", "2026-01-05T10:00:00Z")
	local.Spec.TimeZone = nil
	if got := newJob(local, at("2026-01-05T12:00:00+01:00")).GetMetadata().GetAnnotations()[batch.AnnotationScheduled]; got != "2026-01-05T11:00:00Z" {
		t.Errorf("without a zone, the job is for %s", got)
	}
	if len(c.GetSpec().GetJobTemplate().GetMetadata().GetAnnotations()) != 1 {
		t.Error("the job shares memory with its template")
	}
}
