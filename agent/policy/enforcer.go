package policy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/internal/broadcast"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

const (
	// verifyEvery is the interval at which the kernel's maps are verified and repaired, and expired
	// flows removed.
	verifyEvery = time.Minute
	// countEvery is how often drops are counted for the metrics.
	countEvery = 5 * time.Second
	minRetry   = 50 * time.Millisecond
	maxRetry   = 5 * time.Second
)

// Knowledge is what an Enforcer knows of its cluster.
type Knowledge int

// What is known of the cluster, from the least on.
const (
	// Nothing: pods that start have to wait.
	Nothing Knowledge = iota
	// Remembered is what an earlier agent kept: good for pods that start, while
	// those that run keep what they have, which may be newer.
	Remembered
	// Everything that there is now.
	Everything
)

// Enforcer keeps a Kernel equal to what policies, namespaces and pods say. Events
// may come from any goroutine. A change is written at once when the Enforcer is
// idle; what arrives during a write goes with the next one.
type Enforcer struct {
	log     *zap.Logger
	metrics *Metrics
	drops   broadcast.Broadcaster[Drop]
	wake    chan struct{}

	mu      sync.Mutex
	kernel  *Kernel
	cluster *Cluster
	locals  map[string]*local // by UID
	knows   Knowledge
	learned chan struct{}   // closed once something is known
	dirty   bool            // something may have to be written
	heard   time.Time       // of the first event not yet written; zero: there is none
	wanted  map[string]Sets // as written last, by UID
	sets    map[string]*Set // likewise
	counted map[bpf.PolicyPolicyCountKey]uint64
	logged  map[loggedDrop]bool
}

// maxLogged is the number of kinds of drops that are logged separately within logEvery.
const maxLogged = 512

// local is a pod of this node.
type local struct {
	pod      *Pod
	endpoint Endpoint
}

// loggedDrop is what drops have to have in common to be logged once a minute.
type loggedDrop struct {
	pod       string
	peer      netip.Addr
	direction Direction
	protocol  Protocol
	port      uint16
}

// NewEnforcer returns the enforcer of what a kernel is to do. Metrics may be nil.
func NewEnforcer(k *Kernel, m *Metrics, log *zap.Logger) *Enforcer {
	if m == nil {
		m = NewMetrics(nil)
	}
	return &Enforcer{
		kernel: k, metrics: m, log: log, wake: make(chan struct{}, 1), cluster: NewCluster(), locals: map[string]*local{},
		learned: make(chan struct{}), wanted: map[string]Sets{}, sets: map[string]*Set{}, logged: map[loggedDrop]bool{},
		counted: map[bpf.PolicyPolicyCountKey]uint64{},
	}
}

// The methods below take an informer's events: old is nil when the object was
// created, now is nil when it was deleted. The objects are not kept.

// OnPolicy takes an event of a policy.
func (e *Enforcer) OnPolicy(old, now *networkingv1.NetworkPolicy) {
	e.change(func() bool {
		changed, err := e.cluster.OnPolicy(old, now)
		if err != nil {
			e.log.Error("Invalid network policy, invalid parts are ignored and allow no traffic", zap.Error(err))
		}
		return changed
	})
}

// OnNamespace takes an event of a namespace.
func (e *Enforcer) OnNamespace(old, now *corev1.Namespace) {
	e.change(func() bool { return e.cluster.OnNamespace(old, now) })
}

// OnPod takes an event of a pod, on any node.
func (e *Enforcer) OnPod(old, now *corev1.Pod) {
	e.change(func() bool {
		if now == nil {
			return e.cluster.OnPod(old, nil)
		}
		p := PodOf(now)
		if l := e.locals[p.UID]; l != nil {
			// The address is known here before it is in the API.
			p.Addrs = l.pod.Addrs
			l.pod = p
		}
		return e.cluster.setPod(p)
	})
}

func (e *Enforcer) change(f func() bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !f() {
		return
	}
	if e.heard.IsZero() {
		e.heard = time.Now()
	}
	e.signal()
}

// Know says what the events so far amount to. Knowledge that grows to Everything
// is written; Nothing stops writing until there is more.
func (e *Enforcer) Know(k Knowledge) {
	e.mu.Lock()
	if k == Nothing && e.knows != Nothing {
		e.learned = make(chan struct{})
	}
	if k != Nothing && e.knows == Nothing {
		close(e.learned)
	}
	e.knows = k
	e.signal()
	e.mu.Unlock()
}

// Unlearn says that there is more to know than everything that was known: nothing
// is written, and pods that start wait, until it is.
func (e *Enforcer) Unlearn() {
	e.mu.Lock()
	knew := e.knows
	e.mu.Unlock()
	if knew == Everything {
		e.Know(Nothing)
	}
}

