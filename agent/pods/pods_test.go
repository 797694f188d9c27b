package pods_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestPods(t *testing.T) {
	n := start(t)
	for _, c := range []struct {
		name string
		f    func(*node)
	}{
		{"runs", testRuns}, {"crash loop", testCrashLoop}, {"completes", testCompletes}, {"missing config", testMissingConfig},
		{"missing image", testMissingImage}, {"missing command", testMissingCommand}, {"readiness", testReadiness},
		{"liveness", testLiveness}, {"out of memory", testOOM}, {"init container out of memory", testInitOOM}, {"ignores SIGTERM", testIgnoresTerm}, {"hooks", testHooks},
		{"init containers", testInit}, {"sidecar", testSidecar}, {"restart rules", testRestartRules}, {"volumes", testVolumes}, {"volume limit", testVolumeLimit}, {"security", testSecurity},
		{"missing pull secret", testMissingPullSecret}, {"surroundings", testSurroundings},
		{"deleted before it starts", testDeletedEarly}, {"force", testForce}, {"host network", testHostNetwork},
		{"deadline", testDeadline}, {"burst", testBurst},
	} {
		t.Run(c.name, func(t *testing.T) {
			one := *n
			one.T = t
			c.f(&one)
		})
	}
	containerdtest.Eventually(t, 60*time.Second, "only pods that the tests left are there", func() bool {
		n.cluster.mu.Lock()
		defer n.cluster.mu.Unlock()
		return n.set.Len() == len(n.cluster.pods)
	})
}

func testRuns(n *node) {
	// It writes when it handles the signal: the first process of a container does not get one that it
	// has no handler for.
	uid := n.create(pod("web", "trap 'echo bye; exit 0' TERM; echo hello; sleep 3600 & wait", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = proto.Int64(600) }))
	p := n.until(uid, "the pod is ready", core.IsPodReady)
	cs := status(p)
	if p.Status.Phase != "Running" || p.Status.PodIp == "" || p.Status.HostIp != "127.0.0.1" || p.Status.QosClass != "BestEffort" ||
		cs.ContainerId != "containerd://"+uid+"-main-0" || cs.Image != "docker.io/library/busybox:test" || !strings.HasPrefix(cs.ImageId, "sha256:") ||
		cs.State.Running.GetStartedAt() == nil || !cs.GetStarted() {
		n.Errorf("status is %v", p.Status)
	}
	for _, c := range []string{"PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"} {
		if core.PodCondition(p, c).GetStatus() != "True" {
			n.Errorf("condition %s is %v", c, core.PodCondition(p, c))
		}
	}
	n.until(uid, "the log is there", func(p *corev1.Pod) bool { return n.log(p, false) == "hello\n" })
	n.delete(uid)
	n.untilGone(uid) // and not after its grace period
	history := strings.Join(n.cluster.history[uid], " ")
	if !strings.HasSuffix(history, "Running Completed") {
		n.Errorf("its states were %s", history)
	}
}

func testCrashLoop(n *node) {
	uid := n.create(pod("crash", "echo attempt; exit 3"))
	p := n.until(uid, "the container was restarted twice and waits", func(p *corev1.Pod) bool {
		return status(p).GetRestartCount() >= 2 && waitingFor("CrashLoopBackOff")(p)
	})
	last := status(p).GetLastState().GetTerminated()
	if last.GetExitCode() != 3 || last.GetReason() != "Error" || last.GetStartedAt() == nil || p.Status.Phase != "Running" {
		n.Errorf("status is %v", p.Status)
	}
	if got := n.log(p, true); got != "attempt\n" {
		n.Errorf("the previous log is %q", got)
	}
	n.delete(uid)
	n.untilGone(uid)
}

