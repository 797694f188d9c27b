package pods_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/uuid"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/agent/logs"
	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestMain lets the test program serve as log writer too.
func TestMain(m *testing.M) {
	if logs.Asked() {
		os.Exit(logs.RunWriter(os.Args[2]))
	}
	os.Exit(m.Run())
}

// cluster is a control plane in memory: it stores pods and tells the set of their changes, as an informer does.
type cluster struct {
	mu       sync.Mutex
	revision int
	pods     map[string]*corev1.Pod
	maps     map[string]*corev1.ConfigMap
	set      *pods.Set
	away     bool
	statuses int
	events   []string
	// history is every state that a container was told to be in, by pod.
	history map[string][]string
}

func (c *cluster) put(pod *corev1.Pod) {
	c.revision++
	pod = proto.CloneOf(pod)
	pod.Metadata.ResourceVersion = strconv.Itoa(c.revision)
	c.pods[pod.Metadata.Uid] = pod
	if c.set != nil && !c.away {
		c.set.Update(pod)
	}
}

func (c *cluster) UpdateStatus(_ context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return nil, apierr.Unavailable("no master")
	}
	have, ok := c.pods[pod.Metadata.Uid]
	if !ok {
		return nil, apierr.NotFound(kind.Of(pod), pod.Metadata.Name)
	}
	c.statuses++
	next := proto.CloneOf(have)
	next.Status = proto.CloneOf(pod.Status)
	for _, cs := range next.Status.ContainerStatuses {
		c.history[pod.Metadata.Uid] = append(c.history[pod.Metadata.Uid], describe(cs))
	}
	c.put(next)
	return c.pods[pod.Metadata.Uid], nil
}

func describe(cs *corev1.ContainerStatus) string {
	switch s := cs.State; {
	case s.Running != nil:
		return "Running"
	case s.Terminated != nil:
		return s.Terminated.Reason
	default:
		return s.Waiting.GetReason()
	}
}

func (c *cluster) Delete(_ context.Context, pod *corev1.Pod) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return apierr.Unavailable("no master")
	}
	delete(c.pods, pod.Metadata.Uid)
	c.set.Remove(pod.Metadata.Uid)
	return nil
}

func (c *cluster) ConfigMap(_ context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return nil, apierr.Unavailable("no master")
	}
	if cm, ok := c.maps[namespace+"/"+name]; ok {
		return cm, nil
	}
	return nil, apierr.NotFound(kind.Of(&corev1.ConfigMap{}), name)
}

func (c *cluster) Secret(context.Context, string, string) (*corev1.Secret, error) {
	return nil, apierr.NotFound(kind.Of(&corev1.Secret{}), "none")
}

func (c *cluster) Event(pod *corev1.Pod, eventType, reason, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, fmt.Sprintf("%s %s %s: %s", pod.GetMetadata().GetName(), eventType, reason, message))
}

func (c *cluster) get(uid string) *corev1.Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pods[uid]
}

func (c *cluster) setAway(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
}

// wires is a network that gives addresses and connects nothing.
type wires struct {
	mu sync.Mutex
	up map[string]netip.Addr
	n  int
}

func (w *wires) Setup(_ context.Context, uid, netns string) (netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := os.Stat(netns); err != nil {
		return netip.Addr{}, err
	}
	if _, ok := w.up[uid]; !ok {
		w.n++
		w.up[uid] = netip.AddrFrom4([4]byte{10, 244, 1, byte(w.n)})
	}
	return w.up[uid], nil
}

func (w *wires) Teardown(_ context.Context, uid string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.up, uid)
	return nil
}

type node struct {
	*testing.T
	daemon  *containerdtest.Daemon
	cluster *cluster
	wires   *wires
	rt      *runtime.Runtime
	set     *pods.Set
	stop    func()
}

func start(t *testing.T) *node {
	t.Helper()
	d := containerdtest.Start(t)
	n := &node{T: t, daemon: d, wires: &wires{up: map[string]netip.Addr{}}}
	n.cluster = &cluster{pods: map[string]*corev1.Pod{}, maps: map[string]*corev1.ConfigMap{}, history: map[string][]string{}}
	n.agent()
	t.Cleanup(func() { n.stop() })
	if _, err := n.rt.Images().Import(t.Context(), containerdtest.Archive(t, "busybox:test", containerdtest.Busybox(t))); err != nil {
		t.Fatal(err)
	}
	return n
}