// signal has what is wanted written. The caller holds e.mu.
func (e *Enforcer) signal() {
	e.dirty = true
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Admit enforces policies on a pod of this node, before anything in it runs: it waits until
// policies are known. The pod has the addresses; the endpoint's sets are not looked at. It is
// idempotent, also after a restart of the agent.
func (e *Enforcer) Admit(ctx context.Context, pod *corev1.Pod, addrs []netip.Addr, at Endpoint) error {
	for {
		e.mu.Lock()
		if e.kernel.Knows(at.Index) || e.knows != Nothing {
			break
		}
		learned := e.learned
		e.mu.Unlock()
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for network policies: %w", context.Cause(ctx))
		case <-learned:
		}
	}
	defer e.mu.Unlock()
	p := PodOf(pod)
	if known := e.cluster.pods[name{p.Namespace, p.Name}]; known != nil && known.UID == p.UID {
		p = known
	}
	p.Addrs = addrs
	if before := e.locals[p.UID]; before != nil && before.endpoint.Index != at.Index {
		if err := e.kernel.Forget(before.endpoint.Index); err != nil {
			return err
		}
	}
	e.locals[p.UID] = &local{p, at}
	e.cluster.setPod(p)
	if e.kernel.Knows(at.Index) {
		e.signal()
		return nil
	}
	err := e.apply([]*local{e.locals[p.UID]})
	if err != nil {
		return fmt.Errorf("enforcing network policies: %w", err)
	}
	// Others on this node may be allowed to reach it.
	e.signal()
	return nil
}

// Forget drops what is known of a pod whose network is gone.
func (e *Enforcer) Forget(uid string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.locals[uid]
	if l == nil {
		return nil
	}
	e.count()
	if err := e.kernel.Forget(l.endpoint.Index); err != nil {
		return err
	}
	for key := range e.counted {
		if key.Ifindex == uint32(l.endpoint.Index) {
			delete(e.counted, key)
		}
	}
	e.metrics.drops.DeletePartialMatch(map[string]string{"namespace": l.pod.Namespace, "pod": l.pod.Name})
	delete(e.locals, uid)
	delete(e.wanted, uid)
	if p := e.cluster.pods[name{l.pod.Namespace, l.pod.Name}]; p == l.pod {
		delete(e.cluster.pods, name{p.Namespace, p.Name})
	}
	e.metrics.hold(e.kernel)
	return nil
}

// apply writes what is wanted of some pods. The caller holds e.mu.
func (e *Enforcer) apply(pods []*local) error {
	of := make([]*Pod, 0, len(pods))
	for _, l := range pods {
		of = append(of, l.pod)
	}
	w := Compile(e.cluster, of)
	endpoints := make([]Endpoint, 0, len(pods))
	for _, l := range pods {
		at := l.endpoint
		at.Sets = w.Pods[l.pod.UID]
		endpoints = append(endpoints, at)
		e.wanted[l.pod.UID] = at.Sets
	}
	for name, set := range w.Sets {
		e.sets[name] = set
	}
	err := e.kernel.Apply(w, endpoints)
	e.metrics.hold(e.kernel)
	return err
}

// Run writes changes until the context ends; it returns the context's error. A
// failed write is logged and tried again, with all that is wanted.
func (e *Enforcer) Run(ctx context.Context) error {
	drops, err := ringbuf.NewReader(e.kernel.objects.Maps[bpf.PolicyMapPolicyDrops])
	if err != nil {
		return fmt.Errorf("reading drops: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return watchDrops(drops, e.onDrop) })
	group.Go(func() error {
		<-ctx.Done()
		return drops.Close()
	})
	group.Go(func() error { return e.keep(ctx) })
	return group.Wait()
}

func (e *Enforcer) keep(ctx context.Context) error {
	verify, count := time.NewTicker(verifyEvery), time.NewTicker(countEvery)
	defer verify.Stop()
	defer count.Stop()
	retry := minRetry
	for {
		if err := e.write(); err != nil {
			e.log.Error("Failed to enforce network policies", zap.Error(err), zap.Duration(metrics.KeyRetryAfter, retry))
			timer := time.NewTimer(retry + rand.N(retry))
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-timer.C:
			}
			retry = min(2*retry, maxRetry)
			continue
		}
		retry = minRetry
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.wake:
		case <-count.C:
			e.mu.Lock()
			e.count()
			e.mu.Unlock()
		case <-verify.C:
			e.verify()
		}
	}
}

// write brings the kernel to what is wanted now.
func (e *Enforcer) write() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.knows != Everything || !e.dirty {
		return nil
	}
	heard := e.heard
	e.heard, e.dirty = time.Time{}, false
	all := make([]*local, 0, len(e.locals))
	for _, l := range e.locals {
		all = append(all, l)
	}
	e.sets = map[string]*Set{}
	err := e.apply(all)
	e.metrics.wrote(heard, err)
	if err != nil {
		e.heard, e.dirty = heard, true // what comes meanwhile is not older
	}
	return err
}

