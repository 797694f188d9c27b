// Package hollow simulates nodes: they register, keep their leases and make every pod that is bound to them run at once,
// without a container. The API traffic is real, so that a control plane can be measured with a thousand nodes on one
// machine.
package hollow

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	"github.com/xebec-project/xebec/internal/version"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// nodesPerConnection is how many simulated nodes share a connection.
const nodesPerConnection = 50

// Config says what to simulate.
type Config struct {
	// Count nodes are called NamePrefix and their number, from 0.
	Count      int
	NamePrefix string
	// MaxPods is what each node has room for; CPU and memory are ample.
	MaxPods  int
	LeaseTTL time.Duration
	// Dial makes a connection to the control plane.
	Dial func() (*grpc.ClientConn, error)
	// Heartbeat keeps a node's lease until ctx ends.
	Heartbeat func(ctx context.Context, c *client.Client, node string, ttl time.Duration, log *zap.Logger) error
	Log       *zap.Logger
}

// Run simulates until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	group, ctx := errgroup.WithContext(ctx)
	var c *client.Client
	for i := range cfg.Count {
		if i%nodesPerConnection == 0 {
			conn, err := cfg.Dial()
			if err != nil {
				return err
			}
			defer conn.Close()
			c = client.New(conn, client.WithFieldManager("xebec-agent"))
		}
		n := &node{cfg: &cfg, client: c, name: fmt.Sprintf("%s%d", cfg.NamePrefix, i), number: i, queue: make(chan *corev1.Pod, 1024)}
		n.log = cfg.Log.With(zap.String("node", n.name))
		group.Go(func() error { return n.run(ctx) })
	}
	return group.Wait()
}

type node struct {
	cfg    *Config
	client *client.Client
	name   string
	number int
	log    *zap.Logger
	queue  chan *corev1.Pod
	// given counts the addresses given to pods.
	given uint16
}

func (n *node) run(ctx context.Context) error {
	if err := retry(ctx, func() error { return n.register(ctx) }); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.cfg.Heartbeat(ctx, n.client, n.name, n.cfg.LeaseTTL, n.log) })
	pods := client.NewInformer(n.client, client.InformerOptions[*corev1.Pod]{FieldSelector: "spec.nodeName=" + n.name})
	pods.OnChange(func(_, pod *corev1.Pod) {
		if pod == nil || settled(pod) {
			return
		}
		select {
		case n.queue <- pod:
		case <-ctx.Done():
		}
	})
	group.Go(func() error { return pods.Run(ctx) })
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case pod := <-n.queue:
				if err := retry(ctx, func() error { return n.settle(ctx, pod) }); err != nil {
					return err
				}
			}
		}
	})
	return group.Wait()
}

// retry repeats f until it succeeds or ctx ends.
func retry(ctx context.Context, f func() error) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := f()
		if err == nil {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

func (n *node) register(ctx context.Context) error {
	object, err := client.Create(ctx, n.client, &corev1.Node{
		Metadata: &metav1.ObjectMeta{Name: n.name, Labels: map[string]string{"kubernetes.io/hostname": n.name, "kubernetes.io/os": "linux", kind.LabelHollow: "true"}},
		Spec:     &corev1.NodeSpec{},
	})
	if apierr.IsAlreadyExists(err) {
		object, err = client.Get[*corev1.Node](ctx, n.client, "", n.name)
	}
	if err != nil {
		return err
	}
	now := timestamppb.New(time.Now().Truncate(time.Second))
	room := map[string]*metav1.Quantity{
		"cpu": {String_: "64"}, "memory": {String_: "256Gi"}, "ephemeral-storage": {String_: "1Ti"}, "pods": {String_: fmt.Sprint(n.cfg.MaxPods)},
	}
	object = client.Clone(object)
	object.Status = &corev1.NodeStatus{
		Capacity: room, Allocatable: room,
		Conditions: []*corev1.NodeCondition{{Type: kind.NodeReady, Status: "True", Reason: "AgentReady", LastHeartbeatTime: now, LastTransitionTime: now}},
		Addresses:  []*corev1.NodeAddress{{Type: "InternalIP", Address: n.address(0).String()}, {Type: "Hostname", Address: n.name}},
		NodeInfo:   &corev1.NodeSystemInfo{KubeletVersion: version.Version(), OperatingSystem: "linux", OsImage: "hollow", ContainerRuntimeVersion: "hollow://0"},
	}
	object.Metadata.ResourceVersion = ""
	_, err = client.UpdateStatus(ctx, n.client, object)
	return err
}

// address returns one of a node's addresses, from a range kept for benchmarks (RFC 2544), where no simulated pod can be
// mistaken for a real one.
func (n *node) address(k uint16) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18 + byte(n.number>>8&1), byte(n.number), byte(k)})
}

// settled tells whether nothing is to be done for a pod.
func settled(pod *corev1.Pod) bool {
	if pod.GetMetadata().GetDeletionTimestamp() != nil {
		return false
	}
	return pod.GetStatus().GetPhase() != "" && pod.GetStatus().GetPhase() != kind.PodPending
}

// settle makes a pod run, or go when it is being deleted.
func (n *node) settle(ctx context.Context, pod *corev1.Pod) error {
	m := pod.GetMetadata()
	if m.GetDeletionTimestamp() != nil {
		_, err := client.Delete[*corev1.Pod](ctx, n.client, m.GetNamespace(), m.GetName(), client.GracePeriod(0), client.IfUID(m.GetUid()))
		if apierr.IsNotFound(err) || apierr.IsConflict(err) {
			return nil
		}
		return err
	}
	pod = client.Clone(pod)
	n.given++
	pod.Status = runningStatus(pod, n.address(n.given), n.address(0), time.Now())
	_, err := client.UpdateStatus(ctx, n.client, pod)
	if apierr.IsNotFound(err) || apierr.IsConflict(err) {
		// It changed or went; the informer brings what it is now.
		return nil
	}
	return err
}

func runningStatus(pod *corev1.Pod, ip, host netip.Addr, at time.Time) *corev1.PodStatus {
	now := timestamppb.New(at.Truncate(time.Second))
	st := &corev1.PodStatus{
		Phase: "Running", StartTime: now, QosClass: kind.PodQOS(pod.GetSpec()), HostIp: host.String(), PodIp: ip.String(),
		HostIps: []*corev1.HostIP{{Ip: host.String()}}, PodIps: []*corev1.PodIP{{Ip: ip.String()}},
		ObservedGeneration: pod.GetMetadata().GetGeneration(),
	}
	for _, name := range []string{"PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"} {
		st.Conditions = append(st.Conditions, &corev1.PodCondition{Type: name, Status: "True", LastTransitionTime: now})
	}
	for _, c := range pod.GetSpec().GetContainers() {
		st.ContainerStatuses = append(st.ContainerStatuses, &corev1.ContainerStatus{
			Name: c.GetName(), Image: c.GetImage(), Ready: true, Started: proto.Bool(true),
			ContainerId: "hollow://" + pod.GetMetadata().GetUid() + "-" + c.GetName(),
			State:       &corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
	return st
}