func testCompletes(n *node) {
	policy := func(s string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.RestartPolicy = s } }
	good := n.create(pod("good", "exit 0", policy("OnFailure")))
	bad := n.create(pod("bad", "echo out of luck > /dev/termination-log; exit 4", policy("Never")))
	p := n.until(good, "it succeeded", func(p *corev1.Pod) bool { return p.Status.Phase == "Succeeded" })
	if status(p).GetState().GetTerminated().GetReason() != "Completed" || core.IsPodReady(p) {
		n.Errorf("status is %v", p.Status)
	}
	p = n.until(bad, "it failed", func(p *corev1.Pod) bool { return p.Status.Phase == "Failed" })
	if term := status(p).GetState().GetTerminated(); term.GetExitCode() != 4 || term.GetMessage() != "out of luck\n" {
		n.Errorf("status is %v", p.Status)
	}
	for _, uid := range []string{good, bad} {
		n.delete(uid)
		n.untilGone(uid)
	}
}

func testMissingConfig(n *node) {
	uid := n.create(pod("config", "echo $COLOR; sleep 3600", func(p *corev1.Pod) {
		p.Spec.Containers[0].Env = []*corev1.EnvVar{{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: &corev1.LocalObjectReference{Name: "settings"}, Key: "color"}}}}
	}))
	p := n.until(uid, "the missing config map is named", waitingFor("CreateContainerConfigError"))
	if m := status(p).State.Waiting.Message; !strings.Contains(m, `"settings" not found`) {
		n.Errorf("message is %q", m)
	}
	n.cluster.mu.Lock()
	n.cluster.maps["default/settings"] = &corev1.ConfigMap{Data: map[string]string{"color": "blue"}}
	n.cluster.mu.Unlock()
	n.until(uid, "it runs once the config map is there", core.IsPodReady)
	n.until(uid, "it has the value", func(p *corev1.Pod) bool { return n.log(p, false) == "blue\n" })
	n.delete(uid)
	n.untilGone(uid)
}

func testMissingImage(n *node) {
	srv := httptest.NewServer(registry.New())
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	image := func(name, policy string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = name, policy }
	}
	never := n.create(pod("never", "true", image("absent:1", "Never")))
	invalid := n.create(pod("invalid", "true", image("NO SUCH", "IfNotPresent")))
	later := n.create(pod("later", "sleep 3600", image(host+"/app:1", "IfNotPresent")))
	n.until(never, "Never is respected", waitingFor("ErrImageNeverPull"))
	n.until(invalid, "the name is refused", waitingFor("InvalidImageName"))
	p := n.until(later, "the pull fails", waitingFor("ErrImagePull"))
	if m := status(p).State.Waiting.Message; !strings.Contains(m, "not found") {
		n.Errorf("message is %q", m)
	}
	n.until(later, "it backs off", waitingFor("ImagePullBackOff"))
	if _, err := n.rt.Images().Import(n.Context(), containerdtest.Archive(n, host+"/app:1", containerdtest.Busybox(n))); err != nil {
		n.Fatal(err)
	}
	n.set.ImagesChanged()
	n.until(later, "it runs once the image is there", core.IsPodReady)
	for _, uid := range []string{never, invalid, later} {
		n.delete(uid)
		n.untilGone(uid)
	}
}

func testMissingCommand(n *node) {
	uid := n.create(pod("nocommand", "", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"/nonesuch"} }))
	p := n.until(uid, "the missing command is reported", func(p *corev1.Pod) bool {
		return waitingFor("RunContainerError")(p) && status(p).GetRestartCount() > 0
	})
	if last := status(p).GetLastState().GetTerminated(); last.GetExitCode() != 128 || last.GetReason() != "StartError" || !strings.Contains(last.GetMessage(), "/nonesuch") {
		n.Errorf("status is %v", p.Status)
	}
	n.delete(uid)
	n.untilGone(uid)
}