func (e *Enforcer) verify() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.logged)
	if err := e.kernel.Verify(); err != nil {
		e.log.Error("Failed to verify the policy maps", zap.Error(err))
	}
	e.dirty = true // the next write repairs changes by others
	left, err := e.kernel.Sweep()
	if err != nil {
		e.log.Warn("Failed to remove expired flows", zap.Error(err))
	}
	e.metrics.press(e.kernel, bpf.PolicyMapPolicyFlows, left)
}

// count brings the metric of drops up to date. The caller holds e.mu.
func (e *Enforcer) count() {
	now, err := e.kernel.counts()
	if err != nil {
		e.log.Warn("Failed to count dropped packets", zap.Error(err))
		return
	}
	for key, n := range now {
		pod := e.podAt(key.Ifindex)
		if pod == nil {
			continue // not adopted yet
		}
		if more := n - e.counted[key]; more > 0 {
			e.metrics.drops.WithLabelValues(pod.Namespace, pod.Name, Direction(key.Direction).String(), reasonOf(key.Reason)).Add(float64(more))
		}
		e.counted[key] = n
	}
}

// podAt returns the pod at an interface, nil when none is. The caller holds e.mu.
func (e *Enforcer) podAt(index uint32) *Pod {
	for _, l := range e.locals {
		if uint32(l.endpoint.Index) == index {
			return l.pod
		}
	}
	return nil
}

// onDrop resolves the numbers of a program's record to names.
func (e *Enforcer) onDrop(record bpf.PolicyPolicyDrop) {
	d := dropOf(record)
	e.mu.Lock()
	pod := e.podAt(record.Ifindex)
	if pod == nil {
		e.mu.Unlock()
		return
	}
	d.Pod = pod.String()
	for _, a := range pod.Addrs {
		if !d.PodAddr.IsValid() || a.Is4() == d.PeerAddr.Is4() {
			d.PodAddr = a
		}
	}
	if peer := e.cluster.owner(d.PeerAddr); peer != nil {
		d.Peer = peer.String()
	}
	d.Rule = e.ruleOf(pod, d)
	once := loggedDrop{d.Pod, d.PeerAddr, d.Direction, d.Protocol, d.To().Port()}
	seen := e.logged[once]
	if len(e.logged) < maxLogged {
		e.logged[once] = true
	}
	e.mu.Unlock()
	if !seen {
		e.log.Info(
			"Network policy dropped a packet",
			zap.String(metrics.KeyPod, d.Pod),
			zap.Stringer(metrics.KeyDirection, d.Direction),
			zap.Stringer(metrics.KeyFrom, d.From()),
			zap.Stringer(metrics.KeyDestination, d.To()),
			zap.Stringer(metrics.KeyProtocol, d.Protocol),
			zap.String(metrics.KeyReason, d.Reason),
			zap.String(metrics.KeyRule, d.Rule),
		)
	}
	e.drops.Add(d)
}

// ruleOf says why a packet was dropped. The caller holds e.mu.
func (e *Enforcer) ruleOf(pod *Pod, d Drop) string {
	if d.Reason == reasons[bpf.PolicyPolicyReasonPOLICY_FRAGMENT] {
		return "the first fragment of the packet, which contains the ports, was not seen or not allowed"
	}
	sets := e.wanted[pod.UID]
	names, direction := []string{sets.Ingress, sets.Egress}, d.Direction
	if d.Reason == reasons[bpf.PolicyPolicyReasonPOLICY_REVOKED] && e.sets[names[direction-1]] == nil {
		direction = Ingress + Egress - direction // it is a flow of the other direction, and this an answer
	}
	set := e.sets[names[direction-1]]
	if set == nil {
		return "policies that have since been deleted or changed selected the pod"
	}
	return Isolation(set.Policies, pod.String(), direction)
}

// Drops returns the drops of late, the oldest first, and, until stop is called, a
// channel of those to come. Who does not keep up misses some.
func (e *Enforcer) Drops() (last []Drop, next <-chan Drop, stop func()) { return e.drops.Listen() }

// Verdict is Cluster's, of what is known now.
func (e *Enforcer) Verdict(from, to netip.Addr, protocol Protocol, port uint16) (allowed bool, rule string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cluster.Verdict(from, to, protocol, port)
}

// Policies returns the names of the policies that select a pod for a direction.
func (e *Enforcer) Policies(namespace, pod string, d Direction) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.cluster.pods[name{namespace, pod}]
	if p == nil {
		return nil
	}
	var out []string
	for _, selecting := range e.cluster.selecting(p, d) {
		out = append(out, selecting.String())
	}
	return slices.Compact(out)
}
