package batch_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// jobSpec is the spec of a Job or of the template of a CronJob.
func jobSpec() *batchv1.JobSpec {
	return &batchv1.JobSpec{Template: &corev1.PodTemplateSpec{
		Metadata: &metav1.ObjectMeta{Labels: map[string]string{"app": "pi"}},
		Spec:     &corev1.PodSpec{RestartPolicy: "Never", Containers: []*corev1.Container{{Name: "main", Image: "busybox:1"}}},
	}}
}

// job is a Job as it is created.
func job() *batchv1.Job {
	j := &batchv1.Job{Metadata: kindtest.Meta("pi"), Spec: jobSpec()}
	j.Metadata.Uid = "u1"
	kinds.Of(j).PrepareCreate(j)
	return j
}

func cronJob() *batchv1.CronJob {
	return &batchv1.CronJob{Metadata: kindtest.Meta("hourly"), Spec: &batchv1.CronJobSpec{
		Schedule: "30 * * * *", JobTemplate: &batchv1.JobTemplateSpec{Spec: jobSpec()},
	}}
}

func TestJobGetsASelector(t *testing.T) {
	j := job()
	kinds.Of(j).Default(j)
	s, labels := j.GetSpec(), j.GetSpec().GetTemplate().GetMetadata().GetLabels()
	want := map[string]string{
		"app": "pi", "controller-uid": "u1", "job-name": "pi",
		"batch.kubernetes.io/controller-uid": "u1", "batch.kubernetes.io/job-name": "pi",
	}
	if len(labels) != len(want) || len(j.GetMetadata().GetLabels()) != len(want) {
		t.Errorf("labels of the template %v, of the job %v", labels, j.GetMetadata().GetLabels())
	}
	for key, value := range want {
		if labels[key] != value {
			t.Errorf("label %s is %q, want %q", key, labels[key], value)
		}
	}
	if got := s.GetSelector().GetMatchLabels(); len(got) != 1 || got[batch.LabelControllerUID] != "u1" {
		t.Errorf("selector %v", got)
	}
	if s.GetCompletions() != 1 || s.GetParallelism() != 1 || s.GetBackoffLimit() != 6 || s.GetCompletionMode() != batch.NonIndexed ||
		s.GetPodReplacementPolicy() != batch.ReplaceTerminatingOrFailed || s.Suspend == nil || s.ManualSelector == nil {
		t.Errorf("defaults: %v", s)
	}

	manual := &batchv1.Job{Metadata: kindtest.Meta("pi"), Spec: jobSpec()}
	manual.Spec.ManualSelector = proto.Bool(true)
	kinds.Of(manual).PrepareCreate(manual)
	if manual.GetSpec().GetSelector() != nil || len(manual.GetSpec().GetTemplate().GetMetadata().GetLabels()) != 1 {
		t.Errorf("a manual selector was completed: %v", manual.GetSpec())
	}
}