func execProbe(script string) *corev1.Probe {
	return &corev1.Probe{Handler: &corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", script}}}, PeriodSeconds: 1, FailureThreshold: 1, TimeoutSeconds: 2}
}

func testReadiness(n *node) {
	uid := n.create(pod("probed", "sleep 3600", func(p *corev1.Pod) {
		p.Spec.Containers[0].ReadinessProbe = execProbe("test -e /dev/shm/ready")
	}))
	n.until(uid, "it runs and is not ready", func(p *corev1.Pod) bool { return p.Status.Phase == "Running" && !core.IsPodReady(p) })
	file := filepath.Join(n.daemon.Dir, "pods", uid, "ns/shm/ready")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		n.Fatal(err)
	}
	n.until(uid, "it is ready", core.IsPodReady)
	if err := os.Remove(file); err != nil {
		n.Fatal(err)
	}
	p := n.until(uid, "it is no longer ready", func(p *corev1.Pod) bool { return !core.IsPodReady(p) })
	if status(p).GetRestartCount() != 0 {
		n.Error("readiness restarted the container")
	}
	n.delete(uid)
	n.untilGone(uid)
}

func testLiveness(n *node) {
	uid := n.create(pod("dies", "trap 'exit 0' TERM; sleep 3600 & wait", func(p *corev1.Pod) {
		p.Spec.Containers[0].LivenessProbe = execProbe("exit 1")
	}))
	n.until(uid, "it was restarted", func(p *corev1.Pod) bool { return status(p).GetRestartCount() > 0 })
	n.cluster.mu.Lock()
	events := strings.Join(n.cluster.events, "\n")
	n.cluster.mu.Unlock()
	for _, want := range []string{"dies Warning Unhealthy: Liveness probe failed", "dies Normal Killing: Container main failed liveness probe"} {
		if !strings.Contains(events, want) {
			n.Errorf("no event %q", want)
		}
	}
	n.delete(uid)
	n.untilGone(uid)
}

func testOOM(n *node) {
	uid := n.create(pod("hog", "x=0123456789abcdef; while true; do x=$x$x; done", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = "Never"
		p.Spec.Containers[0].Resources = &corev1.ResourceRequirements{Limits: map[string]*metav1.Quantity{"memory": {String_: "16Mi"}}}
	}))
	p := n.until(uid, "it failed", func(p *corev1.Pod) bool { return p.Status.Phase == "Failed" })
	if term := status(p).GetState().GetTerminated(); term.GetReason() != "OOMKilled" || term.GetExitCode() != 137 {
		n.Errorf("status is %v", p.Status)
	}
	n.delete(uid)
	n.untilGone(uid)
}

func testIgnoresTerm(n *node) {
	uid := n.create(pod("stubborn", "trap '' TERM; while true; do sleep 1; done"))
	n.until(uid, "it runs", core.IsPodReady)
	began := time.Now()
	n.delete(uid)
	p := n.until(uid, "it gets the stop signal", func(p *corev1.Pod) bool { return n.stopping(p) })
	if p.Status.Phase != "Running" || !core.IsPodReady(p) {
		n.Errorf("phase is %s, ready %v, while it still serves", p.Status.Phase, core.IsPodReady(p))
	}
	n.untilGone(uid)
	if took := time.Since(began); took < 1900*time.Millisecond {
		n.Errorf("its grace period of 2 s took %v", took)
	}
}

