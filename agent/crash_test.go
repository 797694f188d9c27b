package agent_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/failpoint"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// crashLabs is how many machines are crashed side by side.
const crashLabs = 2

// buildAgent builds the agent's program.
func buildAgent(t *testing.T, flags ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "xebec-agent")
	cmd := exec.Command("go", slices.Concat([]string{"build", "-buildvcs=false", "-o", program}, flags, []string{"../cmd/xebec-agent"})...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the agent: %v\n%s", err, out)
	}
	return program
}

// crash is a death of the agent: the nth time that it passes a failpoint.
type crash struct {
	point string
	nth   int
	// orphan tells that the pod is removed from the API while the agent is dead.
	orphan bool
	// restartAll is set for a pod whose containers all restart at the exit of one.
	restartAll bool
}

func (c crash) String() string {
	s := fmt.Sprintf("%s-%d", c.point, c.nth)
	if c.orphan {
		s += "-orphan"
	}
	if c.restartAll {
		s += "-restart-all"
	}
	return s
}

// TestCrashes kills the agent at every failpoint while a pod is started, restarted and deleted, as
// often as the pod's life leads past it at different steps, and checks that the next agent loses
// nothing, does nothing twice and leaves nothing. Where the pod was not up yet it is done a second
// time, and then the next agent finds that the pod was deleted.
func TestCrashes(t *testing.T) {
	containerdtest.Need(t)
	program := buildAgent(t, "-tags", "failpoints")
	var labs []*crashLab
	for range crashLabs {
		labs = append(labs, newCrashLab(t, program))
	}
	crashes := labs[0].crashes(t)
	crashes = append(crashes, crashesAnew...)
	t.Logf("%d crashes: %v", len(crashes), crashes)
	if len(crashes) < 40 {
		t.Errorf("a pod's life passes few failpoints: is the program built with them?")
	}

	todo := make(chan crash, len(crashes))
	for _, c := range crashes {
		todo <- c
	}
	close(todo)
	var wg sync.WaitGroup
	for _, lab := range labs {
		wg.Go(func() {
			for c := range todo {
				// What is left of one pod must not be taken for the next one's: the first failure ends the lab.
				if !t.Run(c.String(), func(t *testing.T) { lab.crash(t, c) }) {
					return
				}
			}
		})
	}
	wg.Wait()
	if left := len(todo); left > 0 {
		t.Errorf("%d crashes were not tried", left)
	}
}

// crashLab is a machine on which the agent is restarted after each crash.
type crashLab struct {
	*node
	fail string
	// starts is a directory of the machine to which containers write that they were started.
	starts string
}

func newCrashLab(t *testing.T, program string) *crashLab {
	l := &crashLab{}
	l.node = start(t, func(n *node) {
		l.fail, l.starts = filepath.Join(n.daemon.Dir, "fail"), filepath.Join(n.daemon.Dir, "starts")
		if err := errors.Join(os.Mkdir(l.fail, 0o700), os.Mkdir(l.starts, 0o755)); err != nil {
			t.Fatal(err)
		}
		n.program, n.env = program, []string{failpoint.Env + "=" + l.fail}
	})
	l.giveCIDR()
	l.importImage()
	clienttest.Seed(l.api, &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Name: "settings", Namespace: "default"}, Data: map[string]string{"color": "blue"}})
	return l
}

// crash leads one pod through its life while the agent dies once.
func (l *crashLab) crash(t *testing.T, c crash) {
	armed := filepath.Join(l.fail, c.point)
	if err := os.WriteFile(armed, []byte(strconv.Itoa(c.nth)), 0o600); err != nil {
		t.Fatal(err)
	}
	n, name := l.of(t), c.String()
	if c.orphan {
		pod := l.create(n, name)
		l.untilExited(n, name, armed)
		if _, err := client.Delete[*corev1.Pod](t.Context(), n.client, "default", name, client.GracePeriod(0)); err != nil {
			t.Errorf("removing the pod: %v", err)
		}
		l.run()
		l.untilGone(n, pod)
		return
	}
	over, restarted := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(restarted)
		select {
		case <-over:
		case <-l.exited:
			l.run()
		}
	}()
	create, untilUp := l.create, l.untilUp
	if c.restartAll {
		create, untilUp = l.createAnew, l.untilAnew
	}
	pod := create(n, name)
	untilUp(n, name)
	l.end(n, name)
	l.untilGone(n, pod)
	close(over)
	<-restarted
	// How often a point is passed varies with the number of statuses in one write.
	if err := os.Remove(armed); err == nil && (c.nth == 1 || c.restartAll) {
		t.Error("the agent did not come by")
	}
}

