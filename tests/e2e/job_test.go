package e2e

import (
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/client"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
)

// jobs has Jobs whose ends depend on what their containers do: find their index, fail once and are
// started again, and end with a code that fails the Job.
const jobs = `apiVersion: batch/v1
kind: Job
metadata: {name: indexed}
spec:
  completions: 3
  parallelism: 3
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: main
        image: ` + shellImage + `
        command: [sh, -c, "read host </etc/hostname; echo index $JOB_COMPLETION_INDEX on $host"]
---
apiVersion: batch/v1
kind: Job
metadata: {name: restarts}
spec:
  template:
    spec:
      restartPolicy: OnFailure
      volumes: [{name: data, emptyDir: {}}]
      containers:
      - name: main
        image: ` + shellImage + `
        command: [sh, -c, "if [ -e /data/ran ]; then echo again; exit 0; fi; echo >/data/ran; exit 1"]
        volumeMounts: [{name: data, mountPath: /data}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec:
  completions: 2
  parallelism: 1
  backoffLimit: 6
  podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {containerName: main, operator: In, values: [42]}}]}
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: main
        image: ` + shellImage + `
        command: [sh, -c, exit 42]
`

// TestJobs runs Jobs with real containers. It plays the steps of Kubernetes' conformance tests "run
// a job to completion when tasks sometimes fail and are locally restarted", "create pods for an
// Indexed job with completion indexes and specified hostname" and "allow to use the pod failure
// policy on exit code to fail the job early".
func TestJobs(t *testing.T) {
	s := sharedShip(t)
	p := s.person(t)
	s.loadShell(t)
	p.apply(t, jobs)
	p.do(t, "wait", "job/indexed", "job/restarts", "--for=condition=complete", "--timeout=60s")
	p.do(t, "wait", "job/fails", "--for=condition=failed", "--timeout=60s")
	for index, want := range map[string]string{"0": "index 0 on indexed-0\n", "2": "index 2 on indexed-2\n"} {
		labels := "batch.kubernetes.io/job-name=indexed,batch.kubernetes.io/job-completion-index=" + index
		if out := p.do(t, "logs", "-l", labels); out != want {
			t.Errorf("the pod of index %s says %q, want %q", index, out, want)
		}
	}
	if out := p.do(t, "logs", "job/restarts"); out != "again\n" {
		t.Errorf("the container that was started again says %q", out)
	}
	for name, want := range map[string]struct{ succeeded, failed int32 }{"indexed": {3, 0}, "restarts": {1, 0}, "fails": {0, 1}} {
		j, err := client.Get[*batchv1.Job](t.Context(), p.client, p.namespace, name)
		if err != nil {
			t.Fatal(err)
		}
		if s := j.GetStatus(); s.GetSucceeded() != want.succeeded || s.GetFailed() != want.failed {
			t.Errorf("%s: %v", name, s)
		}
	}
	p.do(t, "create", "job", "once", "--image="+shellImage, "--", "sh", "-c", "echo done")
	p.do(t, "wait", "job/once", "--for=condition=complete", "--timeout=60s")
	if out := p.do(t, "get", "job/once"); !strings.Contains(out, "Complete   1/1") {
		t.Errorf("get says\n%s", out)
	}
}
