package job

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	"github.com/xebec-project/xebec/internal/kinds/core"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// newJob is a Job that began at epoch, with changes of its spec, defaulted.
func newJob(changes ...func(*batchv1.JobSpec)) *batchv1.Job {
	j := &batchv1.Job{
		Metadata: &metav1.ObjectMeta{Name: "pi", Namespace: "default", Uid: "u1"},
		Spec: &batchv1.JobSpec{Template: &corev1.PodTemplateSpec{
			Spec: &corev1.PodSpec{RestartPolicy: "Never", Containers: []*corev1.Container{{Name: "main", Image: "busybox:1"}}},
		}},
		Status: &batchv1.JobStatus{StartTime: timestamppb.New(epoch)},
	}
	status := j.Status
	for _, change := range changes {
		change(j.Spec)
	}
	k := kinds.Of(j)
	k.PrepareCreate(j)
	k.Default(j)
	j.Status = status
	return j
}

func completions(n int32) func(*batchv1.JobSpec) {
	return func(s *batchv1.JobSpec) { s.Completions = &n }
}
func parallelism(n int32) func(*batchv1.JobSpec) {
	return func(s *batchv1.JobSpec) { s.Parallelism = &n }
}
func backoffLimit(n int32) func(*batchv1.JobSpec) {
	return func(s *batchv1.JobSpec) { s.BackoffLimit = &n }
}
func indexed(s *batchv1.JobSpec)       { s.CompletionMode = proto.String(batch.Indexed) }
func suspended(s *batchv1.JobSpec)     { s.Suspend = proto.Bool(true) }
func replaceFailed(s *batchv1.JobSpec) { s.PodReplacementPolicy = proto.String(batch.ReplaceFailed) }
func perIndex(n int32) func(*batchv1.JobSpec) {
	return func(s *batchv1.JobSpec) { s.BackoffLimitPerIndex = &n }
}
func failurePolicy(rules ...*batchv1.PodFailurePolicyRule) func(*batchv1.JobSpec) {
	return func(s *batchv1.JobSpec) { s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: rules} }
}
func onCode(action string, codes ...int32) *batchv1.PodFailurePolicyRule {
	return &batchv1.PodFailurePolicyRule{Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: "In", Values: codes}}
}
func onCondition(action, typ string) *batchv1.PodFailurePolicyRule {
	return &batchv1.PodFailurePolicyRule{Action: action, OnPodConditions: []*batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: typ, Status: "True"}}}
}
func successPolicy(rules ...*batchv1.SuccessPolicyRule) func(*batchv1.JobSpec) {
	return func(s *batchv1.JobSpec) { s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: rules} }
}

// parsePods makes pods of a text: their names and what they are, separated by semicolons. They are
// on a node and have the finalizer unless they say otherwise.
func parsePods(text string) []*corev1.Pod {
	var pods []*corev1.Pod
	for one := range strings.SplitSeq(text, ";") {
		words := strings.Fields(one)
		if len(words) == 0 {
			continue
		}
		p := &corev1.Pod{
			Metadata: &metav1.ObjectMeta{
				Name: words[0], Namespace: "default", Uid: "uid-" + words[0], Annotations: map[string]string{},
				Finalizers: []string{batch.FinalizerTracking}, CreationTimestamp: timestamppb.New(epoch),
			},
			Spec: &corev1.PodSpec{NodeName: "n"}, Status: &corev1.PodStatus{Phase: core.PodRunning},
		}
		for _, word := range words[1:] {
			describe(p, word)
		}
		pods = append(pods, p)
	}
	return pods
}

