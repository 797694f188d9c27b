package agent

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/eviction"
	"github.com/xebec-project/xebec/agent/registration"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/version"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	maxImages = 50
	// kernelFeatures is the type of the condition that is false while the datapath lacks a feature
	// because of the kernel.
	kernelFeatures = "KernelFeaturesAvailable"
)

// machine is what is known of the hardware and the operating system.
type machine struct {
	milliCPU    int64
	memoryBytes int64
	diskBytes   int64
	processes   int64
	// shared has the resources of which the node has less than the machine, so that what is available
	// is computed from the usage of pods.
	shared map[string]bool
	// reserved is kept from pods, and evictAt is what must be left of it, by resource.
	reserved, evictAt map[string]int64
	info              *corev1.NodeSystemInfo
}

func readMachine(stateDir string) machine {
	m := machine{milliCPU: int64(goruntime.NumCPU()) * 1000, info: &corev1.NodeSystemInfo{
		OperatingSystem: goruntime.GOOS, Architecture: goruntime.GOARCH, KubeletVersion: version.Version(),
		MachineId: firstLine("/etc/machine-id"), SystemUuid: firstLine("/sys/class/dmi/id/product_uuid"),
		BootId: firstLine("/proc/sys/kernel/random/boot_id"), OsImage: osImage(),
	}}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.memoryBytes = int64(info.Totalram) * int64(info.Unit)
	}
	var fs unix.Statfs_t
	if unix.Statfs(stateDir, &fs) == nil {
		m.diskBytes = int64(fs.Blocks) * fs.Bsize
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.info.KernelVersion = unix.ByteSliceToString(uts.Release[:])
	}
	return m
}

func firstLine(path string) string {
	b, _ := os.ReadFile(path)
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return string(line)
}

func osImage() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "Linux"
}

// registrar keeps the node's object: it creates it, and tells its status when that changes.
type registrar struct {
	cfg     *Config
	client  *client.Client
	log     *zap.Logger
	machine machine
	port    int32
	// images lists the node's images and runtime gives the runtime's version; an error means that
	// containerd is away.
	images  func(context.Context) ([]*corev1.ContainerImage, error)
	runtime func(context.Context) (string, error)
	// readOnlyBelow tells what the runtime can do for read-only mounts.
	readOnlyBelow func() bool
	// handlers are the names of the runtime's handlers.
	handlers func() []string
	wake     chan struct{}

	mu sync.Mutex
	// notReady is why the node can't run pods, empty when it can.
	notReady string
	// pressures are the node's conditions of want; a map is never changed.
	pressures map[eviction.Pressure]bool
	// staticProblems is what is wrong with the node's static pods, empty for nothing.
	staticProblems string
	// features are those of the datapath that depend on the kernel; nil: they are not known yet.
	features []datapath.Feature
}

// setFeatures says how the node provides what depends on its kernel.
func (r *registrar) setFeatures(all []datapath.Feature) {
	r.mu.Lock()
	r.features = all
	r.mu.Unlock()
	r.nudge()
}

// setStaticProblems changes what is wrong with the node's static pods.
func (r *registrar) setStaticProblems(text string) {
	r.mu.Lock()
	r.staticProblems = text
	r.mu.Unlock()
	r.nudge()
}

// setNotReady changes why the node can't run pods; empty stands for that it can.
func (r *registrar) setNotReady(why string) {
	r.mu.Lock()
	changed := r.notReady != why
	r.notReady = why
	r.mu.Unlock()
	if changed {
		r.nudge()
	}
}

func (r *registrar) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run keeps the object until ctx ends.
func (r *registrar) run(ctx context.Context) error {
	return registration.Node{Client: r.client, Metadata: r.metadata, Status: r.status, Wake: r.wake, Log: r.log}.Run(ctx)
}

func (r *registrar) metadata() *metav1.ObjectMeta {
	return &metav1.ObjectMeta{Name: r.cfg.Node, Labels: r.labels(), Annotations: r.formerRanges()}
}

