package controllers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/collector"
)

// newJob is a Job of pods with an image, which agents understand, with changes of its spec.
func newJob(name, image string, changes ...func(*batchv1.JobSpec)) *batchv1.Job {
	j := &batchv1.Job{Metadata: meta("default", name), Spec: &batchv1.JobSpec{Template: template(name, image)}}
	j.Spec.Template.Spec.RestartPolicy = "Never"
	for _, change := range changes {
		change(j.Spec)
	}
	return j
}

func indexedJob(completions, parallelism int32) func(*batchv1.JobSpec) {
	return func(s *batchv1.JobSpec) {
		s.Completions, s.Parallelism, s.CompletionMode = &completions, &parallelism, proto.String("Indexed")
	}
}

func perIndex(limit int32) func(*batchv1.JobSpec) {
	return func(s *batchv1.JobSpec) { s.BackoffLimitPerIndex = &limit }
}

func successPolicy(rules ...*batchv1.SuccessPolicyRule) func(*batchv1.JobSpec) {
	return func(s *batchv1.JobSpec) { s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: rules} }
}

func onExitCode(action string, code int32) func(*batchv1.JobSpec) {
	return func(s *batchv1.JobSpec) {
		s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []*batchv1.PodFailurePolicyRule{{
			Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: "In", Values: []int32{code}},
		}}}
	}
}

// ended waits for the end of a Job and returns it.
func ended(t *testing.T, c *client.Client, name, condition, reason string) *batchv1.Job {
	t.Helper()
	var j *batchv1.Job
	eventually(t, fmt.Sprintf("%s is %s for %s", name, condition, reason), func() bool {
		j = get[*batchv1.Job](t, c, "default", name)
		end := batch.Finished(j)
		return end.GetType() == condition && end.GetReason() == reason
	})
	if s := j.GetStatus(); s.GetActive() != 0 || s.GetTerminating() != 0 {
		t.Errorf("%s has ended with pods: %v", name, s)
	}
	eventually(t, "no pod has the finalizer", func() bool {
		return !slices.ContainsFunc(podsOf(t, c, "default", "batch.kubernetes.io/job-name="+name), func(p *corev1.Pod) bool {
			return slices.Contains(p.GetMetadata().GetFinalizers(), batch.FinalizerTracking)
		})
	})
	return j
}