func describe(p *corev1.Pod, word string) {
	name, value, _ := strings.Cut(word, "=")
	n, _ := strconv.Atoi(value)
	switch name {
	case "pending":
		p.Spec.NodeName, p.Status.Phase = "", core.PodPending
	case "ready":
		p.Status.Conditions = append(p.Status.Conditions, &corev1.PodCondition{Type: core.PodReady, Status: condition.True})
	case "succeeded":
		p.Status.Phase = core.PodSucceeded
	case "failed":
		p.Status.Phase = core.PodFailed
	case "deleted":
		p.Metadata.DeletionTimestamp, p.Metadata.DeletionGracePeriodSeconds = timestamppb.New(epoch), proto.Int64(30)
	case "killed":
		p.Metadata.DeletionTimestamp, p.Metadata.DeletionGracePeriodSeconds = timestamppb.New(epoch), proto.Int64(0)
	case "untracked":
		p.Metadata.Finalizers = nil
	case "disrupted":
		p.Status.Conditions = append(p.Status.Conditions, &corev1.PodCondition{Type: core.PodDisruptionTarget, Status: condition.True})
	case "index":
		p.Metadata.Annotations[batch.CompletionIndex] = value
	case "failures":
		p.Metadata.Annotations[batch.AnnotationFailureCount] = value
	case "ignored":
		p.Metadata.Annotations[batch.AnnotationIgnoredFailureCount] = value
	case "code", "at", "restarts":
		if len(p.Status.ContainerStatuses) == 0 {
			p.Status.ContainerStatuses = []*corev1.ContainerStatus{{Name: "main"}}
		}
		s := p.Status.ContainerStatuses[0]
		if name == "restarts" {
			s.RestartCount = int32(n)
			return
		}
		if s.State == nil {
			s.State = &corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: timestamppb.New(epoch)}}
		}
		if name == "code" {
			s.State.Terminated.ExitCode = int32(n)
		} else {
			s.State.Terminated.FinishedAt = timestamppb.New(epoch.Add(time.Duration(n) * time.Second))
		}
	default:
		panic("a pod cannot be " + word)
	}
}

// String describes a plan in one line.
func (p *plan) String() string {
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	names := func(verb string, pods []*corev1.Pod) {
		var names []string
		for _, pod := range pods {
			names = append(names, pod.GetMetadata().GetName())
		}
		slices.Sort(names)
		if len(names) > 0 {
			add("%s %s", verb, strings.Join(names, ","))
		}
	}
	var indexes []string
	for _, n := range p.create {
		index := strconv.Itoa(n.index)
		if n.replaces != nil {
			index += "(" + n.replaces.GetMetadata().GetName() + ")"
		}
		indexes = append(indexes, index)
	}
	if len(indexes) > 0 {
		add("create %s", strings.Join(indexes, ","))
	}
	names("remove", p.remove)
	names("release", p.release)
	names("end", p.end)
	s := p.status
	add("active=%d ready=%d terminating=%d succeeded=%d failed=%d", s.GetActive(), s.GetReady(), s.GetTerminating(), s.GetSucceeded(), s.GetFailed())
	if s.GetCompletedIndexes() != "" || s.FailedIndexes != nil {
		add("completed=%s failed=%s", s.GetCompletedIndexes(), s.GetFailedIndexes())
	}
	for _, c := range s.GetConditions() {
		add("%s=%s:%s", c.GetType(), c.GetStatus(), c.GetReason())
	}
	for _, e := range p.events {
		add("event:%s", e.reason)
	}
	if p.again > 0 {
		add("again in %v", p.again)
	}
	return strings.Join(words, " ")
}