// agent starts an agent; stop ends it as abruptly as a goroutine can be ended, with nothing tidied up.
func (n *node) agent() {
	n.Helper()
	rt, err := runtime.New(n.Context(), runtime.Config{
		Address: n.daemon.Address, Namespace: "xebec-test", CgroupParent: n.daemon.CgroupParent,
		RuncRoot: filepath.Join(n.daemon.Dir, "runc"), ScratchDir: n.daemon.Dir,
	})
	if err != nil {
		n.Fatal(err)
	}
	n.rt = rt
	log := zap.NewNop()
	if os.Getenv("XEBEC_TEST_LOG") != "" {
		log = zaptest.NewLogger(n)
	}
	n.set = pods.New(pods.Config{
		StateDir: filepath.Join(n.daemon.Dir, "pods"), NodeName: "node-1", HostIP: netip.MustParseAddr("127.0.0.1"),
		MemoryBytes: 4 << 30, MilliCPU: 2000, DNS: netip.MustParseAddr("10.96.0.10"),
		DrainDelay: 20 * time.Millisecond, BackoffInitial: 300 * time.Millisecond, BackoffMax: time.Second,
		Runtime: rt, Network: n.wires, Cluster: n.cluster, Recorder: n.cluster, Log: log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	n.cluster.mu.Lock()
	n.cluster.set = n.set
	known := maps.Clone(n.cluster.pods)
	away := n.cluster.away
	n.cluster.mu.Unlock()
	if err := n.set.Start(ctx); err != nil {
		n.Fatal(err)
	}
	if !away {
		uids := map[string]bool{}
		for uid, p := range known {
			uids[uid] = true
			n.set.Update(p)
		}
		if err := n.set.Synced(ctx, uids); err != nil {
			n.Fatal(err)
		}
	}
	n.stop = func() {
		cancel()
		n.set.Wait()
		rt.Close()
	}
}

// pod makes a pod of one container that runs a shell command.
func pod(name, script string, change ...func(*corev1.Pod)) *corev1.Pod {
	grace := int64(2)
	p := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Name: name, Namespace: "default", Uid: uuid.NewString(), Generation: 1},
		Spec: &corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers:                    []*corev1.Container{container("main", script)},
		},
		Status: &corev1.PodStatus{Phase: "Pending"},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func container(name, script string) *corev1.Container {
	return &corev1.Container{Name: name, Image: "busybox:test", Command: []string{"sh", "-c", script}}
}

func (n *node) create(p *corev1.Pod) string {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.cluster.put(p)
	return p.Metadata.Uid
}

func (n *node) delete(uid string) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	p := proto.CloneOf(n.cluster.pods[uid])
	p.Metadata.DeletionTimestamp = timestamppb.Now()
	p.Metadata.DeletionGracePeriodSeconds = p.Spec.TerminationGracePeriodSeconds
	n.cluster.put(p)
}

// until waits until the pod as the control plane has it meets the condition, and returns it.
func (n *node) until(uid, what string, condition func(*corev1.Pod) bool) *corev1.Pod {
	n.Helper()
	var last *corev1.Pod
	defer func() {
		if n.Failed() {
			n.Logf("pod is %v", last.GetStatus())
			n.cluster.mu.Lock()
			defer n.cluster.mu.Unlock()
			n.Logf("events:\n%s", strings.Join(n.cluster.events[max(0, len(n.cluster.events)-12):], "\n"))
		}
	}()
	containerdtest.Eventually(n.T, 20*time.Second, what, func() bool {
		last = n.cluster.get(uid)
		return last != nil && condition(last)
	})
	return last
}

func (n *node) untilGone(uid string) {
	n.Helper()
	containerdtest.Eventually(n.T, 20*time.Second, "the pod is gone", func() bool { return n.cluster.get(uid) == nil })
	containerdtest.Eventually(n.T, 5*time.Second, "the pod has left nothing", func() bool {
		_, err := os.Stat(filepath.Join(n.daemon.Dir, "pods", uid))
		cgroups, _ := filepath.Glob("/sys/fs/cgroup/*" + n.daemon.CgroupParent + "/pod" + uid)
		mounts, _ := os.ReadFile("/proc/self/mountinfo")
		left, lerr := n.rt.List(n.Context(), uid)
		n.wires.mu.Lock()
		defer n.wires.mu.Unlock()
		_, wired := n.wires.up[uid]
		return os.IsNotExist(err) && len(cgroups) == 0 && !bytes.Contains(mounts, []byte(uid)) && lerr == nil && len(left) == 0 && !wired
	})
}

func status(p *corev1.Pod) *corev1.ContainerStatus {
	if s := p.GetStatus().GetContainerStatuses(); len(s) > 0 {
		return s[0]
	}
	return nil
}