func TestJob(t *testing.T) {
	indexed := func(j *batchv1.Job) *batchv1.JobSpec {
		j.Spec.CompletionMode, j.Spec.Completions, j.Spec.Parallelism = proto.String(batch.Indexed), proto.Int32(5), proto.Int32(2)
		return j.Spec
	}
	kindtest.Validate(t, job, []kindtest.Bad[*batchv1.Job]{
		{Name: "no spec", Edit: func(j *batchv1.Job) { j.Spec = nil }, Want: []string{"spec.selector: Required value", "spec.template: Required value"}},
		{Name: "restart policy", Edit: func(j *batchv1.Job) { j.Spec.Template.Spec.RestartPolicy = "" },
			Want: []string{`spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`}},
		{Name: "failure policy restarts", Edit: func(j *batchv1.Job) {
			j.Spec.Template.Spec.RestartPolicy, j.Spec.PodFailurePolicy = "OnFailure", &batchv1.PodFailurePolicy{}
		}, Want: []string{`spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified`}},
		{Name: "another's labels", Edit: func(j *batchv1.Job) { j.Spec.Template.Metadata.Labels[batch.LabelJobName] = "other" },
			Want: []string{"spec.template.metadata.labels[batch.kubernetes.io/job-name]: Invalid value"}},
		{Name: "another's selector", Edit: func(j *batchv1.Job) { j.Spec.Selector.MatchLabels["a"] = "b" },
			Want: []string{"spec.selector: Invalid value", "spec.template.metadata.labels: Invalid value"}},
		{Name: "indexed without completions", Edit: func(j *batchv1.Job) { indexed(j).Completions = nil },
			Want: []string{"spec.completions: Required value: when completion mode is Indexed"}},
		{Name: "name too long for indexes", Edit: func(j *batchv1.Job) {
			indexed(j)
			j.Metadata.Name = strings.Repeat("a", 62)
			j.Spec.ManualSelector = proto.Bool(true)
		}, Want: []string{"metadata.name: Invalid value: \"" + strings.Repeat("a", 62) + "\": will not able to create pod"}},
		{Name: "indexes that are too large", Edit: func(j *batchv1.Job) {
			indexed(j).SuccessPolicy = &batchv1.SuccessPolicy{Rules: []*batchv1.SuccessPolicyRule{{SucceededIndexes: proto.String("1-5")}}}
		}, Want: []string{`spec.successPolicy.rules[0].succeededIndexes: Invalid value: "1-5": error parsing succeededIndexes: too large index: "5"`}},
		{Name: "exit codes", Edit: func(j *batchv1.Job) {
			j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []*batchv1.PodFailurePolicyRule{{
				Action: "FailIndex", OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: "In", Values: []int32{3, 0, 3}, ContainerName: proto.String("x")},
			}}}
		}, Want: []string{
			`spec.podFailurePolicy.rules[0].action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set`,
			`spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: "x"`,
			"spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [3,0,3]: must be ordered",
			"spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
			"spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 3",
		}},
		{Name: "manager", Edit: func(j *batchv1.Job) { j.Spec.ManagedBy = proto.String("me") },
			Want: []string{`spec.managedBy: Invalid value: "me": must be a domain-prefixed path`}},
	})
}

func TestJobUpdate(t *testing.T) {
	kindtest.Update(t, job, []kindtest.Edit[*batchv1.Job]{
		{Name: "parallelism", Edit: func(j *batchv1.Job) { j.Spec.Parallelism = proto.Int32(3) }, Want: nil},
		{Name: "completions", Edit: func(j *batchv1.Job) { j.Spec.Completions = proto.Int32(3) }, Want: []string{"spec.completions: Invalid value: 3: field is immutable"}},
		{Name: "mode", Edit: func(j *batchv1.Job) { j.Spec.CompletionMode = proto.String("Indexed") }, Want: []string{"spec.completionMode: Invalid value"}},
		{Name: "template", Edit: func(j *batchv1.Job) { j.Spec.Template.Spec.Containers[0].Image = "busybox:2" }, Want: []string{"spec.template: Invalid value: field is immutable"}},
	})
	indexed := func() *batchv1.Job {
		j := job()
		j.Spec.CompletionMode, j.Spec.Completions, j.Spec.Parallelism = proto.String(batch.Indexed), proto.Int32(5), proto.Int32(5)
		return j
	}
	kindtest.Update(t, indexed, []kindtest.Edit[*batchv1.Job]{
		{Name: "elastic", Edit: func(j *batchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = proto.Int32(3), proto.Int32(3) }, Want: nil},
		{Name: "not in tandem", Edit: func(j *batchv1.Job) { j.Spec.Completions = proto.Int32(3) },
			Want: []string{"spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"}},
	})
	suspended := func() *batchv1.Job {
		j := job()
		j.Spec.Suspend = proto.Bool(true)
		return j
	}
	kindtest.Update(t, suspended, []kindtest.Edit[*batchv1.Job]{
		{Name: "placement and resources", Edit: func(j *batchv1.Job) {
			s := j.Spec.Template.Spec
			s.NodeSelector, s.Affinity = map[string]string{"a": "b"}, &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}}
			s.Containers[0].Resources = &corev1.ResourceRequirements{Requests: map[string]*metav1.Quantity{"cpu": {String_: "1"}}}
			j.Spec.Template.Metadata.Annotations = map[string]string{"c": "d"}
		}, Want: nil},
		{Name: "image", Edit: func(j *batchv1.Job) { j.Spec.Template.Spec.Containers[0].Image = "busybox:2" }, Want: []string{"spec.template.spec: Invalid value: field is immutable"}},
	})
}