// TestJobs plays the steps of Kubernetes' conformance tests of Jobs, whose names the subtests have,
// and others.
func TestJobs(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	runWorkloads(t, h, "master-1")
	runAgents(t, h, true)
	svc, err := collector.New(collector.Config{}, collector.Deps{
		Deps: elected.Deps{Host: "master-1", Client: h.service("collector"), Logger: logger(t)}, Scheme: kinds.NewScheme(),
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, svc.Run)
	t.Run("group", func(t *testing.T) { playJobs(t, h, c) })
}

func playJobs(t *testing.T, h *house, c *client.Client) {
	t.Run("run a job to completion when tasks sometimes fail and are locally restarted", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("restarts", "restart-once:1", func(s *batchv1.JobSpec) {
			s.Completions, s.Parallelism, s.BackoffLimit, s.Template.Spec.RestartPolicy = proto.Int32(4), proto.Int32(2), proto.Int32(6), "OnFailure"
		}))
		j := ended(t, c, "restarts", batch.JobComplete, "CompletionsReached")
		if s := j.GetStatus(); s.GetSucceeded() != 4 || s.GetFailed() != 0 || s.GetCompletionTime() == nil || !batch.HasCondition(j, batch.JobSuccessCriteriaMet) {
			t.Errorf("status %v", s)
		}
		for selector, want := range map[string]int{"status.successful=4,metadata.name=restarts": 1, "status.successful=0,metadata.name=restarts": 0} {
			if all, _, err := client.List[*batchv1.Job](t.Context(), c, client.ListOptions{Namespace: "default", FieldSelector: selector}); err != nil || len(all) != want {
				t.Errorf("%d jobs have %s: %v", len(all), selector, err)
			}
		}
		expectEvent(t, c, "default", "restarts", "Normal SuccessfulCreate: Created pod: restarts-")
		expectEvent(t, c, "default", "restarts", "Normal Completed: Job completed")
	})

	t.Run("allow to use the pod failure policy on exit code to fail the job early", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("early", "exit:1", onExitCode("FailJob", 1), func(s *batchv1.JobSpec) { s.BackoffLimit = proto.Int32(6) }))
		j := ended(t, c, "early", batch.JobFailed, "PodFailurePolicy")
		if s := j.GetStatus(); s.GetFailed() != 1 || !strings.Contains(batch.Finished(j).GetMessage(), "failed with exit code 1 matching FailJob rule at index 0") {
			t.Errorf("status %v", s)
		}
		expectEvent(t, c, "default", "early", "Warning PodFailurePolicy: Container c for pod default/early-")
	})

	t.Run("create pods for an Indexed job with completion indexes and specified hostname", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("indexed", "exit:0", indexedJob(4, 2)))
		if s := ended(t, c, "indexed", batch.JobComplete, "CompletionsReached").GetStatus(); s.GetCompletedIndexes() != "0-3" {
			t.Errorf("status %v", s)
		}
		indexes := map[string]bool{}
		for _, p := range podsOf(t, c, "default", "app=indexed") {
			index := p.GetMetadata().GetAnnotations()[batch.CompletionIndex]
			indexes[index] = true
			if p.GetSpec().GetHostname() != "indexed-"+index || p.GetMetadata().GetLabels()[batch.CompletionIndex] != index ||
				!strings.HasPrefix(p.GetMetadata().GetName(), "indexed-"+index+"-") {
				t.Errorf("pod %s of index %s: host name %s", p.GetMetadata().GetName(), index, p.GetSpec().GetHostname())
			}
		}
		if got := slices.Sorted(maps.Keys(indexes)); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
			t.Errorf("indexes %v", got)
		}
	})

	t.Run("execute all indexes despite some failing when using backoffLimitPerIndex", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("despite", "exit-odd:1", indexedJob(4, 2), perIndex(1)))
		s := ended(t, c, "despite", batch.JobFailed, "FailedIndexes").GetStatus()
		if s.GetFailedIndexes() != "1,3" || s.GetCompletedIndexes() != "0,2" || s.GetFailed() != 4 || s.GetSucceeded() != 2 {
			t.Errorf("status %v", s)
		}
	})

	t.Run("mark indexes as failed when the FailIndex action is matched in podFailurePolicy", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("fail-index", "exit-odd:42", indexedJob(2, 2), perIndex(1), onExitCode("FailIndex", 42)))
		s := ended(t, c, "fail-index", batch.JobFailed, "FailedIndexes").GetStatus()
		if s.GetFailedIndexes() != "1" || s.GetCompletedIndexes() != "0" || s.GetFailed() != 1 || s.GetSucceeded() != 1 {
			t.Errorf("status %v", s)
		}
	})

	t.Run("terminate job execution when the number of failed indexes exceeds maxFailedIndexes", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("too-many", "exit:1", indexedJob(10, 3), perIndex(0), func(s *batchv1.JobSpec) { s.MaxFailedIndexes = proto.Int32(1) }))
		s := ended(t, c, "too-many", batch.JobFailed, "MaxFailedIndexesExceeded").GetStatus()
		if failed := batch.ReadIndexes(s.GetFailedIndexes(), 10).Len(); failed < 2 || failed > 5 || s.GetSucceeded() != 0 {
			t.Errorf("status %v", s)
		}
	})

	for name, tt := range map[string]struct {
		image, completed string
		rule             *batchv1.SuccessPolicyRule
	}{
		"all indexes succeeded": {"exit:0", "0,1", &batchv1.SuccessPolicyRule{SucceededIndexes: proto.String("0-1")}},
		"succeededCount rule should succeeded even when some indexes remain pending":   {"exit-only:0", "0", &batchv1.SuccessPolicyRule{SucceededCount: proto.Int32(1)}},
		"succeededIndexes rule should succeeded even when some indexes remain pending": {"exit-only:0", "0", &batchv1.SuccessPolicyRule{SucceededIndexes: proto.String("0")}},
	} {
		t.Run("with successPolicy "+name, func(t *testing.T) {
			t.Parallel()
			id := "success-" + strings.ToLower(strings.Fields(name)[0])
			create(t, c, newJob(id, tt.image, indexedJob(2, 2), successPolicy(tt.rule)))
			j := ended(t, c, id, batch.JobComplete, "SuccessPolicy")
			if s := j.GetStatus(); s.GetCompletedIndexes() != tt.completed || s.GetFailed() != 0 || !batch.HasCondition(j, batch.JobSuccessCriteriaMet) {
				t.Errorf("status %v", s)
			}
		})
	}

	t.Run("adopt matching orphans and release non-matching pods", func(t *testing.T) {
		t.Parallel()
		j := create(t, c, newJob("adopter", "stays:1", func(s *batchv1.JobSpec) { s.Parallelism, s.Completions = proto.Int32(2), proto.Int32(4) }))
		label := batch.LabelControllerUID + "=" + j.GetMetadata().GetUid()
		eventually(t, "two pods", func() bool { return get[*batchv1.Job](t, c, "default", "adopter").GetStatus().GetActive() == 2 })
		name := podsOf(t, c, "default", label)[0].GetMetadata().GetName()
		patch[*corev1.Pod](t, c, "default", name, `{"metadata":{"ownerReferences":null}}`)
		eventually(t, "it is adopted again", func() bool {
			p := get[*corev1.Pod](t, c, "default", name)
			return kinds.IsControlledBy(p, j) && slices.Contains(p.GetMetadata().GetFinalizers(), batch.FinalizerTracking)
		})
		patch[*corev1.Pod](t, c, "default", name, `{"metadata":{"labels":{%q:"other"}}}`, batch.LabelControllerUID)
		eventually(t, "it is released", func() bool {
			m := get[*corev1.Pod](t, c, "default", name).GetMetadata()
			return len(m.GetOwnerReferences()) == 0 && len(m.GetFinalizers()) == 0
		})
		eventually(t, "two pods again", func() bool { return len(podsOf(t, c, "default", label)) == 2 })
	})

	t.Run("delete a job", func(t *testing.T) {
		t.Parallel()
		j := create(t, c, newJob("deleted", "stays:1", func(s *batchv1.JobSpec) { s.Parallelism, s.Completions = proto.Int32(2), proto.Int32(4) }))
		eventually(t, "two ready pods", func() bool { return get[*batchv1.Job](t, c, "default", "deleted").GetStatus().GetReady() == 2 })
		for _, policy := range []client.DeleteOption{client.Background, client.IfUID(j.GetMetadata().GetUid())} {
			if _, err := client.Delete[*batchv1.Job](t.Context(), c, "default", "deleted", policy); err != nil && !apierr.IsNotFound(err) {
				t.Fatal(err)
			}
		}
		eventually(t, "the job and its pods are gone", func() bool {
			return gone[*batchv1.Job](t, c, "default", "deleted") && len(podsOf(t, c, "default", "app=deleted")) == 0
		})
	})

	t.Run("apply changes to a job status", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("status", "stays:1", func(s *batchv1.JobSpec) { s.Parallelism, s.Completions = proto.Int32(2), proto.Int32(4) }))
		eventually(t, "two ready pods", func() bool { return get[*batchv1.Job](t, c, "default", "status").GetStatus().GetReady() == 2 })
		write := func(text string) error {
			_, err := client.Patch[*batchv1.Job](t.Context(), c, "default", "status", []byte(text), client.Subresource("status"))
			return err
		}
		if err := write(`{"metadata":{"annotations":{"patchedstatus":"true"}},"status":{"conditions":[{"type":"CustomConditionType","status":"True"}]}}`); err != nil {
			t.Fatal(err)
		}
		if j := get[*batchv1.Job](t, c, "default", "status"); j.GetMetadata().GetAnnotations()["patchedstatus"] != "true" || !batch.HasCondition(j, "CustomConditionType") {
			t.Errorf("after the patch: %v", j)
		}
		if err := write(`{"status":{"conditions":[{"type":"Complete","status":"True"}]}}`); !apierr.IsInvalid(err) {
			t.Errorf("an impossible status: %v", err)
		}
	})

	t.Run("manage the lifecycle of a job", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("lifecycle", "stays:1", func(s *batchv1.JobSpec) { s.Suspend, s.Parallelism = proto.Bool(true), proto.Int32(1) }))
		eventually(t, "suspended", func() bool {
			return batch.HasCondition(get[*batchv1.Job](t, c, "default", "lifecycle"), batch.JobSuspended)
		})
		if j := get[*batchv1.Job](t, c, "default", "lifecycle"); j.GetStatus().GetStartTime() != nil || len(podsOf(t, c, "default", "app=lifecycle")) > 0 {
			t.Errorf("a suspended job has begun: %v", j.GetStatus())
		}
		patch[*batchv1.Job](t, c, "default", "lifecycle", `{"metadata":{"labels":{"e2e-lifecycle":"patched"}},"spec":{"suspend":false,"backoffLimit":3}}`)
		eventually(t, "it runs", func() bool { return get[*batchv1.Job](t, c, "default", "lifecycle").GetStatus().GetReady() == 1 })
		j := get[*batchv1.Job](t, c, "default", "lifecycle")
		if j.GetStatus().GetStartTime() == nil || batch.HasCondition(j, batch.JobSuspended) {
			t.Errorf("resumed: %v", j.GetStatus())
		}
		expectEvent(t, c, "default", "lifecycle", "Normal Suspended: Job suspended")
		expectEvent(t, c, "default", "lifecycle", "Normal Resumed: Job resumed")
		patch[*batchv1.Job](t, c, "default", "lifecycle", `{"spec":{"suspend":true}}`)
		eventually(t, "no pods, and none counted", func() bool {
			s := get[*batchv1.Job](t, c, "default", "lifecycle").GetStatus()
			return len(podsOf(t, c, "default", "app=lifecycle")) == 0 && s.GetActive() == 0 && s.GetFailed() == 0 && s.GetStartTime() == nil
		})
		if list, _, err := client.List[*batchv1.Job](t.Context(), c, client.ListOptions{LabelSelector: "e2e-lifecycle=patched"}); err != nil || len(list) != 1 {
			t.Errorf("listed %d: %v", len(list), err)
		}
		if _, err := client.Delete[*batchv1.Job](t.Context(), c, "default", "lifecycle", client.Foreground); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is gone", func() bool { return gone[*batchv1.Job](t, c, "default", "lifecycle") })
	})

	t.Run("too many failures", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("fails", "exit:1", func(s *batchv1.JobSpec) { s.BackoffLimit = proto.Int32(2) }))
		if s := ended(t, c, "fails", batch.JobFailed, "BackoffLimitExceeded").GetStatus(); s.GetFailed() != 3 {
			t.Errorf("status %v", s)
		}
		expectEvent(t, c, "default", "fails", "Warning BackoffLimitExceeded: Job has reached the specified backoff limit")
	})

	t.Run("deadline", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("late", "stays:1", func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = proto.Int64(1) }))
		ended(t, c, "late", batch.JobFailed, "DeadlineExceeded")
	})

	t.Run("elastic", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("elastic", "stays:1", indexedJob(4, 4)))
		eventually(t, "four", func() bool { return get[*batchv1.Job](t, c, "default", "elastic").GetStatus().GetActive() == 4 })
		patch[*batchv1.Job](t, c, "default", "elastic", `{"spec":{"completions":2,"parallelism":2}}`)
		eventually(t, "two", func() bool {
			s := get[*batchv1.Job](t, c, "default", "elastic").GetStatus()
			return s.GetActive() == 2 && s.GetFailed() == 0 && len(podsOf(t, c, "default", "app=elastic")) == 2
		})
	})

	t.Run("another controller's", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("other", "exit:0", func(s *batchv1.JobSpec) { s.ManagedBy = proto.String("example.com/c") }))
		create(t, c, newJob("ours", "exit:0", func(s *batchv1.JobSpec) { s.ManagedBy = proto.String("kubernetes.io/job-controller") }))
		ended(t, c, "ours", batch.JobComplete, "CompletionsReached")
		if j := get[*batchv1.Job](t, c, "default", "other"); j.GetStatus() != nil || len(podsOf(t, c, "default", "app=other")) > 0 {
			t.Errorf("status %v", j.GetStatus())
		}
	})

	t.Run("time to live", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("expires", "exit:0", func(s *batchv1.JobSpec) { s.TtlSecondsAfterFinished = proto.Int32(0) }))
		eventually(t, "it is deleted with its pods", func() bool {
			return gone[*batchv1.Job](t, c, "default", "expires") && len(podsOf(t, c, "default", "app=expires")) == 0
		})
	})

	t.Run("orphaned pods lose the finalizer", func(t *testing.T) {
		t.Parallel()
		create(t, c, newJob("orphans", "stays:1"))
		eventually(t, "it runs", func() bool { return get[*batchv1.Job](t, c, "default", "orphans").GetStatus().GetReady() == 1 })
		if _, err := client.Delete[*batchv1.Job](t.Context(), c, "default", "orphans", client.Orphan); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a free pod", func() bool {
			pods := podsOf(t, c, "default", "app=orphans")
			return gone[*batchv1.Job](t, c, "default", "orphans") && len(pods) == 1 &&
				len(pods[0].GetMetadata().GetFinalizers())+len(pods[0].GetMetadata().GetOwnerReferences()) == 0
		})
	})
}