func waitingFor(reason string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return status(p).GetState().GetWaiting().GetReason() == reason }
}

func (n *node) log(p *corev1.Pod, previous bool) string {
	n.Helper()
	in, err := n.set.Container("default", p.Metadata.Name, "", true, previous)
	if err != nil {
		n.Fatal(err)
	}
	var b bytes.Buffer
	if err := logs.Read(n.Context(), in.LogPath, logs.Options{Tail: -1}, nil, &b); err != nil {
		n.Fatal(err)
	}
	return b.String()
}

func TestPods(t *testing.T) {
	n := start(t)
	for _, c := range []struct {
		name string
		f    func(*node)
	}{
		{"runs", testRuns}, {"crash loop", testCrashLoop}, {"completes", testCompletes}, {"missing config", testMissingConfig},
		{"missing image", testMissingImage}, {"missing command", testMissingCommand}, {"readiness", testReadiness},
		{"liveness", testLiveness}, {"out of memory", testOOM}, {"ignores SIGTERM", testIgnoresTerm}, {"hooks", testHooks},
		{"init containers", testInit}, {"sidecar", testSidecar}, {"surroundings", testSurroundings},
		{"deleted before it starts", testDeletedEarly}, {"force", testForce}, {"host network", testHostNetwork},
		{"deadline", testDeadline}, {"burst", testBurst},
	} {
		t.Run(c.name, func(t *testing.T) {
			one := *n
			one.T = t
			c.f(&one)
		})
	}
	containerdtest.Eventually(t, 20*time.Second, "only pods that the tests left are there", func() bool {
		n.cluster.mu.Lock()
		defer n.cluster.mu.Unlock()
		return n.set.Len() == len(n.cluster.pods)
	})
}