func testHooks(n *node) {
	uid := n.create(pod("hooked", "trap 'cat /data/order; echo term; exit 0' TERM; touch /data/heeds; sleep 3600 & wait", func(p *corev1.Pod) {
		p.Spec.Volumes = []*corev1.Volume{{Name: "data", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		c := p.Spec.Containers[0]
		c.VolumeMounts = []*corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		script := func(s string) *corev1.LifecycleHandler {
			return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", s}}}
		}
		c.Lifecycle = &corev1.Lifecycle{PostStart: script("echo started >> /data/order"), PreStop: script("echo stopping >> /data/order; sleep 0.2")}
	}))
	p := n.until(uid, "it runs", core.IsPodReady)
	in, err := n.set.Container("default", "hooked", "main", false, false)
	if err != nil {
		n.Fatal(err)
	}
	f, err := os.Open(in.LogPath)
	if err != nil {
		n.Fatal(err)
	}
	defer f.Close()
	data := filepath.Join(n.daemon.Dir, "pods", p.Metadata.Uid, "volumes/data")
	n.until(uid, "postStart ran, and the container heeds the signal", func(*corev1.Pod) bool {
		b, _ := os.ReadFile(filepath.Join(data, "order"))
		_, err := os.Stat(filepath.Join(data, "heeds"))
		return string(b) == "started\n" && err == nil
	})
	n.delete(uid)
	n.untilGone(uid)
	// The log is gone, but its open file is not.
	b, _ := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if got := string(b); strings.Count(got, "\n") != 3 || !strings.Contains(got, "F started\n") || !strings.Contains(got, "F stopping\n") || !strings.HasSuffix(got, "F term\n") {
		n.Errorf("the order was:\n%s", got)
	}
}

func testInit(n *node) {
	uid := n.create(pod("initial", "cat /data/x; echo; sleep 3600", func(p *corev1.Pod) {
		p.Spec.Volumes = []*corev1.Volume{{Name: "data", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		mount := []*corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		p.Spec.Containers[0].VolumeMounts = mount
		// The first fails once.
		one := container("one", "test -e /data/tried || { touch /data/tried; exit 1; }; printf 1 >> /data/x")
		two := container("two", "printf 2 >> /data/x")
		one.VolumeMounts, two.VolumeMounts = mount, mount
		p.Spec.InitContainers = []*corev1.Container{one, two}
	}))
	p := n.until(uid, "it is ready", core.IsPodReady)
	n.until(uid, "both have run in order", func(p *corev1.Pod) bool { return n.log(p, false) == "12\n" })
	inits := p.Status.InitContainerStatuses
	if len(inits) != 2 || inits[0].RestartCount != 1 || inits[0].State.Terminated.GetReason() != "Completed" || inits[1].State.Terminated.GetReason() != "Completed" {
		n.Errorf("status is %v", p.Status)
	}
	if !slices.Contains(n.cluster.history[uid], "PodInitializing") {
		n.Errorf("the main container's states were %v", n.cluster.history[uid])
	}
	n.delete(uid)
	n.untilGone(uid)
}

func testSidecar(n *node) {
	always := "Always"
	uid := n.create(pod("job", "exit 0", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = "Never"
		side := container("side", "trap 'exit 0' TERM; sleep 3600 & wait")
		side.RestartPolicy = &always
		p.Spec.InitContainers = []*corev1.Container{side}
	}))
	n.until(uid, "the pod succeeds in spite of its sidecar, which is stopped", func(p *corev1.Pod) bool {
		s := p.Status.InitContainerStatuses
		return p.Status.Phase == "Succeeded" && len(s) == 1 && s[0].State.Terminated != nil
	})
	n.delete(uid)
	n.untilGone(uid)
}

func testSurroundings(n *node) {
	uid := n.create(pod("tells", "hostname; cat /etc/hosts /etc/resolv.conf; echo $WHERE $MEM $HOSTNAME; echo end; sleep 3600", func(p *corev1.Pod) {
		field := func(path string) *corev1.EnvVarSource {
			return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
		}
		p.Spec.Containers[0].Env = []*corev1.EnvVar{
			{Name: "IP", ValueFrom: field("status.podIP")}, {Name: "NODE", ValueFrom: field("spec.nodeName")}, {Name: "WHERE", Value: "$(IP)@$(NODE)"},
			{Name: "MEM", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: &metav1.Quantity{String_: "1Gi"}}}},
		}
	}))
	p := n.until(uid, "it has spoken", func(p *corev1.Pod) bool { return core.IsPodReady(p) && strings.Contains(n.log(p, false), "end\n") })
	ip := p.Status.PodIp
	for _, want := range []string{"tells\n", ip + "\ttells\n", "nameserver 10.96.0.10\n", "search default.svc.cluster.local svc.cluster.local cluster.local\n", "options ndots:5 timeout:1 attempts:5\n", ip + "@node-1 4 tells\n"} {
		if got := n.log(p, false); !strings.Contains(got, want) {
			n.Errorf("no %q in:\n%s", want, got)
		}
	}
	n.delete(uid)
	n.untilGone(uid)
}

func testDeletedEarly(n *node) {
	p := pod("early", "sleep 3600", func(p *corev1.Pod) {
		p.Spec.Containers[0].Image = "absent:1"
		p.Spec.Containers[0].ImagePullPolicy = "Never"
	})
	uid := n.create(p)
	n.delete(uid)
	n.untilGone(uid)
}

func testForce(n *node) {
	uid := n.create(pod("forced", "trap '' TERM; while true; do sleep 1; done", func(p *corev1.Pod) {
		long := int64(3600)
		p.Spec.TerminationGracePeriodSeconds = &long
	}))
	n.until(uid, "it runs", core.IsPodReady)
	n.delete(uid)
	n.until(uid, "it ends slowly", n.stopping)
	// A second deletion cuts the grace period short.
	n.cluster.mu.Lock()
	p := proto.CloneOf(n.cluster.pods[uid])
	p.Metadata.DeletionGracePeriodSeconds = proto.Int64(0)
	n.cluster.put(p)
	n.cluster.mu.Unlock()
	n.untilGone(uid)
}

func testHostNetwork(n *node) {
	uid := n.create(pod("host", "sleep 3600", func(p *corev1.Pod) { p.Spec.HostNetwork = true }))
	p := n.until(uid, "it runs", core.IsPodReady)
	if p.Status.PodIp != "127.0.0.1" {
		n.Errorf("its address is %s", p.Status.PodIp)
	}
	n.delete(uid)
	n.untilGone(uid)
}

func testDeadline(n *node) {
	uid := n.create(pod("slow", "trap 'exit 0' TERM; sleep 3600 & wait", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = proto.Int64(3600) }))
	p := n.until(uid, "it runs", core.IsPodReady)
	// Shortened only now: how long it takes to come up is the machine's.
	n.change(uid, func(changed *corev1.Pod) {
		changed.Spec.ActiveDeadlineSeconds = proto.Int64(2 + int64(time.Since(p.Status.StartTime.AsTime()).Seconds()))
	})
	n.until(uid, "it failed by its deadline", func(p *corev1.Pod) bool {
		return p.Status.Phase == "Failed" && p.Status.Reason == "DeadlineExceeded" && status(p).State.Terminated != nil
	})
	n.delete(uid)
	n.untilGone(uid)
}