func TestPlan(t *testing.T) {
	const at = 5 * time.Second // after epoch
	status := func(j *batchv1.Job, change func(*batchv1.JobStatus)) *batchv1.Job { change(j.Status); return j }
	isTrue := func(typ, reason string) func(*batchv1.JobStatus) {
		return func(s *batchv1.JobStatus) {
			s.Conditions = append(s.Conditions, &batchv1.JobCondition{Type: typ, Status: condition.True, Reason: reason})
		}
	}
	for _, tt := range []struct {
		name string
		job  *batchv1.Job
		pods string
		want string
	}{
		{"a new job", newJob(), "", "create -1 active=1 ready=0 terminating=0 succeeded=0 failed=0"},
		{"as many as are missing", newJob(completions(3), parallelism(5)), "a succeeded; b ready",
			"create -1 release a active=2 ready=1 terminating=0 succeeded=1 failed=0"},
		{"all succeeded", newJob(completions(2)), "a succeeded; b succeeded untracked",
			"create -1 release a active=1 ready=0 terminating=0 succeeded=1 failed=0"},
		{"enough succeeded", status(newJob(completions(2)), func(s *batchv1.JobStatus) { s.Succeeded = 1 }), "a succeeded; b succeeded untracked",
			"release a active=0 ready=0 terminating=0 succeeded=2 failed=0 SuccessCriteriaMet=True:CompletionsReached Complete=True:CompletionsReached event:Completed"},
		{"one success is enough without completions", newJob(parallelism(3)), "a succeeded; b",
			"release a active=1 ready=0 terminating=0 succeeded=1 failed=0"},
		{"waits for pods that are deleted", status(newJob(), func(s *batchv1.JobStatus) { s.Succeeded = 1 }), "b deleted untracked",
			"active=0 ready=0 terminating=1 succeeded=1 failed=0 SuccessCriteriaMet=True:CompletionsReached"},
		{"fewer at a time", newJob(completions(9), parallelism(1)), "a ready; b pending",
			"remove b active=1 ready=1 terminating=0 succeeded=0 failed=0"},
		{"removal that was interrupted", newJob(completions(9), parallelism(2)), "a; b untracked",
			"remove b active=1 ready=0 terminating=1 succeeded=0 failed=0"},
		{"uncounted pods of a status from Kubernetes", status(newJob(completions(9), parallelism(1)), func(s *batchv1.JobStatus) {
			s.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: []string{"uid-a", "uid-gone"}, Failed: []string{"uid-b"}}
		}), "a succeeded; b failed untracked; c", "release a active=1 ready=0 terminating=0 succeeded=2 failed=1"},

		{"a pause after a failure", newJob(), "a failed at=0", "release a active=0 ready=0 terminating=0 succeeded=0 failed=1 again in 5s"},
		{"twice as long after two", newJob(), "a failed untracked at=0; b failed at=0",
			"release b active=0 ready=0 terminating=0 succeeded=0 failed=1 again in 15s"},
		{"none after a success", newJob(completions(3)), "a failed untracked at=0; b succeeded untracked at=1",
			"create -1 active=1 ready=0 terminating=0 succeeded=0 failed=0"},
		{"a failure too many", newJob(backoffLimit(1), completions(3), parallelism(3)), "a failed; b failed; c ready",
			"release a,b,c end c active=0 ready=0 terminating=1 succeeded=0 failed=3 FailureTarget=True:BackoffLimitExceeded"},
		{"failed", status(newJob(), isTrue("FailureTarget", "BackoffLimitExceeded")), "a failed untracked; c failed untracked deleted",
			"active=0 ready=0 terminating=0 succeeded=0 failed=0 FailureTarget=True:BackoffLimitExceeded Failed=True:BackoffLimitExceeded event:BackoffLimitExceeded"},
		{"restarts too many", newJob(backoffLimit(2), func(s *batchv1.JobSpec) { s.Template.Spec.RestartPolicy = "OnFailure" }), "a restarts=2",
			"release a end a active=0 ready=0 terminating=1 succeeded=0 failed=1 FailureTarget=True:BackoffLimitExceeded"},
		{"past the deadline", newJob(func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = proto.Int64(5) }), "a pending",
			"release a end a active=0 ready=0 terminating=0 succeeded=0 failed=1 FailureTarget=True:DeadlineExceeded"},
		{"before the deadline", newJob(func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = proto.Int64(9) }), "a",
			"active=1 ready=0 terminating=0 succeeded=0 failed=0 again in 4s"},

		{"a deleted pod is replaced", newJob(), "a deleted",
			"create -1 release a active=1 ready=0 terminating=1 succeeded=0 failed=1"},
		{"a deleted pod is replaced when it has ended", newJob(replaceFailed), "a deleted",
			"active=0 ready=0 terminating=1 succeeded=0 failed=0"},
		{"a deleted pod that never ran has ended", newJob(replaceFailed), "a pending deleted",
			"create -1 release a active=1 ready=0 terminating=0 succeeded=0 failed=1"},
		{"a deleted pod whose agent is done has ended", newJob(replaceFailed), "a killed",
			"create -1 release a active=1 ready=0 terminating=0 succeeded=0 failed=1"},
		{"a deleted pod that succeeds counts as success", newJob(replaceFailed), "a deleted succeeded",
			"release a active=0 ready=0 terminating=0 succeeded=1 failed=0 SuccessCriteriaMet=True:CompletionsReached Complete=True:CompletionsReached event:Completed"},

		{"policy fails the job", newJob(failurePolicy(onCode("FailJob", 42)), completions(3), parallelism(2)), "a failed code=42; b",
			"release a,b end b active=0 ready=0 terminating=1 succeeded=0 failed=2 FailureTarget=True:PodFailurePolicy"},
		{"policy ignores", newJob(failurePolicy(onCondition("Ignore", "DisruptionTarget")), backoffLimit(0)), "a failed disrupted deleted code=1",
			"create -1 release a active=1 ready=0 terminating=0 succeeded=0 failed=0"},
		{"the first rule that matches", newJob(failurePolicy(onCode("Count", 3), onCode("FailJob", 3))), "a failed code=3 at=-60",
			"create -1 release a active=1 ready=0 terminating=0 succeeded=0 failed=1"},

		{"suspended", newJob(suspended, completions(3), parallelism(3)), "a ready; b succeeded; c pending",
			"remove a,c release b active=0 ready=0 terminating=1 succeeded=1 failed=0 Suspended=True:JobSuspended event:Suspended"},
		{"stays suspended", status(newJob(suspended), isTrue("Suspended", "JobSuspended")), "",
			"active=0 ready=0 terminating=0 succeeded=0 failed=0 Suspended=True:JobSuspended"},
		{"resumed", status(newJob(), isTrue("Suspended", "JobSuspended")), "",
			"create -1 active=1 ready=0 terminating=0 succeeded=0 failed=0 Suspended=False:JobResumed event:Resumed"},

		{"first indexes", newJob(indexed, completions(5), parallelism(2)), "", "create 0,1 active=2 ready=0 terminating=0 succeeded=0 failed=0"},
		{"next indexes", newJob(indexed, completions(5), parallelism(2)), "a succeeded index=0; b index=1",
			"create 2 release a active=2 ready=0 terminating=0 succeeded=1 failed=0 completed=0 failed="},
		{"an index twice", newJob(indexed, completions(5), parallelism(3)), "a index=0 ready; b index=0; c index=1; d index=7",
			"remove b,d active=2 ready=1 terminating=2 succeeded=0 failed=0"},
		{"an index that succeeded twice", status(newJob(indexed, completions(2)), func(s *batchv1.JobStatus) { s.CompletedIndexes, s.Succeeded = "1", 1 }),
			"a index=1 succeeded; b index=0 succeeded", "release a,b active=0 ready=0 terminating=0 succeeded=2 failed=0 completed=0,1 failed= " +
				"SuccessCriteriaMet=True:CompletionsReached Complete=True:CompletionsReached event:Completed"},
		{"scaled down", status(newJob(indexed, completions(2), parallelism(2)), func(s *batchv1.JobStatus) { s.CompletedIndexes, s.Succeeded = "0,3-4", 3 }),
			"a index=1; b index=2", "remove b active=1 ready=0 terminating=1 succeeded=1 failed=0 completed=0 failed="},
		{"success policy", newJob(indexed, completions(5), parallelism(5), successPolicy(&batchv1.SuccessPolicyRule{SucceededIndexes: proto.String("0-2"), SucceededCount: proto.Int32(2)})),
			"a index=0 succeeded; b index=2 succeeded; c index=1", "release a,b,c end c active=0 ready=0 terminating=1 succeeded=2 failed=0 completed=0,2 failed= " +
				"SuccessCriteriaMet=True:SuccessPolicy"},

		{"a failed index keeps its pod until it is replaced", newJob(indexed, completions(2), parallelism(2), perIndex(2)), "a index=0 failed at=0 failures=0; b index=1",
			"active=1 ready=0 terminating=0 succeeded=0 failed=0 completed= failed= again in 5s"},
		{"a failed index is replaced", newJob(indexed, completions(2), parallelism(2), perIndex(2)), "a index=0 failed at=-20 failures=1; b index=1",
			"create 0(a) active=2 ready=0 terminating=0 succeeded=0 failed=0 completed= failed= "},
		{"the pod that was replaced counts", newJob(indexed, completions(2), parallelism(2), perIndex(2)), "a index=0 failed at=-20 failures=0; b index=1; c index=0 failures=1",
			"release a active=2 ready=0 terminating=0 succeeded=0 failed=1 completed= failed="},
		{"an index fails", newJob(indexed, completions(3), parallelism(1), perIndex(1)), "a index=0 failed failures=1",
			"create 1 release a active=1 ready=0 terminating=0 succeeded=0 failed=1 completed= failed=0"},
		{"policy fails the index", newJob(indexed, completions(3), parallelism(1), perIndex(5), failurePolicy(onCode("FailIndex", 4))), "a index=0 failed code=4",
			"create 1 release a active=1 ready=0 terminating=0 succeeded=0 failed=1 completed= failed=0"},
		{"some indexes failed", status(newJob(indexed, completions(3), parallelism(3), perIndex(0)), func(s *batchv1.JobStatus) {
			s.CompletedIndexes, s.Succeeded, s.FailedIndexes = "0", 1, proto.String("1")
		}), "c index=2 succeeded", "release c active=0 ready=0 terminating=0 succeeded=2 failed=0 completed=0,2 failed=1 " +
			"FailureTarget=True:FailedIndexes Failed=True:FailedIndexes event:FailedIndexes"},
		{"too many indexes failed", newJob(indexed, completions(4), parallelism(4), perIndex(0), func(s *batchv1.JobSpec) { s.MaxFailedIndexes = proto.Int32(1) }),
			"a index=0 failed; b index=1 failed; c index=2", "release a,b,c end c active=0 ready=0 terminating=1 succeeded=0 failed=3 completed= failed=0,1 " +
				"FailureTarget=True:MaxFailedIndexesExceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := proto.CloneOf(tt.job)
			got := newPlan(tt.job, parsePods(tt.pods), epoch.Add(at)).String()
			if strings.TrimSpace(got) != strings.TrimSpace(tt.want) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if !proto.Equal(tt.job, before) {
				t.Error("the plan changed the job")
			}
		})
	}
}

