package controllers

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	_ "time/tzdata"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/workloads/cronjob"
	"github.com/xebec-project/xebec/services/workloads/job"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// clock is a clock that tests put forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// forward puts the clock forward to the next minute, and makes the controller look at a CronJob.
func (c *clock) forward(t *testing.T, h *house, name string) {
	t.Helper()
	now := c.now()
	c.ahead.Add(int64(now.Truncate(time.Minute).Add(time.Minute + time.Second).Sub(now)))
	patch[*batchv1.CronJob](t, h.admin(), "default", name, `{"metadata":{"annotations":{"at":%q}}}`, c.now().Format(time.RFC3339Nano))
}

// runCronJobs runs the controllers of Jobs and CronJobs with a clock.
func runCronJobs(t *testing.T, h *house) *clock {
	t.Helper()
	c, rights := &clock{}, h.service("workloads")
	recorder := events.NewRecorder(events.Config{Client: rights, Component: "workloads", Logger: logger(t)})
	run(t, recorder.Run)
	term := controller.NewTerm(t.Context(), rights, logger(t), controller.NewMetrics(nil))
	jobs := controller.Informer(term, client.InformerOptions[*batchv1.Job]{Indexers: controller.ByController[*batchv1.Job]()})
	pods := controller.Informer(term, client.InformerOptions[*corev1.Pod]{
		Indexers: controller.ByController[*corev1.Pod](), Transform: podcontrol.Slim,
	})
	cronJobs := controller.Informer(term, client.InformerOptions[*batchv1.CronJob]{})
	job.Add(term, job.Config{Events: recorder, Jobs: jobs, Pods: pods})
	cronjob.Add(term, cronjob.Config{Events: recorder, CronJobs: cronJobs, Jobs: jobs, Now: c.now})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = term.Run() // It ends with the test.
	}()
	t.Cleanup(func() { <-done })
	return c
}

// everyMinute is a CronJob of every minute, with changes of its spec.
func everyMinute(name, image string, changes ...func(*batchv1.CronJobSpec)) *batchv1.CronJob {
	j := &batchv1.CronJob{Metadata: meta("default", name), Spec: &batchv1.CronJobSpec{
		Schedule: "*/1 * * * *", JobTemplate: &batchv1.JobTemplateSpec{Spec: newJob(name, image).GetSpec()},
	}}
	for _, change := range changes {
		change(j.Spec)
	}
	return j
}

