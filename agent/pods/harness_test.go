package pods_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	_ "github.com/xebec-project/xebec/agent/companion"
	"github.com/xebec-project/xebec/agent/eviction"
	"github.com/xebec-project/xebec/agent/logs"
	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/pods/tokens"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kinds"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// cluster is a control plane in memory: it stores pods and tells the set of their changes, as an
// informer does.
type cluster struct {
	mu       sync.Mutex
	revision int
	pods     map[string]*corev1.Pod
	maps     map[string]*corev1.ConfigMap
	secrets  map[string]*corev1.Secret
	classes  map[string]*nodev1.RuntimeClass
	follows  map[string]func()
	set      *pods.Set
	away     bool
	tokens   int
	statuses int
	events   []string
	// removed are the pods that the agent removed, in their last versions, as long as anything refers
	// to them.
	removed map[string]weak.Pointer[corev1.Pod]
	// history is every reported state of a container, by pod.
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
		return nil, apierr.NotFound(kinds.Of(pod), pod.Metadata.Name)
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
	c.removed[pod.Metadata.Uid] = weak.Make(c.pods[pod.Metadata.Uid])
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
	return nil, apierr.NotFound(kinds.Of(&corev1.ConfigMap{}), name)
}

func (c *cluster) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return nil, apierr.Unavailable("no master")
	}
	if s, ok := c.secrets[namespace+"/"+name]; ok {
		return s, nil
	}
	return nil, apierr.NotFound(kinds.Of(&corev1.Secret{}), name)
}

func (c *cluster) RuntimeClass(_ context.Context, name string) (*nodev1.RuntimeClass, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return nil, apierr.Unavailable("no master")
	}
	if class, ok := c.classes[name]; ok {
		return class, nil
	}
	return nil, apierr.NotFound(kinds.Of(&nodev1.RuntimeClass{}), name)
}

// Token makes tokens that are good for two seconds.
func (c *cluster) Token(_ context.Context, pod *corev1.Pod, r tokens.Request) (string, time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return "", time.Time{}, apierr.Unavailable("no master")
	}
	c.tokens++
	return fmt.Sprintf("%s for %s, %ds, %d", pod.GetMetadata().GetName(), r.Audience, r.Seconds, c.tokens), time.Now().Add(2 * time.Second), nil
}

func (c *cluster) Follow(ctx context.Context, kind, namespace, name string, changed func()) {
	key := kind + " " + namespace + "/" + name
	c.mu.Lock()
	c.follows[key] = changed
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	delete(c.follows, key)
	c.mu.Unlock()
}

// setConfigMap and setSecret change an object and tell who follows it.
func (c *cluster) setConfigMap(name string, data map[string]string) {
	c.mu.Lock()
	c.maps["default/"+name] = &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Name: name, Namespace: "default"}, Data: data}
	changed := c.follows["ConfigMap default/"+name]
	c.mu.Unlock()
	if changed != nil {
		changed()
	}
}

func (c *cluster) setSecret(name string, data map[string][]byte) {
	c.mu.Lock()
	c.secrets["default/"+name] = &corev1.Secret{Metadata: &metav1.ObjectMeta{Name: name, Namespace: "default"}, Data: data}
	changed := c.follows["Secret default/"+name]
	c.mu.Unlock()
	if changed != nil {
		changed()
	}
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
	// cut is what keeps pods from being connected, nil for nothing.
	cut error
}

func (w *wires) setCut(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = err
}

func (w *wires) Setup(_ context.Context, pod *corev1.Pod, netns string) (netip.Addr, error) {
	uid := pod.GetMetadata().GetUid()
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := os.Stat(netns); err != nil || w.cut != nil {
		return netip.Addr{}, errors.Join(err, w.cut)
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
	// allocatable is what the node can grant; nothing is counted when it is zero.
	allocatable runtime.Resources
	// evictions count pods beyond their limits, nil for no count.
	evictions *eviction.Metrics
	stop      func()
	// configRetry is how soon what is missing is looked for again, and processes the most of a pod; 0
	// for the defaults.
	configRetry time.Duration
	processes   int64
	// handlers are the runtime handlers of the node.
	handlers map[string]runtime.Handler
}

func start(t *testing.T, change ...func(*node)) *node {
	t.Helper()
	d := containerdtest.Start(t)
	n := &node{T: t, daemon: d, wires: &wires{up: map[string]netip.Addr{}}}
	n.cluster = &cluster{pods: map[string]*corev1.Pod{}, maps: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{}, follows: map[string]func(){}, removed: map[string]weak.Pointer[corev1.Pod]{}, history: map[string][]string{}}
	for _, f := range change {
		f(n)
	}
	n.agent()
	t.Cleanup(func() { n.stop() })
	if _, err := n.rt.Images().Import(t.Context(), containerdtest.Archive(t, "busybox:test", containerdtest.Busybox(t))); err != nil {
		t.Fatal(err)
	}
	return n
}

// agent starts an agent; stop ends it as abruptly as a goroutine can be ended, with nothing tidied
// up.
func (n *node) agent() {
	n.Helper()
	rt, err := runtime.New(n.Context(), runtime.Config{
		Address: n.daemon.Address, Namespace: "xebec-test", CgroupParent: n.daemon.CgroupParent,
		RuncRoot: filepath.Join(n.daemon.Dir, "runc"), ScratchDir: n.daemon.Dir, Handlers: n.handlers,
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
		Allocatable: n.allocatable, Evictions: n.evictions,
		StateDir: filepath.Join(n.daemon.Dir, "pods"), SeccompDir: filepath.Join(n.daemon.Dir, "seccomp"), NodeName: "node-1", HostIP: netip.MustParseAddr("127.0.0.1"),
		MemoryBytes: 4 << 30, MilliCPU: 2000, DNS: netip.MustParseAddr("10.96.0.10"),
		DrainDelay: 20 * time.Millisecond, MeasureEvery: 200 * time.Millisecond, BackoffInitial: 300 * time.Millisecond, BackoffMax: time.Second,
		ConfigRetry: n.configRetry, PodProcesses: n.processes,
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
	containerdtest.Eventually(n.T, 60*time.Second, what, func() bool {
		last = n.cluster.get(uid)
		return last != nil && condition(last)
	})
	return last
}

// stopping reports whether the pod's containers got the stop signal.
func (n *node) stopping(p *corev1.Pod) bool {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	return slices.ContainsFunc(n.cluster.events, func(e string) bool {
		return strings.HasPrefix(e, p.GetMetadata().GetName()+" Normal Killing: Stopping")
	})
}

func (n *node) untilGone(uid string) {
	n.Helper()
	containerdtest.Eventually(n.T, 60*time.Second, "the pod is gone", func() bool { return n.cluster.get(uid) == nil })
	containerdtest.Eventually(n.T, 60*time.Second, "the pod has left nothing", func() bool {
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

func execConfig(command string, out io.Writer) runtime.ExecConfig {
	return runtime.ExecConfig{Command: []string{"sh", "-c", command}, Stdout: out, Stderr: out}
}
