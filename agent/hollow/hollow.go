// Package hollow simulates nodes: they register, keep their leases and make every pod that is bound
// to them run at once, without a container. A pod whose restart policy is not Always succeeds at
// once. To the control plane they are as real as many nodes of one process can be: each has a
// connection, a certificate and watches of its own, and answers to nothing else than a real node's
// agent does.
package hollow

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/agent/registration"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

// MaxCount is how many nodes one process simulates at most: each has an address of its own.
const MaxCount = 1<<17 - 1

// Config says what to simulate.
type Config struct {
	// Count nodes are called NamePrefix and their number, from 0. It is at most MaxCount.
	Count      int
	NamePrefix string
	// StartsPerSecond is how many nodes start in a second, evenly spread.
	StartsPerSecond float64
	// MaxPods is what each node has room for; CPU and memory are ample.
	MaxPods  int
	LeaseTTL time.Duration
	// Dial makes the connection of a node to the control plane, as that node.
	Dial func(node string) (*grpc.ClientConn, error)
	Log  *zap.Logger
}

// retryMin and retryMax are the limits of the pause after a failure of a node, as those of a real
// one.
const (
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
)

// Run simulates until ctx ends, and returns ctx's error. It fails when a connection cannot be
// prepared.
func Run(ctx context.Context, cfg Config) error {
	// Many nodes fail alike when one thing fails: of each message ten in a second are enough.
	log := cfg.Log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Second, 10, 0)
	}))
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for i := range cfg.Count {
		name := fmt.Sprintf("%s%d", cfg.NamePrefix, i)
		n := &node{cfg: &cfg, name: name, address: address(i), log: log.With(zap.String(metrics.KeyNode, name)), wake: make(chan struct{}, 1)}
		// Nodes that start together would go on in step: each starts at a random moment of its share of
		// the time.
		start := began.Add(time.Duration((float64(i) + rand.Float64()) / cfg.StartsPerSecond * float64(time.Second)))
		group.Go(func() error {
			if err := backoff.Sleep(ctx, time.Until(start)); err != nil {
				return err
			}
			return n.run(ctx)
		})
	}
	return group.Wait()
}

// address returns the i-th node's address, from a range kept for benchmarks (RFC 2544), where no
// simulated node can be mistaken for a real one.
func address(i int) netip.Addr {
	i++
	return netip.AddrFrom4([4]byte{198, 18 + byte(i>>16&1), byte(i >> 8), byte(i)})
}

// node is one simulated node.
type node struct {
	cfg     *Config
	name    string
	address netip.Addr
	log     *zap.Logger
	client  *client.Client
	// wake is signalled when the node's object has to be looked at.
	wake chan struct{}

	mu sync.Mutex
	// ranges are the node's pod ranges, nil until it is given them.
	ranges []netip.Prefix
	// addresses are those of the pods, by uid.
	addresses map[string][]netip.Addr
	// waiting are the pods that are to run or to go, by uid; working reports whether work looks after
	// them.
	waiting map[string]*corev1.Pod
	working bool
}

func (n *node) run(ctx context.Context) error {
	conn, err := n.cfg.Dial(n.name)
	if err != nil {
		return fmt.Errorf("node %s: %w", n.name, err)
	}
	defer conn.Close()
	n.client = client.New(conn, client.WithFieldManager("xebec-agent"))
	n.addresses, n.waiting = map[string][]netip.Addr{}, map[string]*corev1.Pod{}

	group, ctx := errgroup.WithContext(ctx)
	object := registration.Node{Client: n.client, Metadata: n.metadata, Status: n.status, Wake: n.wake, Log: n.log}
	group.Go(func() error { return object.Run(ctx) })
	lease := registration.Lease{Client: n.client, Node: n.name, TTL: n.cfg.LeaseTTL, Log: n.log}
	group.Go(func() error { return lease.Run(ctx) })
	watch[*corev1.Node](ctx, group, n, "metadata.name="+n.name, &ownNode{node: n})
	watch[*corev1.Pod](ctx, group, n, "spec.nodeName="+n.name, &ownPods{node: n, group: group, ctx: ctx})
	// The input of a real node's service maps.
	watch[*corev1.Service](ctx, group, n, "", discard{})
	watch[*discoveryv1.EndpointSlice](ctx, group, n, "", discard{})
	return group.Wait()
}

func (n *node) nudge() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// ownNode receives changes of the node's own object.
type ownNode struct{ *node }

// doubtDelay is how long a node waits at least before it contradicts others who take it for silent,
// and at most twice of it.
const doubtDelay = time.Second

func (o *ownNode) changed(b []byte) error {
	node := &corev1.Node{}
	if err := unmarshal(b, node); err != nil {
		return err
	}
	var ranges []netip.Prefix
	for _, text := range node.GetSpec().GetPodCidrs() {
		r, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("pod range of node %s: %w", o.name, err)
		}
		ranges = append(ranges, r)
	}
	o.mu.Lock()
	o.ranges = ranges
	o.mu.Unlock()
	if ready := core.NodeCondition(node, core.NodeReady); ready != nil && ready.GetStatus() != condition.True {
		time.AfterFunc(doubtDelay+rand.N(doubtDelay), o.nudge)
	}
	return nil
}