func TestJobStatus(t *testing.T) {
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(kindtest.Now.Add(d)) }
	isTrue := func(types ...string) (conditions []*batchv1.JobCondition) {
		for _, typ := range types {
			conditions = append(conditions, &batchv1.JobCondition{Type: typ, Status: "True"})
		}
		return conditions
	}
	for name, tt := range map[string]struct {
		old, new *batchv1.JobStatus
		want     []string
	}{
		"complete": {&batchv1.JobStatus{StartTime: at(0)}, &batchv1.JobStatus{StartTime: at(0), CompletionTime: at(time.Second),
			Conditions: isTrue(batch.JobSuccessCriteriaMet, batch.JobComplete)}, nil},
		"complete out of the blue": {nil, &batchv1.JobStatus{Conditions: isTrue(batch.JobComplete)}, []string{
			"status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
			"status.completionTime: Required value: completionTime is required for Complete jobs", "status.startTime: Required value"}},
		"back to life": {&batchv1.JobStatus{StartTime: at(0), Failed: 2, Conditions: isTrue(batch.JobFailureTarget, batch.JobFailed)},
			&batchv1.JobStatus{StartTime: at(0), Failed: 1}, []string{
				"status.conditions: Invalid value: cannot disable the terminal Failed=True condition",
				"status.conditions: Invalid value: cannot disable the terminal FailureTarget=True condition",
				"status.failed: Invalid value: 1: cannot decrease the failed counter"}},
		"more ready than active":  {nil, &batchv1.JobStatus{Ready: proto.Int32(2), Active: 1}, []string{"status.ready: Invalid value: 2"}},
		"indexes of another mode": {nil, &batchv1.JobStatus{CompletedIndexes: "0"}, []string{"status.completedIndexes: Invalid value"}},
		"negative":                {nil, &batchv1.JobStatus{Failed: -1}, []string{"status.failed: Invalid value: -1: cannot decrease", "status.failed: Invalid value: -1: must be"}},
	} {
		old, new := job(), job()
		kinds.Of(old).Default(old)
		old.Status, new.Status = tt.old, tt.new
		kinds.Of(new).PrepareStatusUpdate(new, old)
		t.Run(name, func(t *testing.T) { kindtest.Expect(t, kinds.Of(new).ValidateStatusUpdate(new, old), tt.want) })
	}
}

func TestCronJob(t *testing.T) {
	kindtest.Validate(t, cronJob, []kindtest.Bad[*batchv1.CronJob]{
		{Name: "no spec", Edit: func(j *batchv1.CronJob) { j.Spec = nil }, Want: []string{"spec.jobTemplate.spec.template: Required value", "spec.schedule: Required value"}},
		{Name: "schedule", Edit: func(j *batchv1.CronJob) { j.Spec.Schedule = "61 * * * *" },
			Want: []string{`spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59)`}},
		{Name: "zone in the schedule", Edit: func(j *batchv1.CronJob) { j.Spec.Schedule = "CRON_TZ=UTC 0 * * * *" },
			Want: []string{`spec.schedule: Invalid value: "CRON_TZ=UTC 0 * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead`}},
		{Name: "a schedule that breaks the parser", Edit: func(j *batchv1.CronJob) { j.Spec.Schedule = "TZ=0" },
			Want: []string{`spec.schedule: Invalid value: "TZ=0": invalid schedule format`, `spec.schedule: Invalid value: "TZ=0": cannot use TZ`}},
		{Name: "zone", Edit: func(j *batchv1.CronJob) { j.Spec.TimeZone = proto.String("Europe/Nowhere") },
			Want: []string{`spec.timeZone: Invalid value: "Europe/Nowhere": unknown time zone Europe/Nowhere`}},
		{Name: "empty zone", Edit: func(j *batchv1.CronJob) { j.Spec.TimeZone = proto.String("") }, Want: []string{"spec.timeZone: Invalid value"}},
		{Name: "local zone", Edit: func(j *batchv1.CronJob) { j.Spec.TimeZone = proto.String("Local") }, Want: []string{"spec.timeZone: Invalid value"}},
		{Name: "path as zone", Edit: func(j *batchv1.CronJob) { j.Spec.TimeZone = proto.String("../../etc/passwd") },
			Want: []string{"spec.timeZone: Invalid value"}},
		{Name: "selector", Edit: func(j *batchv1.CronJob) { j.Spec.JobTemplate.Spec.Selector = &metav1.LabelSelector{} },
			Want: []string{"spec.jobTemplate.spec.selector: Invalid value"}},
		{Name: "manual selector", Edit: func(j *batchv1.CronJob) { j.Spec.JobTemplate.Spec.ManualSelector = proto.Bool(true) },
			Want: []string{"spec.jobTemplate.spec.manualSelector: Unsupported value"}},
	})
	long := cronJob()
	long.Metadata.Name = strings.Repeat("a", 53)
	kindtest.Expect(t, kinds.Of(long).ValidateNew(long), []string{"metadata.name: Invalid value: \"" + long.Metadata.Name + "\": must be no more than 52 characters"})
}

