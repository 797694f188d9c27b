package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestStreams talks to containers: to one that runs, to one that is run for that, and to one that
// is put beside others.
func TestStreams(t *testing.T) {
	p := sharedShip(t).person(t)
	p.loadImages(t)
	p.loadShell(t)
	t.Run("attach", p.attaches)
	t.Run("run", p.runs)
	t.Run("debug", p.debugs)
}

func (p *person) attaches(t *testing.T) {
	p.apply(t, `apiVersion: v1
kind: Pod
metadata: {name: listener}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: `+shellImage+`
      stdin: true
      stdinOnce: true
      command: [sh, -c, "while read line; do echo heard $line; done; exit 3"]
`)
	p.do(t, "wait", "pod/listener", "--for", "condition=Ready", "--timeout", "60s")
	// The container ends with its input, and what attached to it with the container's code.
	o := p.pipe(t, "one\ntwo\n", "attach", "-i", "listener")
	if o.code != 3 || o.stdout != "heard one\nheard two\n" {
		t.Errorf("attach: %s", o)
	}
	pod := p.podIs(t, "listener", "it has failed", func(pod *corev1.Pod) bool { return pod.GetStatus().GetPhase() == core.PodFailed })
	if e := pod.GetStatus().GetContainerStatuses()[0].GetState().GetTerminated(); e.GetExitCode() != 3 {
		t.Errorf("it ended as %v", e)
	}
	if out := p.do(t, "logs", "listener"); out != "heard one\nheard two\n" {
		t.Errorf("its log is %q", out)
	}
	if o := p.try(t, "attach", "listener"); o.code != 1 || !strings.Contains(o.stderr, "not running") {
		t.Errorf("attach to what has ended: %s", o)
	}
}

func (p *person) runs(t *testing.T) {
	o := p.pipe(t, "hello\n", "run", "upper", "-i", "--rm", "--image", shellImage, "--restart=Never", "--command", "--", "sh", "-c", "read x; echo $x | busybox tr a-z A-Z; exit 6")
	if o.code != 6 || o.stdout != "HELLO\n" {
		t.Errorf("run: %s", o)
	}
	if err := awaitGone[*corev1.Pod](t.Context(), p.client, p.namespace, "upper"); err != nil {
		t.Errorf("--rm: %v", err)
	}
	if out := p.do(t, "run", "web", "--image=xebec/echo:1", "--labels=app=web", "--env=COLOR=red"); out != "pod/web created\n" {
		t.Errorf("run says %q", out)
	}
	web := p.podIs(t, "web", "it is ready", ready)
	if c := web.GetSpec().GetContainers()[0]; web.GetMetadata().GetLabels()["app"] != "web" || c.GetEnv()[0].GetValue() != "red" {
		t.Errorf("it was made as %v", web)
	}
}

// The image of the web server has no shell: the container that is added has, and sees what the
// server's sees.
func (p *person) debugs(t *testing.T) {
	before := p.podIs(t, "web", "it is ready", ready)
	o := p.pipe(t, "", "debug", "web", "-i", "-c", "look", "--image", shellImage, "--target=web", "--",
		"sh", "-c", "busybox ps; busybox wget -qO- http://127.0.0.1:8080/name; exit 4")
	if o.code != 4 || !strings.Contains(o.stdout, "/echo") || !strings.HasSuffix(o.stdout, "\nweb\n") {
		t.Errorf("debug: %s", o)
	}
	after := p.podIs(t, "web", "the end of the added container is reported", func(pod *corev1.Pod) bool {
		s := pod.GetStatus().GetEphemeralContainerStatuses()
		return len(s) == 1 && s[0].GetName() == "look" && s[0].GetState().GetTerminated().GetExitCode() == 4
	})
	was, is := before.GetStatus().GetContainerStatuses()[0], after.GetStatus().GetContainerStatuses()[0]
	if was.GetContainerId() != is.GetContainerId() || is.GetRestartCount() != 0 || !ready(after) {
		t.Errorf("the web server was %v and is %v", was, is)
	}
	if out := p.do(t, "describe", "pod", "web"); !strings.Contains(out, "look") || !strings.Contains(out, shellImage) {
		t.Errorf("describe does not tell of the added container:\n%s", out)
	}
	stored, err := client.Get[*corev1.Pod](t.Context(), p.client, p.namespace, "web")
	if err != nil {
		t.Fatal(err)
	}
	stored = client.Clone(stored)
	stored.Spec.EphemeralContainers = nil
	// Whatever has become of its status meanwhile.
	stored.Metadata.ResourceVersion = ""
	if _, err := client.Update(t.Context(), p.client, stored); err == nil || !strings.Contains(fmt.Sprint(err), "differs in spec.ephemeralContainers") {
		t.Errorf("taking it away: %v", err)
	}
}