func TestJobThatIsDeletedReleasesItsPods(t *testing.T) {
	j := newJob(completions(3), parallelism(3))
	j.Metadata.DeletionTimestamp = timestamppb.New(epoch)
	got := newPlan(j, parsePods("a; b succeeded; c failed"), epoch).String()
	if want := "release a,b,c active=1 ready=0 terminating=0 succeeded=1 failed=1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestManyPodsAreCountedInTurns(t *testing.T) {
	var pods []string
	for i := range 600 {
		pods = append(pods, fmt.Sprintf("p%d succeeded", i))
	}
	j, all := newJob(completions(600), parallelism(600)), parsePods(strings.Join(pods, ";"))
	for turn, want := range []int32{250, 500, 600} {
		p := newPlan(j, all, epoch)
		if p.status.GetSucceeded() != want || len(p.create)+len(p.remove) > 0 {
			t.Fatalf("turn %d: %d succeeded, %d created", turn, p.status.GetSucceeded(), len(p.create))
		}
		for _, pod := range p.release {
			pod.Metadata.Finalizers = nil
		}
		j.Status = p.status
		if done := batch.Finished(j) != nil; done != (want == 600) {
			t.Errorf("turn %d: finished %t", turn, done)
		}
	}
}

func TestFailJobMessages(t *testing.T) {
	j := newJob(failurePolicy(onCode("FailJob", 3), onCondition("FailJob", "Broken")))
	for pods, want := range map[string]string{
		"a failed code=3": "Container main for pod default/a failed with exit code 3 matching FailJob rule at index 0",
		"a failed code=4": "", "a failed code=0": "", "a code=3": "",
	} {
		if got := failJobMessage(j, parsePods(pods)); got != want {
			t.Errorf("%s: %q, want %q", pods, got, want)
		}
	}
	p := parsePods("b failed")
	p[0].Status.Conditions = []*corev1.PodCondition{{Type: "Broken", Status: condition.True}}
	if got, want := failJobMessage(j, p), "Pod default/b has condition Broken matching FailJob rule at index 1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPause(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		0: 0, 1: 10 * time.Second, 2: 20 * time.Second, 3: 40 * time.Second, 6: 320 * time.Second, 7: 10 * time.Minute, 1000: 10 * time.Minute,
	} {
		if got := pauseAfter(failures, epoch, epoch); got != want {
			t.Errorf("after %d failures %v, want %v", failures, got, want)
		}
	}
}