// TestJobsHandOver stops leaders while Jobs run, and expects each pod to be counted once and no pod
// too many.
func TestJobsHandOver(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	stops := map[string]func(){}
	for _, host := range []string{"master-1", "master-2"} {
		stops["workloads@"+host] = runWorkloads(t, h, host)
	}
	var most atomic.Int64
	observe(t, h, "app=long", func(o *observer) {
		active, _ := o.count()
		most.Store(max(most.Load(), int64(active)))
	})
	create(t, c, newJob("long", "exit:0", func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = proto.Int32(120), proto.Int32(20) }))
	runAgents(t, h, true)
	for range 4 {
		before := get[*batchv1.Job](t, c, "default", "long").GetStatus().GetSucceeded()
		eventually(t, "progress", func() bool {
			j := get[*batchv1.Job](t, c, "default", "long")
			return j.GetStatus().GetSucceeded() > before || batch.Finished(j) != nil
		})
		l, err := client.Get[*coordinationv1.Lease](t.Context(), c, "kube-system", "workloads")
		if err != nil {
			continue
		}
		if was := l.GetSpec().GetHolderIdentity(); stops[was] != nil {
			stops[was]()
			stops[was] = runWorkloads(t, h, strings.TrimPrefix(was, "workloads@"))
		}
	}
	j := ended(t, c, "long", batch.JobComplete, "CompletionsReached")
	if pods := podsOf(t, c, "default", "app=long"); j.GetStatus().GetSucceeded() != 120 || len(pods) != 120 || most.Load() > 20 {
		t.Errorf("%d counted of %d pods, at most %d at once", j.GetStatus().GetSucceeded(), len(pods), most.Load())
	}
}