func TestColumns(t *testing.T) {
	j := job()
	kinds.Of(j).Default(j)
	kindtest.ExpectCells(t, j, kindtest.Now, map[string]string{"STATUS": "Running", "COMPLETIONS": "0/1", "DURATION": "", "CONTAINERS": "main", "IMAGES": "busybox:1"})
	j.Spec.Completions, j.Spec.Parallelism = nil, proto.Int32(3)
	j.Status = &batchv1.JobStatus{StartTime: kindtest.Ago(time.Minute), Succeeded: 1, Conditions: []*batchv1.JobCondition{{Type: "Suspended", Status: "True"}}}
	kindtest.ExpectCells(t, j, kindtest.Now, map[string]string{"STATUS": "Suspended", "COMPLETIONS": "1/1 of 3", "DURATION": "60s"})

	c := cronJob()
	kinds.Of(c).Default(c)
	kindtest.ExpectCells(t, c, kindtest.Now, map[string]string{
		"SCHEDULE": "30 * * * *", "TIMEZONE": "<none>", "SUSPEND": "False", "ACTIVE": "0", "LAST SCHEDULE": "<none>", "SELECTOR": "<none>",
	})
}

func TestIndexes(t *testing.T) {
	for _, tt := range []struct {
		text        string
		completions int
		want        string
		n           int
	}{
		{"", 5, "", 0}, {"0", 5, "0", 1}, {"0,1", 5, "0,1", 2}, {"0-2,4", 5, "0-2,4", 4}, {"0-2,4", 3, "0-2", 3}, {"0-9", 2, "0,1", 2},
		{"x,3", 5, "3", 1}, {"3-x", 5, "", 0}, {"7", 5, "", 0},
	} {
		s := batch.ReadIndexes(tt.text, tt.completions)
		if s.String() != tt.want || s.Len() != tt.n {
			t.Errorf("%q below %d: %q with %d, want %q with %d", tt.text, tt.completions, s, s.Len(), tt.want, tt.n)
		}
	}
	a, b := batch.IndexesOf(0, 1, 5, 7, 8), batch.IndexesOf(2, 5, 6, 9)
	if u := a.Union(b); u.String() != "0-2,5-9" || a.String() != "0,1,5,7,8" || a.Common(b) != 1 {
		t.Errorf("union %s of %s, common %d", u, a, a.Common(b))
	}
	if got := a.Missing(4, 20); !slices.Equal(got, []int{2, 3, 4, 6}) {
		t.Errorf("missing: %v", got)
	}
	if got := a.Missing(9, 4); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("missing below 4: %v", got)
	}
	for i := range 10 {
		if want := slices.Contains([]int{0, 1, 5, 7, 8}, i); a.Has(i) != want {
			t.Errorf("%d in %s: %t", i, a, a.Has(i))
		}
	}
}
