package describe

import (
	"fmt"
	"strconv"
	"time"

	"github.com/xebec-project/xebec/internal/kinds/column"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
)

func (r *report) job(j *batchv1.Job) {
	s, status := j.GetSpec(), j.GetStatus()
	r.metadata(j)
	r.field("Selector", column.FormatLabelSelector(s.GetSelector()))
	r.labels(j)
	r.ends(j)
	r.jobSpec(s)
	r.time("Start Time", status.GetStartTime())
	r.time("Completed At", status.GetCompletionTime())
	if start, end := status.GetStartTime(), status.GetCompletionTime(); start != nil && end != nil {
		r.field("Duration", column.HumanDuration(end.AsTime().Sub(start.AsTime())))
	}
	r.field("Pods Statuses", fmt.Sprintf("%d active (%d ready) | %d terminating | %d succeeded | %d failed",
		status.GetActive(), status.GetReady(), status.GetTerminating(), status.GetSucceeded(), status.GetFailed()))
	r.optional("Completed Indexes", status.GetCompletedIndexes())
	r.optional("Failed Indexes", status.GetFailedIndexes())
	r.template(s.GetTemplate())
	conditions(r, status.GetConditions())
}

// jobSpec writes what Jobs and the templates of CronJobs share, but for the pods.
func (r *report) jobSpec(s *batchv1.JobSpec) {
	number := func(name string, n *int32, absent string) {
		if n != nil {
			absent = strconv.Itoa(int(*n))
		}
		r.optional(name, absent)
	}
	number("Parallelism", s.Parallelism, column.None)
	number("Completions", s.Completions, column.None)
	r.optional("Completion Mode", s.GetCompletionMode())
	if s.GetSuspend() {
		r.field("Suspend", "true")
	}
	number("Backoff Limit", s.BackoffLimit, "")
	number("Backoff Limit Per Index", s.BackoffLimitPerIndex, "")
	number("Max Failed Indexes", s.MaxFailedIndexes, "")
	r.optional("Managed By", s.GetManagedBy())
	if s.ActiveDeadlineSeconds != nil {
		r.field("Active Deadline Seconds", fmt.Sprintf("%ds", s.GetActiveDeadlineSeconds()))
	}
	number("TTL Seconds After Finished", s.TtlSecondsAfterFinished, "")
}

func (r *report) cronJob(c *batchv1.CronJob) {
	s, status := c.GetSpec(), c.GetStatus()
	r.metadata(c)
	r.labels(c)
	r.ends(c)
	r.field("Schedule", s.GetSchedule())
	r.optional("Time Zone", s.GetTimeZone())
	r.field("Concurrency Policy", s.GetConcurrencyPolicy())
	r.field("Suspend", strconv.FormatBool(s.GetSuspend()))
	r.field("Successful Job History Limit", strconv.Itoa(int(s.GetSuccessfulJobsHistoryLimit())))
	r.field("Failed Job History Limit", strconv.Itoa(int(s.GetFailedJobsHistoryLimit())))
	deadline := column.None
	if s.StartingDeadlineSeconds != nil {
		deadline = (time.Duration(s.GetStartingDeadlineSeconds()) * time.Second).String()
	}
	r.field("Starting Deadline Seconds", deadline)
	r.jobSpec(s.GetJobTemplate().GetSpec())
	r.template(s.GetJobTemplate().GetSpec().GetTemplate())
	last := column.None
	if status.GetLastScheduleTime() != nil {
		last = status.GetLastScheduleTime().AsTime().UTC().Format(time.RFC1123)
	}
	r.field("Last Schedule Time", last)
	r.time("Last Successful Time", status.GetLastSuccessfulTime())
	var active []string
	for _, ref := range status.GetActive() {
		active = append(active, ref.GetName())
	}
	r.list("Active Jobs", active)
}
