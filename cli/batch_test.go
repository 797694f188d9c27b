package cli

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// pi is a Job that has run for a minute.
func pi() *batchv1.Job {
	selector := map[string]string{batch.LabelControllerUID: "u1"}
	return &batchv1.Job{
		Metadata: &metav1.ObjectMeta{Name: "pi", Namespace: "default", Uid: "u1", CreationTimestamp: ago(time.Hour)},
		Spec: &batchv1.JobSpec{
			Completions: proto.Int32(5), Parallelism: proto.Int32(2), BackoffLimit: proto.Int32(6), CompletionMode: proto.String("Indexed"),
			Selector: &metav1.LabelSelector{MatchLabels: selector}, ActiveDeadlineSeconds: proto.Int64(600),
			Template: &corev1.PodTemplateSpec{
				Metadata: &metav1.ObjectMeta{Labels: selector},
				Spec:     &corev1.PodSpec{RestartPolicy: "Never", Containers: []*corev1.Container{{Name: "pi", Image: "perl:5", Command: []string{"perl"}}}},
			},
		},
		Status: &batchv1.JobStatus{
			StartTime: ago(time.Hour), CompletionTime: ago(59 * time.Minute), Succeeded: 5, Failed: 1, CompletedIndexes: "0-4",
			Conditions: []*batchv1.JobCondition{
				{Type: batch.JobSuccessCriteriaMet, Status: "True", Reason: "CompletionsReached", LastTransitionTime: ago(59 * time.Minute)},
				{Type: batch.JobComplete, Status: "True", Reason: "CompletionsReached", LastTransitionTime: ago(59 * time.Minute)},
			},
		},
	}
}

func TestJobs(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, pi())
	c.run(t, "get", "jobs").want(t, exit.OK, "NAME   STATUS     COMPLETIONS   DURATION   AGE\npi     Complete   5/5           60s        60m\n")
	c.run(t, "describe", "job/pi").golden(t, "describe-job-pi")
	c.run(t, "wait", "--for=condition=complete", "job/pi").want(t, exit.OK, "job.batch/pi condition met\n")
	c.run(t, "logs", "job/pi").want(t, exit.Failed, "", "no pods found for job.batch/pi")

	c.run(t, "create", "job", "once", "--image=busybox:1", "--", "date", "-u").want(t, exit.OK, "job.batch/once created\n")
	c.run(t, "get", "job/once", "-o", "jsonpath={.spec.template.spec.restartPolicy} {.spec.template.spec.containers[0].name} {.spec.template.spec.containers[0].command}").
		want(t, exit.OK, `Never once ["date","-u"]`)
	c.run(t, "create", "job", "x").want(t, exit.Usage, "", "exactly one of --image and --from is required")
	c.run(t, "create", "job", "x", "--from=cronjob/a", "--", "date").want(t, exit.Usage, "", "a command cannot be combined with --from")
	c.run(t, "create", "job", "x", "--from=job/once").want(t, exit.Usage, "", "want cronjob/NAME")
}

func TestCronJobs(t *testing.T) {
	c := startCluster(t)
	c.run(t, "create", "cronjob", "nightly", "--image=backup:1", "--schedule=30 2 * * *", "--", "backup").want(t, exit.OK, "cronjob.batch/nightly created\n")
	c.run(t, "create", "cronjob", "x", "--image=a").want(t, exit.Usage, "", "--image and --schedule are required")
	c.run(t, "create", "cj", "x", "--image=a", "--schedule=TZ=UTC 0 * * * *").want(t, exit.Failed, "", "use timeZone field instead")
	c.run(t, "create", "cj", "x", "--image=a", "--schedule=@daily", "--restart=Always").want(t, exit.Usage, "", "want OnFailure or Never")
	c.run(t, "create", "job", "now", "--from=cronjob/nightly").want(t, exit.OK, "job.batch/now created\n")
	c.run(t, "get", "job/now", "-o", `jsonpath={.metadata.ownerReferences[0].kind} {.metadata.annotations.cronjob\.kubernetes\.io/instantiate} {.spec.template.spec.restartPolicy}`).
		want(t, exit.OK, "CronJob manual OnFailure")
	c.run(t, "create", "job", "x", "--from=cronjob/gone").want(t, exit.Failed, "", "not found")

	clienttest.Seed(c.Server, &batchv1.CronJob{
		Metadata: &metav1.ObjectMeta{Name: "often", Namespace: "default", CreationTimestamp: ago(time.Hour)},
		Spec: &batchv1.CronJobSpec{
			Schedule: "*/5 * * * *", TimeZone: proto.String("Europe/Paris"), ConcurrencyPolicy: "Forbid",
			SuccessfulJobsHistoryLimit: proto.Int32(3), FailedJobsHistoryLimit: proto.Int32(1), JobTemplate: &batchv1.JobTemplateSpec{Spec: pi().GetSpec()},
		},
		Status: &batchv1.CronJobStatus{LastScheduleTime: ago(3 * time.Minute), Active: []*corev1.ObjectReference{{Kind: "Job", Name: "often-1"}}},
	})
	c.run(t, "describe", "cronjob/often").golden(t, "describe-cronjob-often")
	if r := c.run(t, "get", "cj", "often"); !strings.Contains(r.out, "often   */5 * * * *   Europe/Paris   False     1        3m") {
		t.Errorf("%s%s", r.out, r.err)
	}
}