// untilExited waits until the agent has died of what is armed. When the pod is up without its
// having come by that often, it is killed as it is.
func (l *crashLab) untilExited(n *node, name, armed string) {
	n.Helper()
	n.until("the agent dies, or the pod is up", func() bool {
		select {
		case <-n.exited:
			return true
		default:
			starts, _ := os.ReadFile(filepath.Join(l.starts, name))
			return bytes.Count(starts, []byte("\n")) == 3
		}
	})
	if err := os.Remove(armed); err == nil {
		n.kill()
	}
	<-n.exited
}

// of is the lab's machine with a test of its own.
func (l *crashLab) of(t *testing.T) *node {
	n := *l.node
	n.T = t
	return &n
}

// giveCIDR does the nodes service's part once the node has registered.
func (n *node) giveCIDR() {
	n.Helper()
	n.until("the node has a range for its pods", func() bool {
		node, err := client.Get[*corev1.Node](n.Context(), n.client, "", nodeName)
		if err != nil {
			return false
		}
		node = client.Clone(node)
		node.Spec.PodCidr = "10.244.7.0/24"
		_, err = client.Update(n.Context(), n.client, node)
		return err == nil
	})
}

// varying are the points that are passed more or less often, as several statuses are written at
// once or one by one.
var varying = []string{"pod-file-written", "pod-file-replaced", "status-written"}

// crashes leads a pod through its life undisturbed and returns where the agent can die: at each
// point's first passing, at its last, and halfway.
func (l *crashLab) crashes(t *testing.T) []crash {
	passed := func() map[string]int {
		b, err := os.ReadFile(filepath.Join(l.fail, failpoint.Trace))
		if err != nil {
			t.Fatal(err)
		}
		count := map[string]int{}
		for line := range strings.Lines(string(b)) {
			count[strings.TrimSpace(line)]++
		}
		return count
	}
	n := l.of(t)
	pod := l.create(n, "undisturbed")
	l.untilUp(n, "undisturbed")
	up := passed()
	l.end(n, "undisturbed")
	l.untilGone(n, pod)
	all := passed()
	var out []crash
	for _, point := range slices.Sorted(maps.Keys(all)) {
		last, lastUp := all[point], up[point]
		if slices.Contains(varying, point) {
			last, lastUp = (last+1)/2, (lastUp+1)/2
		}
		for _, nth := range slices.Compact([]int{1, (last + 1) / 2, last}) {
			out = append(out, crash{point: point, nth: nth})
		}
		// The last passing may come a little after the pod is seen to be up.
		if lastUp > 0 {
			out = append(out, crash{point: point, nth: 1, orphan: true})
		}
		if lastUp > 2 {
			out = append(out, crash{point: point, nth: lastUp - 1, orphan: true})
		}
	}
	return out
}

// create makes a pod with an init container and a container that ends at its first start.
func (l *crashLab) create(n *node, name string) *corev1.Pod {
	script := "echo main >> /starts/" + name + `; test -e /data/been || { touch /data/been; exit 3; }; trap "exit 0" TERM; sleep 3600 & wait`
	return n.pod(name, script, func(p *corev1.Pod) {
		mounts := []*corev1.VolumeMount{
			{Name: "data", MountPath: "/data"}, {Name: "memory", MountPath: "/memory"}, {Name: "settings", MountPath: "/settings"}, {Name: "starts", MountPath: "/starts"},
		}
		p.Spec.Volumes = []*corev1.Volume{
			{Name: "data", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "memory", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory"}}},
			{Name: "settings", VolumeSource: &corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: &corev1.LocalObjectReference{Name: "settings"}}}},
			{Name: "starts", VolumeSource: &corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: l.starts}}},
		}
		p.Spec.Containers[0].VolumeMounts = mounts
		p.Spec.InitContainers = []*corev1.Container{{
			Name: "first", Image: "busybox:test", VolumeMounts: mounts,
			Command: []string{"sh", "-c", "echo first >> /starts/" + name + "; test \"$(cat /settings/color)\" = blue"},
		}}
	})
}