// testBurst starts many pods at once and prints how long one takes from its binding to being
// reported as started.
func testBurst(n *node) {
	var one []time.Duration
	for i := range 7 {
		began := time.Now()
		uid := n.create(pod(fmt.Sprintf("one-%d", i), "sleep 3600", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = proto.Int64(0) }))
		n.until(uid, "it is ready", core.IsPodReady)
		one = append(one, time.Since(began))
		n.delete(uid)
		n.untilGone(uid)
	}
	slices.Sort(one)
	n.Logf("bound to reported as ready, one at a time: p50 %v, max %v", one[len(one)/2], one[len(one)-1])
	var uids []string
	began := time.Now()
	for i := range 20 {
		uids = append(uids, n.create(pod(fmt.Sprintf("many-%d", i), "sleep 3600", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = proto.Int64(0) })))
	}
	n.cluster.mu.Lock()
	before := n.cluster.statuses
	n.cluster.mu.Unlock()
	for _, uid := range uids {
		n.until(uid, "it is ready", core.IsPodReady)
	}
	n.cluster.mu.Lock()
	n.Logf("20 pods at once: all ready after %v, %d status writes", time.Since(began), n.cluster.statuses-before)
	n.cluster.mu.Unlock()
	for _, uid := range uids {
		n.delete(uid)
	}
	for _, uid := range uids {
		n.untilGone(uid)
	}
}