// formerRanges names the pod ranges that the node had when the cluster knew it last, in an
// annotation: after a restore of a backup the node is unknown, and its pods have addresses of them.
// The nodes service gives them to it again if they are free.
func (r *registrar) formerRanges() map[string]string {
	kept, err := loadNode(r.cfg.StateDir, r.cfg.Node)
	if err != nil || kept.GetSpec().GetPodCidr() == "" {
		return nil
	}
	ranges := kept.GetSpec().GetPodCidrs()
	if len(ranges) == 0 {
		ranges = []string{kept.GetSpec().GetPodCidr()}
	}
	return map[string]string{core.AnnotationPodCIDRs: strings.Join(ranges, ",")}
}

func (r *registrar) labels() map[string]string {
	out, _ := r.cfg.labels()
	maps.Copy(out, map[string]string{
		core.LabelHostname: r.cfg.Node, core.LabelArch: goruntime.GOARCH, core.LabelOS: goruntime.GOOS,
	})
	return out
}

// status computes the node's status; what others decide of the one before is kept.
func (r *registrar) status(ctx context.Context, old *corev1.NodeStatus, now time.Time) *corev1.NodeStatus {
	st := proto.CloneOf(old)
	if st == nil {
		st = &corev1.NodeStatus{}
	}
	st.Capacity = capacity(r.machine.milliCPU, r.machine.memoryBytes, r.machine.diskBytes, int64(r.cfg.MaxPods))
	st.Allocatable = r.machine.allocatable(int64(r.cfg.MaxPods))
	st.Addresses = nil
	if four, six, err := r.cfg.addresses(); err == nil {
		st.Addresses = append(st.Addresses, &corev1.NodeAddress{Type: "InternalIP", Address: four.String()})
		if six.IsValid() {
			st.Addresses = append(st.Addresses, &corev1.NodeAddress{Type: "InternalIP", Address: six.String()})
		}
	}
	st.Addresses = append(st.Addresses, &corev1.NodeAddress{Type: "Hostname", Address: r.cfg.Node})
	st.DaemonEndpoints = &corev1.NodeDaemonEndpoints{KubeletEndpoint: &corev1.DaemonEndpoint{Port: r.port}}
	runtimeVersion := st.GetNodeInfo().GetContainerRuntimeVersion()
	r.mu.Lock()
	notReady, pressures, staticProblems, features := r.notReady, r.pressures, r.staticProblems, r.features
	r.mu.Unlock()
	v, err := r.runtime(ctx)
	if err == nil {
		runtimeVersion = "containerd://" + v
	} else {
		notReady = strings.TrimPrefix(notReady+"; "+err.Error(), "; ")
	}
	st.NodeInfo = proto.CloneOf(r.machine.info)
	st.NodeInfo.ContainerRuntimeVersion = runtimeVersion
	st.RuntimeHandlers = []*corev1.NodeRuntimeHandler{{Features: &corev1.NodeRuntimeHandlerFeatures{
		RecursiveReadOnlyMounts: proto.Bool(r.readOnlyBelow()), UserNamespaces: proto.Bool(false),
	}}}
	for _, name := range r.handlers() {
		st.RuntimeHandlers = append(st.RuntimeHandlers, &corev1.NodeRuntimeHandler{Name: name})
	}
	if list, err := r.images(ctx); err == nil {
		st.Images = list
	}
	setCondition(st, core.NodeReady, notReady == "", "KubeletReady", "KubeletNotReady", notReady, now)
	for _, p := range eviction.Pressures {
		setPressure(st, p, pressures[p], now)
	}
	if r.cfg.StaticPods != "" {
		setCondition(st, "StaticPodsValid", staticProblems == "", "StaticPodsRead", "InvalidStaticPod", staticProblems, now)
	}
	if features != nil {
		setKernelFeatures(st, features, now)
	}
	return st
}