func testRuns(n *node) {
	uid := n.create(pod("web", "echo hello; trap 'echo bye; exit 0' TERM; sleep 3600 & wait"))
	p := n.until(uid, "the pod is ready", kind.IsPodReady)
	cs := status(p)
	if p.Status.Phase != "Running" || p.Status.PodIp == "" || p.Status.HostIp != "127.0.0.1" || p.Status.QosClass != "BestEffort" ||
		cs.ContainerId != "containerd://"+uid+"-main-0" || cs.Image != "docker.io/library/busybox:test" || !strings.HasPrefix(cs.ImageId, "sha256:") ||
		cs.State.Running.GetStartedAt() == nil || !cs.GetStarted() {
		n.Errorf("status is %v", p.Status)
	}
	for _, c := range []string{"PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"} {
		if kind.PodCondition(p, c).GetStatus() != "True" {
			n.Errorf("condition %s is %v", c, kind.PodCondition(p, c))
		}
	}
	n.until(uid, "the log is there", func(p *corev1.Pod) bool { return n.log(p, false) == "hello\n" })
	began := time.Now()
	n.delete(uid)
	n.untilGone(uid)
	if took := time.Since(began); took > 1500*time.Millisecond {
		n.Errorf("a pod that heeds SIGTERM took %v", took)
	}
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
	if status(p).GetState().GetTerminated().GetReason() != "Completed" || kind.IsPodReady(p) {
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
	n.until(uid, "it runs once the config map is there", kind.IsPodReady)
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
	n.until(later, "it runs once the image is there", kind.IsPodReady)
	for _, uid := range []string{never, invalid, later} {
		n.delete(uid)
		n.untilGone(uid)
	}
}

func testMissingCommand(n *node) {
	uid := n.create(pod("nocommand", "", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"/nonesuch"} }))
	p := n.until(uid, "it is told that the command is missing", func(p *corev1.Pod) bool {
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
	uid := n.create(pod("probed", "sleep 1; touch /tmp/ready; sleep 2; rm /tmp/ready; sleep 3600", func(p *corev1.Pod) {
		p.Spec.Containers[0].ReadinessProbe = execProbe("test -e /tmp/ready")
	}))
	n.until(uid, "it runs and is not ready", func(p *corev1.Pod) bool { return p.Status.Phase == "Running" && !kind.IsPodReady(p) })
	n.until(uid, "it is ready", kind.IsPodReady)
	p := n.until(uid, "it is no longer ready", func(p *corev1.Pod) bool { return !kind.IsPodReady(p) })
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
	n.until(uid, "it runs", kind.IsPodReady)
	began := time.Now()
	n.delete(uid)
	p := n.until(uid, "it is not ready while it ends", func(p *corev1.Pod) bool { return !kind.IsPodReady(p) })
	if p.Status.Phase != "Running" {
		n.Errorf("phase is %s", p.Status.Phase)
	}
	n.untilGone(uid)
	if took := time.Since(began); took < 1900*time.Millisecond || took > 4*time.Second {
		n.Errorf("its grace period of 2 s took %v", took)
	}
}

func testHooks(n *node) {
	uid := n.create(pod("hooked", "trap 'cat /data/order; echo term; exit 0' TERM; sleep 3600 & wait", func(p *corev1.Pod) {
		p.Spec.Volumes = []*corev1.Volume{{Name: "data", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		c := p.Spec.Containers[0]
		c.VolumeMounts = []*corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		script := func(s string) *corev1.LifecycleHandler {
			return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", s}}}
		}
		c.Lifecycle = &corev1.Lifecycle{PostStart: script("echo started >> /data/order"), PreStop: script("echo stopping >> /data/order; sleep 0.2")}
	}))
	p := n.until(uid, "it runs", kind.IsPodReady)
	in, err := n.set.Container("default", "hooked", "main", false, false)
	if err != nil {
		n.Fatal(err)
	}
	f, err := os.Open(in.LogPath)
	if err != nil {
		n.Fatal(err)
	}
	defer f.Close()
	n.until(uid, "postStart ran", func(*corev1.Pod) bool {
		b, _ := os.ReadFile(filepath.Join(n.daemon.Dir, "pods", p.Metadata.Uid, "volumes/data/order"))
		return string(b) == "started\n"
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
	p := n.until(uid, "it is ready", kind.IsPodReady)
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
	p := n.until(uid, "it has spoken", func(p *corev1.Pod) bool { return kind.IsPodReady(p) && strings.HasSuffix(n.log(p, false), "end\n") })
	ip := p.Status.PodIp
	for _, want := range []string{"tells\n", ip + "\ttells\n", "nameserver 10.96.0.10\n", "search default.svc.cluster.local svc.cluster.local cluster.local\n", "options ndots:5\n", ip + "@node-1 4 tells\n"} {
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
	n.until(uid, "it runs", kind.IsPodReady)
	n.delete(uid)
	n.until(uid, "it ends slowly", func(p *corev1.Pod) bool { return !kind.IsPodReady(p) })
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
	p := n.until(uid, "it runs", kind.IsPodReady)
	if p.Status.PodIp != "127.0.0.1" {
		n.Errorf("its address is %s", p.Status.PodIp)
	}
	n.delete(uid)
	n.untilGone(uid)
}

func testDeadline(n *node) {
	uid := n.create(pod("slow", "trap 'exit 0' TERM; sleep 3600 & wait", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = proto.Int64(2) }))
	n.until(uid, "it runs", kind.IsPodReady)
	n.until(uid, "it failed by its deadline", func(p *corev1.Pod) bool {
		return p.Status.Phase == "Failed" && p.Status.Reason == "DeadlineExceeded" && status(p).State.Terminated != nil
	})
	n.delete(uid)
	n.untilGone(uid)
}

// testBurst starts many pods at once and prints how long one takes from being bound to being told as started.
func testBurst(n *node) {
	var one []time.Duration
	for i := range 7 {
		began := time.Now()
		uid := n.create(pod(fmt.Sprintf("one-%d", i), "sleep 3600", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = proto.Int64(0) }))
		n.until(uid, "it is ready", kind.IsPodReady)
		one = append(one, time.Since(began))
		n.delete(uid)
		n.untilGone(uid)
	}
	slices.Sort(one)
	n.Logf("bound to told as ready, one at a time: p50 %v, max %v", one[len(one)/2], one[len(one)-1])
	var uids []string
	began := time.Now()
	for i := range 20 {
		uids = append(uids, n.create(pod(fmt.Sprintf("many-%d", i), "sleep 3600", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = proto.Int64(0) })))
	}
	n.cluster.mu.Lock()
	before := n.cluster.statuses
	n.cluster.mu.Unlock()
	for _, uid := range uids {
		n.until(uid, "it is ready", kind.IsPodReady)
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

// TestAgentKilled checks what an agent finds after one before it ended without notice.
func TestAgentKilled(t *testing.T) {
	n := start(t)
	long := n.create(pod("long", "echo from $COLOR; sleep 3600", func(p *corev1.Pod) {
		p.Spec.Containers[0].ReadinessProbe = execProbe("true")
		p.Spec.Containers[0].Env = []*corev1.EnvVar{{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: &corev1.LocalObjectReference{Name: "settings"}, Key: "color"}}}}
	}))
	n.cluster.mu.Lock()
	n.cluster.maps["default/settings"] = &corev1.ConfigMap{Data: map[string]string{"color": "blue"}}
	n.cluster.mu.Unlock()
	wait := "until test -e /dev/shm/go; do sleep 0.02; done; "
	brief := n.create(pod("brief", wait+"exit 6", func(p *corev1.Pod) { p.Spec.RestartPolicy = "Never" }))
	doomed := n.create(pod("doomed", "sleep 3600"))
	orphan := n.create(pod("orphan", "sleep 3600"))
	before := map[string]*corev1.Pod{}
	for _, uid := range []string{long, brief, doomed, orphan} {
		before[uid] = n.until(uid, "it runs", kind.IsPodReady)
	}
	pid := func(uid string) uint32 {
		list, err := n.rt.List(t.Context(), uid)
		if err != nil || len(list) != 1 {
			t.Fatalf("containers of %s: %+v, %v", uid, list, err)
		}
		return list[0].Pid
	}
	was := pid(long)
	n.stop()

	// While the agent is away one container ends, one pod is deleted, one vanishes.
	if err := os.WriteFile(filepath.Join(n.daemon.Dir, "pods", brief, "ns/shm/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n.cluster.mu.Lock()
	n.cluster.set = nil
	n.cluster.mu.Unlock()
	n.delete(doomed)
	n.cluster.mu.Lock()
	delete(n.cluster.pods, orphan)
	writes := n.cluster.statuses
	n.cluster.mu.Unlock()

	n.agent()
	p := n.until(brief, "the exit is told", func(p *corev1.Pod) bool { return p.Status.Phase == "Failed" })
	if status(p).GetState().GetTerminated().GetExitCode() != 6 {
		t.Errorf("status is %v", p.Status)
	}
	n.untilGone(doomed)
	n.untilGone(orphan)
	if now := pid(long); now != was {
		t.Errorf("the running container was started anew: pid %d, was %d", now, was)
	}
	after := n.cluster.get(long)
	if !proto.Equal(after.Status, before[long].Status) {
		t.Errorf("the status of what ran on changed:\n%v\n%v", before[long].Status, after.Status)
	}
	n.cluster.mu.Lock()
	t.Logf("%d status writes after the restart", n.cluster.statuses-writes)
	n.cluster.mu.Unlock()

	// Now without a control plane, from what the agent keeps: the container dies and comes again with its config.
	n.cluster.setAway(true)
	n.stop()
	n.agent()
	if err := n.rt.Kill(t.Context(), long+"-main-0", 9); err != nil {
		t.Fatal(err)
	}
	containerdtest.Eventually(t, 10*time.Second, "the container comes again without a control plane", func() bool {
		list, err := n.rt.List(t.Context(), long)
		return err == nil && len(list) == 1 && list[0].Attempt == 1 && list[0].State == runtime.Running
	})
	containerdtest.Eventually(t, 5*time.Second, "it has its config", func() bool { return n.log(after, false) == "from blue\n" })
	n.cluster.setAway(false)
	n.until(long, "the control plane learns of the restart", func(p *corev1.Pod) bool {
		return status(p).GetRestartCount() == 1 && status(p).GetLastState().GetTerminated().GetExitCode() == 137 && kind.IsPodReady(p)
	})
}

// TestContainerdKilled checks that pods live through a kill -9 of containerd, and that what ended meanwhile is noticed.
func TestContainerdKilled(t *testing.T) {
	n := start(t)
	steady := n.create(pod("steady", "sleep 3600"))
	ends := n.create(pod("ends", "until test -e /dev/shm/go; do sleep 0.02; done; exit 5"))
	n.until(steady, "it runs", kind.IsPodReady)
	n.until(ends, "it runs", kind.IsPodReady)
	n.daemon.Kill()
	if err := os.WriteFile(filepath.Join(n.daemon.Dir, "pods", ends, "ns/shm/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	new := n.create(pod("new", "sleep 3600"))
	n.daemon.Run()
	n.until(ends, "the exit is noticed and the container restarted", func(p *corev1.Pod) bool {
		return status(p).GetLastState().GetTerminated().GetExitCode() == 5 && status(p).GetRestartCount() > 0
	})
	n.until(new, "a pod bound meanwhile runs", kind.IsPodReady)
	if cs := status(n.cluster.get(steady)); cs.GetRestartCount() != 0 || cs.GetState().GetRunning() == nil {
		t.Errorf("what ran on is told as %v", cs)
	}
	for _, uid := range []string{steady, ends, new} {
		n.delete(uid)
		n.untilGone(uid)
	}
}