// untilUp waits until the pod runs after its restart, and checks that nothing was started more
// often than that takes.
func (l *crashLab) untilUp(n *node, name string) {
	n.Helper()
	pod := n.podUntil(name, "it runs after its restart", func(p *corev1.Pod) bool {
		s := p.GetStatus().GetContainerStatuses()
		return len(s) == 1 && s[0].GetState().GetRunning() != nil && s[0].GetRestartCount() == 1 && p.GetStatus().GetPhase() == "Running"
	})
	if s := pod.Status.ContainerStatuses[0].GetLastState().GetTerminated(); s.GetExitCode() != 3 {
		n.Errorf("the first attempt is reported as %v", s)
	}
	var starts []byte
	n.until("the containers report their starts", func() bool {
		starts, _ = os.ReadFile(filepath.Join(l.starts, name))
		return bytes.Count(starts, []byte("\n")) >= 3
	})
	if string(starts) != "first\nmain\nmain\n" {
		n.Errorf("started were %q: one init container and two attempts of the main one are asked for", starts)
	}
}

// crashesAnew are where the agent can die while it restarts all containers of a pod: as it learns
// of the end of the one by which that is asked for and of the other's, which it kills, once it has
// decided, between the three's attempts and after them, and when all is done.
var crashesAnew = []crash{
	{point: "exit-recorded", nth: 2, restartAll: true}, {point: "renewal-recorded", nth: 1, restartAll: true}, {point: "exit-recorded", nth: 3, restartAll: true},
	{point: "attempt-recorded", nth: 2, restartAll: true}, {point: "attempt-recorded", nth: 3, restartAll: true},
	{point: "renewal-over", nth: 1, restartAll: true},
}

// createAnew makes a pod of an init container, a sidecar and a container. When that has begun, the
// sidecar exits so that all three restart.
func (l *crashLab) createAnew(n *node, name string) *corev1.Pod {
	return n.pod(name, "", func(p *corev1.Pod) {
		p.Spec.Volumes = []*corev1.Volume{
			{Name: "data", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "starts", VolumeSource: &corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: l.starts}}},
		}
		p.Spec.RestartPolicy = "Never"
		says := func(container, then string) *corev1.Container {
			return &corev1.Container{
				Name: container, Image: "busybox:test", Command: []string{"sh", "-c", "echo " + container + " >> /starts/" + name + "; " + then},
				VolumeMounts: []*corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "starts", MountPath: "/starts"}},
			}
		}
		const serves = `trap "exit 0" TERM; sleep 3600 & wait`
		side := says("side", "test -e /data/been || { until test -e /data/main; do sleep 0.02; done; touch /data/been; exit 3; }; "+serves)
		side.RestartPolicy = proto.String("Always")
		side.RestartPolicyRules = []*corev1.ContainerRestartRule{
			{Action: "RestartAllContainers", ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: "In", Values: []int32{3}}},
		}
		p.Spec.InitContainers = []*corev1.Container{says("first", "true"), side}
		p.Spec.Containers = []*corev1.Container{says("main", "touch /data/main; "+serves)}
	})
}