func (o *ownNode) removed([]byte) error {
	time.AfterFunc(rand.N(doubtDelay), o.nudge)
	return nil
}

// Begin implements client.Sink.
func (o *ownNode) Begin() {}

// Handle implements client.Sink.
func (o *ownNode) Handle(event *apiv1.WatchResponse) error { return deliver(event, o) }

// Reached implements client.Sink.
func (o *ownNode) Reached(string, bool) {}

// ownPods receives changes of the node's pods.
type ownPods struct {
	*node
	group *errgroup.Group
	ctx   context.Context
	// seen are the uids of a state that is being read, nil otherwise.
	seen map[string]bool
}

// Begin implements client.Sink.
func (o *ownPods) Begin() { o.seen = map[string]bool{} }

// Handle implements client.Sink.
func (o *ownPods) Handle(event *apiv1.WatchResponse) error { return deliver(event, o) }

// Reached implements client.Sink. It forgets the pods that the initial state does not have.
func (o *ownPods) Reached(_ string, whole bool) {
	if !whole {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	gone := func(uid string) bool { return !o.seen[uid] }
	maps.DeleteFunc(o.addresses, func(uid string, _ []netip.Addr) bool { return gone(uid) })
	maps.DeleteFunc(o.waiting, func(uid string, _ *corev1.Pod) bool { return gone(uid) })
	o.seen = nil
}

func (o *ownPods) removed(b []byte) error {
	pod := &corev1.Pod{}
	if err := unmarshal(b, pod); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.addresses, pod.GetMetadata().GetUid())
	delete(o.waiting, pod.GetMetadata().GetUid())
	return nil
}

func (o *ownPods) changed(b []byte) error {
	pod := &corev1.Pod{}
	if err := unmarshal(b, pod); err != nil {
		return err
	}
	uid := pod.GetMetadata().GetUid()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen != nil {
		o.seen[uid] = true
	}
	if core.IsPodFinished(pod) {
		delete(o.addresses, uid)
	} else {
		o.remember(pod)
	}
	if settled(pod) {
		delete(o.waiting, uid)
		return nil
	}
	o.waiting[uid] = pod
	if !o.working {
		o.working = true
		o.group.Go(func() error { return o.work(o.ctx) })
	}
	return nil
}

// remember notes the addresses that a pod has already, as those that a process before this one
// gave. The caller holds n.mu.
func (n *node) remember(pod *corev1.Pod) {
	uid := pod.GetMetadata().GetUid()
	if len(n.addresses[uid]) > 0 || pod.GetSpec().GetHostNetwork() {
		return
	}
	for _, ip := range pod.GetStatus().GetPodIps() {
		if addr, err := netip.ParseAddr(ip.GetIp()); err == nil {
			n.addresses[uid] = append(n.addresses[uid], addr)
		}
	}
}

// work settles the pods that wait, until none does or ctx ends.
func (n *node) work(ctx context.Context) error {
	pace := backoff.Backoff{Min: retryMin, Max: retryMax}
	for {
		n.mu.Lock()
		var pod *corev1.Pod
		for _, pod = range n.waiting {
			break
		}
		if n.working = pod != nil; !n.working {
			n.mu.Unlock()
			return nil
		}
		n.mu.Unlock()
		err := n.settle(ctx, pod)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			n.log.Warn(
				"Failed to update a pod",
				zap.String(metrics.KeyObject, pod.GetMetadata().GetNamespace()+"/"+pod.GetMetadata().GetName()),
				zap.Error(err),
			)
			if err := pace.Wait(ctx, err); err != nil {
				return err
			}
			continue
		}
		pace.Reset()
		n.mu.Lock()
		if uid := pod.GetMetadata().GetUid(); n.waiting[uid] == pod {
			delete(n.waiting, uid)
		}
		n.mu.Unlock()
	}
}

// podAddresses returns the addresses of a pod: one of each of the node's ranges that no other pod
// has.
func (n *node) podAddresses(pod *corev1.Pod) ([]netip.Addr, error) {
	if pod.GetSpec().GetHostNetwork() {
		return []netip.Addr{n.address}, nil
	}
	uid := pod.GetMetadata().GetUid()
	n.mu.Lock()
	defer n.mu.Unlock()
	if own := n.addresses[uid]; len(own) > 0 {
		return own, nil
	}
	if len(n.ranges) == 0 {
		return nil, fmt.Errorf("node %s has no pod range yet", n.name)
	}
	taken := map[netip.Addr]bool{}
	for other := range maps.Values(n.addresses) {
		for _, addr := range other {
			taken[addr] = true
		}
	}
	var own []netip.Addr
	for _, r := range n.ranges {
		// As on a real node, the first two addresses are the network's and the gateway's.
		addr := r.Masked().Addr().Next().Next()
		for taken[addr] {
			addr = addr.Next()
		}
		if !r.Contains(addr.Next()) {
			return nil, fmt.Errorf("the range %s of node %s has no free address", r, n.name)
		}
		own = append(own, addr)
	}
	n.addresses[uid] = slices.Clip(own)
	return own, nil
}