func TestIndexedPod(t *testing.T) {
	j := newJob(indexed, completions(20), perIndex(3))
	j.Metadata.Name = strings.Repeat("a", 60)
	failed := parsePods("x index=12 failed failures=1 ignored=2")[0]
	p := newPod{12, failed}.build(j)
	m := p.GetMetadata()
	if m.GetAnnotations()[batch.CompletionIndex] != "12" || m.GetLabels()[batch.CompletionIndex] != "12" ||
		m.GetAnnotations()[batch.AnnotationFailureCount] != "2" || m.GetAnnotations()[batch.AnnotationIgnoredFailureCount] != "2" || !isTracked(p) {
		t.Errorf("metadata %v", m)
	}
	if p.GetSpec().GetHostname() != j.Metadata.Name+"-12" || len(m.GetGenerateName()) > 58 || !strings.HasSuffix(m.GetGenerateName(), "a-12-") {
		t.Errorf("host name %s, names begin with %s", p.GetSpec().GetHostname(), m.GetGenerateName())
	}
	env := p.GetSpec().GetContainers()[0].GetEnv()
	if len(env) != 1 || env[0].GetName() != "JOB_COMPLETION_INDEX" || env[0].GetValueFrom().GetFieldRef().GetFieldPath() != "metadata.labels['batch.kubernetes.io/job-completion-index']" {
		t.Errorf("environment %v", env)
	}
}