// untilAnew waits until the pod runs for the second time, and checks that each container was
// started twice.
func (l *crashLab) untilAnew(n *node, name string) {
	n.Helper()
	pod := n.podUntil(name, "it runs after its restart", func(p *corev1.Pod) bool {
		for _, s := range slices.Concat(p.GetStatus().GetInitContainerStatuses(), p.GetStatus().GetContainerStatuses()) {
			if s.GetRestartCount() != 1 {
				return false
			}
		}
		return core.IsPodReady(p)
	})
	side, main := pod.Status.InitContainerStatuses[1].GetLastState().GetTerminated(), pod.Status.ContainerStatuses[0].GetLastState().GetTerminated()
	if side.GetExitCode() != 3 || main.GetExitCode() != 137 {
		n.Errorf("the first attempts are reported as %v and %v", side, main)
	}
	var starts []string
	n.until("the containers report their starts", func() bool {
		b, _ := os.ReadFile(filepath.Join(l.starts, name))
		starts = strings.Fields(string(b))
		return len(starts) >= 6
	})
	if slices.Sort(starts); !slices.Equal(starts, []string{"first", "first", "main", "main", "side", "side"}) {
		n.Errorf("started were %q: each is asked for twice", starts)
	}
}

func (l *crashLab) end(n *node, name string) {
	n.Helper()
	if _, err := client.Delete[*corev1.Pod](n.Context(), n.client, "default", name); err != nil {
		n.Fatal(err)
	}
}

// untilGone waits until the pod is gone and has left nothing.
func (l *crashLab) untilGone(n *node, pod *corev1.Pod) {
	n.Helper()
	n.until("the pod is gone", func() bool {
		_, err := client.Get[*corev1.Pod](n.Context(), n.client, "default", pod.Metadata.Name)
		return apierr.IsNotFound(err)
	})
	var left []string
	defer func() {
		if n.Failed() {
			n.Logf("left: %v", left)
		}
	}()
	n.until("the pod has left nothing", func() bool {
		left = n.traces(pod.Metadata.Uid)
		return len(left) == 0
	})
	if starts, _ := os.ReadFile(filepath.Join(l.starts, pod.Metadata.Name)); bytes.Count(starts, []byte("\n")) > 3*len(pod.Spec.InitContainers) {
		n.Errorf("started were %q in all", starts)
	}
}

// traces returns everything on the machine that belongs to a pod.
func (n *node) traces(uid string) []string {
	var out []string
	state := filepath.Join(n.daemon.Dir, "state")
	for _, pattern := range []string{
		state + "/pods/*" + uid + "*", state + "/podnet/addresses/*", "/sys/fs/cgroup/*" + n.daemon.CgroupParent + "/xebec/pod" + uid + "*",
		"/sys/fs/cgroup" + n.daemon.CgroupParent + "/xebec/pod" + uid + "*", n.daemon.Dir + "/state/io.containerd.runtime.v2.task/*/" + uid + "*", state + "/runc/*/" + uid + "*",
	} {
		found, _ := filepath.Glob(pattern)
		out = append(out, found...)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, uid) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, c := range cmdlines {
		if b, err := os.ReadFile(c); err == nil && bytes.Contains(b, []byte(uid)) {
			out = append(out, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	h, err := n.self.Handle()
	if err != nil {
		return append(out, err.Error())
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return append(out, err.Error())
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "xeb-") {
			out = append(out, l.Attrs().Name)
		}
	}
	// Asking containerd starts programs: last, or the question would hold up what it waits for.
	if len(out) > 0 {
		return out
	}
	return n.containers(uid)
}

// containers lists what containerd has of a pod, snapshots included, as its own tool tells.
func (n *node) containers(uid string) []string {
	var out []string
	for _, args := range [][]string{{"containers", "list", "-q"}, {"tasks", "list", "-q"}, {"snapshots", "--snapshotter", "native", "list"}, {"snapshots", "--snapshotter", "overlayfs", "list"}} {
		list, err := exec.Command("ctr", append([]string{"--address", n.daemon.Address, "--namespace", "agent-test"}, args...)...).Output()
		if err != nil {
			out = append(out, err.Error())
		}
		for line := range strings.Lines(string(list)) {
			if strings.Contains(line, uid) {
				out = append(out, strings.TrimSpace(line))
			}
		}
	}
	return out
}