// setKernelFeatures sets the condition that tells what the node's kernel keeps the datapath from.
func setKernelFeatures(st *corev1.NodeStatus, all []datapath.Feature, now time.Time) {
	var methods, missing []string
	for _, f := range all {
		methods = append(methods, f.Name+" by "+f.Method)
		if f.Missing != "" {
			missing = append(missing, f.Missing)
		}
	}
	message := strings.Join(methods, ", ")
	if len(missing) > 0 {
		message = strings.Join(missing, "; ") + " (" + message + ")"
	}
	setCondition(st, kernelFeatures, len(missing) == 0, "AllAvailable", "SomeMissing", message, now)
	conditionOf(st, kernelFeatures).Message = message
}

func conditionOf(st *corev1.NodeStatus, name string) *corev1.NodeCondition {
	return st.Conditions[slices.IndexFunc(st.Conditions, func(c *corev1.NodeCondition) bool { return c.GetType() == name })]
}

// setPressure sets a pressure condition, which is "False" while the node has enough of a resource.
// The reasons and messages are those of Kubernetes.
func setPressure(st *corev1.NodeStatus, p eviction.Pressure, under bool, now time.Time) {
	texts := map[eviction.Pressure]struct{ under, relieved, isUnder, isRelieved string }{
		eviction.MemoryPressure: {
			"KubeletHasInsufficientMemory", "KubeletHasSufficientMemory",
			"kubelet has insufficient memory available", "kubelet has sufficient memory available",
		},
		eviction.DiskPressure: {
			"KubeletHasDiskPressure", "KubeletHasNoDiskPressure",
			"kubelet has disk pressure", "kubelet has no disk pressure",
		},
		eviction.PIDPressure: {
			"KubeletHasInsufficientPID", "KubeletHasSufficientPID",
			"kubelet has insufficient PID available", "kubelet has sufficient PID available",
		},
	}[p]
	setCondition(st, string(p), under, texts.under, texts.relieved, texts.isRelieved, now)
	if under {
		conditionOf(st, string(p)).Message = texts.isUnder
	}
}

// setCondition sets a condition to the good state, or else to the bad one with a message.
func setCondition(st *corev1.NodeStatus, name string, ok bool, good, bad, message string, now time.Time) {
	c := &corev1.NodeCondition{Type: name, Status: condition.True, Reason: good}
	if !ok {
		c.Status, c.Reason, c.Message = condition.False, bad, message
	}
	registration.SetCondition(st, c, now)
}

func capacity(milliCPU, memory, disk, pods int64) map[string]*metav1.Quantity {
	cpu := strconv.FormatInt(milliCPU, 10) + "m"
	if milliCPU%1000 == 0 {
		cpu = strconv.FormatInt(milliCPU/1000, 10)
	}
	return map[string]*metav1.Quantity{
		"cpu":               {String_: cpu},
		"memory":            {String_: strconv.FormatInt(memory/1024, 10) + "Ki"},
		"ephemeral-storage": {String_: strconv.FormatInt(disk/1024, 10) + "Ki"},
		"pods":              {String_: strconv.FormatInt(pods, 10)},
	}
}

// port returns the number of an address' port.
func portOf(addr net.Addr) int32 {
	if t, ok := addr.(*net.TCPAddr); ok {
		return int32(t.Port)
	}
	return 0
}

// keptNode is where the node's object is kept for times without a control plane.
func keptNode(stateDir string) string { return filepath.Join(stateDir, "node.pb") }

func keepNode(stateDir string, node *corev1.Node) error {
	b, err := proto.Marshal(node)
	if err != nil {
		return err
	}
	path := keptNode(stateDir)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// loadNode returns the node as it was last known, nil when it never was.
func loadNode(stateDir, name string) (*corev1.Node, error) {
	b, err := os.ReadFile(keptNode(stateDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	node := &corev1.Node{}
	if err := proto.Unmarshal(b, node); err != nil {
		return nil, err
	}
	if node.GetMetadata().GetName() != name {
		return nil, fmt.Errorf(
			"%s is of node %q, and this is node %q: the state directory belongs to another node",
			keptNode(stateDir),
			node.GetMetadata().GetName(),
			name,
		)
	}
	return node, nil
}

// logKey names the node in log lines.
func logKey(name string) zap.Field { return zap.String(metrics.KeyNode, name) }