// TestCronJobs plays the steps of Kubernetes' conformance tests of CronJobs, whose names the
// subtests have.
func TestCronJobs(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	clock := runCronJobs(t, h)
	runAgents(t, h, true)
	jobsOf := func(name string) []*batchv1.Job {
		all, _, err := client.List[*batchv1.Job](t.Context(), c, client.ListOptions{Namespace: "default"})
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(all, func(j *batchv1.Job) bool {
			return !strings.HasPrefix(j.GetMetadata().GetName(), name+"-") || j.GetMetadata().GetDeletionTimestamp() != nil
		})
	}
	active := func(name string, n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s has %d active jobs", name, n), func() bool {
			return len(get[*batchv1.CronJob](t, c, "default", name).GetStatus().GetActive()) == n && len(jobsOf(name)) >= n
		})
	}

	t.Run("schedule multiple jobs concurrently", func(t *testing.T) {
		create(t, c, everyMinute("concurrent", "stays:1"))
		for n := 1; n <= 2; n++ {
			clock.forward(t, h, "concurrent")
			active("concurrent", n)
		}
		status := get[*batchv1.CronJob](t, c, "default", "concurrent").GetStatus()
		newest := status.GetActive()[1].GetName()
		j := get[*batchv1.Job](t, c, "default", newest)
		at, err := time.Parse(time.RFC3339, j.GetMetadata().GetAnnotations()[batch.AnnotationScheduled])
		if err != nil || !at.Equal(status.GetLastScheduleTime().AsTime()) || newest != fmt.Sprintf("concurrent-%d", at.Unix()/60) {
			t.Errorf("%s is for %v, the last schedule time is %v: %v", newest, at, status.GetLastScheduleTime().AsTime(), err)
		}
		expectEvent(t, c, "default", "concurrent", "Normal SuccessfulCreate: Created job concurrent-")
	})

	t.Run("not schedule jobs when suspended", func(t *testing.T) {
		create(t, c, everyMinute("suspended", "stays:1", func(s *batchv1.CronJobSpec) { s.Suspend = proto.Bool(true) }))
		clock.forward(t, h, "suspended")
		throughout(t, 200*time.Millisecond, "no job", func() error {
			if n := len(jobsOf("suspended")); n > 0 {
				return fmt.Errorf("%d jobs", n)
			}
			return nil
		})
	})

	t.Run("not schedule new jobs when ForbidConcurrent", func(t *testing.T) {
		create(t, c, everyMinute("forbid", "stays:1", func(s *batchv1.CronJobSpec) { s.ConcurrencyPolicy = "Forbid" }))
		clock.forward(t, h, "forbid")
		active("forbid", 1)
		clock.forward(t, h, "forbid")
		expectEvent(t, c, "default", "forbid", "Normal JobAlreadyActive: Not starting job because prior execution is running")
		if n := len(jobsOf("forbid")); n != 1 {
			t.Errorf("%d jobs", n)
		}
	})

	t.Run("replace jobs when ReplaceConcurrent", func(t *testing.T) {
		create(t, c, everyMinute("replace", "stays:1", func(s *batchv1.CronJobSpec) { s.ConcurrencyPolicy = "Replace" }))
		clock.forward(t, h, "replace")
		active("replace", 1)
		first := jobsOf("replace")[0].GetMetadata().GetName()
		clock.forward(t, h, "replace")
		eventually(t, "another job alone", func() bool {
			jobs := jobsOf("replace")
			refs := get[*batchv1.CronJob](t, c, "default", "replace").GetStatus().GetActive()
			return len(jobs) == 1 && len(refs) == 1 && refs[0].GetName() == jobs[0].GetMetadata().GetName() && refs[0].GetName() != first
		})
		expectEvent(t, c, "default", "replace", "Normal SuccessfulDelete: Deleted job "+first)
	})

	t.Run("history", func(t *testing.T) {
		create(t, c, everyMinute("history", "exit:0", func(s *batchv1.CronJobSpec) { s.SuccessfulJobsHistoryLimit = proto.Int32(1) }))
		var last string
		for range 3 {
			clock.forward(t, h, "history")
			eventually(t, "the next job has ended, alone", func() bool {
				jobs := jobsOf("history")
				return len(jobs) == 1 && batch.Finished(jobs[0]) != nil && jobs[0].GetMetadata().GetName() != last
			})
			last = jobsOf("history")[0].GetMetadata().GetName()
		}
		eventually(t, "the time of the last success", func() bool {
			s := get[*batchv1.CronJob](t, c, "default", "history").GetStatus()
			return s.GetLastSuccessfulTime() != nil && len(s.GetActive()) == 0
		})
		expectEvent(t, c, "default", "history", "Normal SawCompletedJob: Saw completed job: "+last+", condition: Complete")
	})

	t.Run("missed times", func(t *testing.T) {
		create(t, c, everyMinute("missed", "stays:1", func(s *batchv1.CronJobSpec) { s.Suspend = proto.Bool(true) }))
		clock.ahead.Add(int64(3 * time.Hour))
		patch[*batchv1.CronJob](t, c, "default", "missed", `{"spec":{"suspend":false}}`)
		active("missed", 1)
		expectEvent(t, c, "default", "missed", "Warning TooManyMissedTimes: too many missed start times")
	})

	t.Run("support CronJob API operations", func(t *testing.T) {
		created := create(t, c, everyMinute("operations", "stays:1", func(s *batchv1.CronJobSpec) {
			s.Suspend, s.TimeZone = proto.Bool(true), proto.String("Europe/Paris")
		}))
		patch[*batchv1.CronJob](t, c, "default", "operations", `{"metadata":{"labels":{"patched":"true"}}}`)
		updated := get[*batchv1.CronJob](t, c, "default", "operations")
		updated.Spec.Schedule = "0 0 1 1 *"
		if _, err := client.Update(t.Context(), c, updated); err != nil {
			t.Fatal(err)
		}
		status := []byte(`{"metadata":{"annotations":{"patchedstatus":"true"}},"status":{"lastScheduleTime":"2026-01-01T00:00:00Z"}}`)
		if _, err := client.Patch[*batchv1.CronJob](t.Context(), c, "default", "operations", status, client.Subresource("status")); err != nil {
			t.Fatal(err)
		}
		now := get[*batchv1.CronJob](t, c, "default", "operations")
		if now.GetSpec().GetSchedule() != "0 0 1 1 *" || now.GetMetadata().GetLabels()["patched"] != "true" || now.GetMetadata().GetAnnotations()["patchedstatus"] != "true" ||
			now.GetStatus().GetLastScheduleTime() == nil || now.GetMetadata().GetGeneration() != created.GetMetadata().GetGeneration()+1 {
			t.Errorf("got %v", now)
		}
		for schedule, want := range map[string]string{"TZ=UTC 0 * * * *": "use timeZone field instead", "61 * * * *": "above maximum"} {
			now.Spec.Schedule = schedule
			if _, err := client.Update(t.Context(), c, now); !apierr.IsInvalid(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("schedule %s: %v", schedule, err)
			}
		}
		if _, err := client.Delete[*batchv1.CronJob](t.Context(), c, "default", "operations"); err != nil {
			t.Fatal(err)
		}
		if !gone[*batchv1.CronJob](t, c, "default", "operations") {
			t.Error("it is still there")
		}
	})
}
