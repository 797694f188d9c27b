package controllers

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/agent/drain"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	endpointsv1 "github.com/xebec-project/xebec/proto/xebec/endpoints/v1"
	"github.com/xebec-project/xebec/services/endpoints"
)

// instances is connections to all instances of a service, which streams are made on in turn, as the
// gateway does.
type instances struct {
	grpc.ClientConnInterface
	conns []*grpc.ClientConn
	next  atomic.Int64
}

func (i *instances) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return i.conns[int(i.next.Add(1))%len(i.conns)].NewStream(ctx, desc, method, opts...)
}

// runEndpoints runs instances of the endpoints service. The stops are by instance, as elections
// name them.
func runEndpoints(t *testing.T, h *house, hosts ...string) (*instances, map[string]func()) {
	t.Helper()
	all, stops := &instances{}, map[string]func(){}
	for _, host := range hosts {
		svc, err := endpoints.New(endpoints.Config{LeaseTTL: 3 * time.Second}, endpoints.Deps{Host: host, Client: h.service("endpoints"), Logger: logger(t)})
		if err != nil {
			t.Fatal(err)
		}
		server := rpctest.HeaderServer()
		svc.Register(server)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = server.Serve(l) }() // It fails only by Stop.
		t.Cleanup(server.Stop)
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		all.conns = append(all.conns, conn)
		stops["endpoints@"+host] = run(t, svc.Run)
	}
	return all, stops
}

func nodeAs(conn grpc.ClientConnInterface, name string) as {
	return as{ClientConnInterface: conn, User: "system:node:" + name, Group: "system:nodes"}
}

// drainer is a node whose service maps are programmed when the test lets them.
type drainer struct {
	*drain.Coordinator
	// held is true while the node programs nothing.
	held    atomic.Bool
	reached atomic.Int64
	stop    func()
}

func (d *drainer) program(revision int64) {
	d.reached.Store(revision)
	if !d.held.Load() {
		d.Programmed(revision)
	}
}

func (d *drainer) release() {
	d.held.Store(false)
	d.Programmed(d.reached.Load())
}

func runDrainer(t *testing.T, h *house, api grpc.ClientConnInterface, name string) *drainer {
	t.Helper()
	c := client.New(nodeAs(h.conn, name))
	services, slices := client.NewInformer(c, client.InformerOptions[*corev1.Service]{}), client.NewInformer(c, client.InformerOptions[*discoveryv1.EndpointSlice]{})
	d := &drainer{Coordinator: drain.New(drain.Config{
		Node: name, Endpoints: endpointsv1.NewEndpointsServiceClient(nodeAs(api, name)), Services: services, Slices: slices, Log: logger(t),
	})}
	services.OnChange(d.OnService)
	slices.OnChange(d.OnEndpointSlice)
	slices.OnProgress(d.program)
	run(t, services.Run)
	run(t, slices.Run)
	d.stop = run(t, d.Run)
	return d
}

// drained is the outcome of waiting for a pod to leave.
type drained struct {
	err   error
	after time.Duration
}

func (d *drainer) leave(t *testing.T, p *corev1.Pod, limit time.Duration) <-chan drained {
	t.Helper()
	out := make(chan drained, 1)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	began := time.Now()
	go func() {
		defer cancel()
		err := d.Left(ctx, p, false)
		out <- drained{err, time.Since(began)}
	}()
	return out
}

// heldUpBy waits in vain for a pod to leave, until the error names the node that has not
// acknowledged: which one that is takes a moment to be known.
func (d *drainer) heldUpBy(t *testing.T, p *corev1.Pod, name string) {
	t.Helper()
	eventually(t, p.Metadata.Name+" is held up by "+name, func() bool {
		got := <-d.leave(t, p, 500*time.Millisecond)
		if got.err == nil {
			t.Fatalf("%s has left after %v, although %s has not programmed it", p.Metadata.Name, got.after, name)
		}
		return strings.Contains(got.err.Error(), name)
	})
}

// deleted makes a ready pod behind service web, and deletes it.
func deleted(t *testing.T, c *client.Client, name, ip string) *corev1.Pod {
	t.Helper()
	running(t, c, create(t, c, pod("default", name)), ip, true)
	eventually(t, name+" is an endpoint", func() bool {
		all, _, err := client.List[*discoveryv1.EndpointSlice](t.Context(), c, client.ListOptions{LabelSelector: "kubernetes.io/service-name=web"})
		return err == nil && len(all) > 0 && strings.Contains(all[0].String(), ip)
	})
	return deletePod(t, c, name)
}

func deletePod(t *testing.T, c *client.Client, name string) *corev1.Pod {
	t.Helper()
	if _, err := client.Delete[*corev1.Pod](t.Context(), c, "default", name); err != nil {
		t.Fatal(err)
	}
	return get[*corev1.Pod](t, c, "default", name)
}

func webService(t *testing.T, c *client.Client) {
	t.Helper()
	create(t, c, &corev1.Service{
		Metadata: meta("default", "web"),
		Spec:     &corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []*corev1.ServicePort{{Name: "http", Port: 80}}},
	})
}

func TestPodLeavesEveryNode(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	api, stops := runEndpoints(t, h, "master-1", "master-2")
	node(t, c, "node-1")
	node(t, c, "node-2")
	one, two := runDrainer(t, h, api, "node-1"), runDrainer(t, h, api, "node-2")
	webService(t, c)

	p := deleted(t, c, "prompt", "10.244.0.2")
	if got := <-one.leave(t, p, 10*time.Second); got.err != nil {
		t.Fatalf("with all nodes at work: %v", got.err)
	} else {
		t.Logf("all nodes had dropped the pod after %v", got.after)
	}
	other := pod("default", "alone")
	other.Metadata.Labels = nil
	if got := <-one.leave(t, running(t, c, create(t, c, other), "10.244.0.3", true), 10*time.Second); got.err != nil {
		t.Errorf("a pod that no service selects: %v", got.err)
	}

	two.held.Store(true)
	p = deleted(t, c, "held-up", "10.244.0.4")
	one.heldUpBy(t, p, "node-2")
	wait := one.leave(t, p, 10*time.Second)
	two.release()
	if got := <-wait; got.err != nil {
		t.Errorf("once node-2 has programmed: %v", got.err)
	}

	// Another leads: nodes send it everything again.
	two.held.Store(true)
	p = deleted(t, c, "handed-over", "10.244.0.5")
	wait = one.leave(t, p, 30*time.Second)
	var leader string
	eventually(t, "one leads", func() bool { leader = election(t, c); return leader != "" })
	stops[leader]()
	eventually(t, "the other leads", func() bool { l := election(t, c); return l != "" && l != leader })
	select {
	case got := <-wait:
		t.Fatalf("left after %v, %v, while node-2 had not programmed it", got.after, got.err)
	default:
	}
	two.release()
	if got := <-wait; got.err != nil {
		t.Errorf("across a change of the leader: %v", got.err)
	}

	// An agent that is gone holds pods up until its node is not ready any more.
	two.stop()
	p = deleted(t, c, "silent-node", "10.244.0.6")
	one.heldUpBy(t, p, "node-2")
	wait = one.leave(t, p, 10*time.Second)
	setReady(t, c, "node-2", "Unknown")
	if got := <-wait; got.err != nil {
		t.Errorf("once node-2 is not ready: %v", got.err)
	}

	for _, stop := range stops {
		stop()
	}
	// No leader, but also nothing that would change the slices: what counts is that the wait is
	// bounded.
	running(t, c, create(t, c, pod("default", "late")), "10.244.0.7", true)
	late := deletePod(t, c, "late")
	if got := <-one.leave(t, late, 300*time.Millisecond); got.err == nil || got.after > 20*time.Second {
		t.Errorf("without the endpoints service: %v after %v", got.err, got.after)
	}
}

// election returns the leader of the endpoints service, empty while there is none.
func election(t *testing.T, c *client.Client) string {
	t.Helper()
	l, err := client.Get[*coordinationv1.Lease](t.Context(), c, "kube-system", "endpoints")
	if err != nil {
		return ""
	}
	return l.GetSpec().GetHolderIdentity()
}

func setReady(t *testing.T, c *client.Client, name, to string) {
	t.Helper()
	eventually(t, name+" is "+to, func() bool {
		n := get[*corev1.Node](t, c, "", name)
		n.Status.Conditions[0].Status = to
		_, err := client.UpdateStatus(t.Context(), c, n)
		return err == nil
	})
}

// TestAcknowledgeIsTheNodesOwn has others speak for a node.
func TestAcknowledgeIsTheNodesOwn(t *testing.T) {
	h := newHouse(t)
	api, _ := runEndpoints(t, h, "master-1")
	for _, caller := range []as{nodeAs(api, "node-2"), {ClientConnInterface: api, User: "admin", Group: "system:masters"}} {
		stream, err := endpointsv1.NewEndpointsServiceClient(caller).Acknowledge(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&endpointsv1.AcknowledgeRequest{Node: "node-1", Programmed: 1 << 40}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s as node-1: %v, want a refusal", caller.User, err)
		}
	}
}

// TestHundredNodes measures what a pod's leaving costs with a hundred nodes, and that it costs
// nothing while no pod leaves.
func TestHundredNodes(t *testing.T) {
	const nodes, pods = 100, 20
	h := newHouse(t)
	c := h.admin()
	api, _ := runEndpoints(t, h, "master-1")
	webService(t, c)
	var messages atomic.Int64
	for i := range nodes - 1 {
		name := fmt.Sprintf("far-%d", i)
		node(t, c, name)
		run(t, func(ctx context.Context) error { return echo(ctx, nodeAs(api, name), name, &messages) })
	}
	node(t, c, "node-1")
	one := runDrainer(t, h, api, "node-1")
	if got := <-one.leave(t, deleted(t, c, "first", "10.244.1.1"), 10*time.Second); got.err != nil {
		t.Fatal(got.err)
	}
	before := messages.Load()
	var leave []*corev1.Pod
	for i := range pods {
		leave = append(leave, running(t, c, create(t, c, pod("default", fmt.Sprintf("web-%d", i))), fmt.Sprintf("10.244.0.%d", i+2), true))
	}
	eventually(t, "all are endpoints", func() bool {
		all, _, err := client.List[*discoveryv1.EndpointSlice](t.Context(), c, client.ListOptions{LabelSelector: "kubernetes.io/service-name=web"})
		return err == nil && len(all) > 0 && len(all[0].GetEndpoints()) >= pods
	})
	if n := messages.Load() - before; n > 0 {
		t.Errorf("%d messages while no pod leaves", n)
	}
	var waits []<-chan drained
	for _, p := range leave {
		waits = append(waits, one.leave(t, deletePod(t, c, p.Metadata.Name), 20*time.Second))
	}
	var longest time.Duration
	for _, w := range waits {
		got := <-w
		if got.err != nil {
			t.Fatal(got.err)
		}
		longest = max(longest, got.after)
	}
	n := messages.Load() - before
	t.Logf("%d pods left %d nodes with %d messages, the slowest after %v", pods, nodes, n, longest)
	if n > pods*nodes {
		t.Errorf("%d messages for %d pods and %d nodes", n, pods, nodes)
	}
}

// echo is a node that has programmed whatever others wait for, and counts what it tells.
func echo(ctx context.Context, conn grpc.ClientConnInterface, name string, messages *atomic.Int64) error {
	for ctx.Err() == nil {
		stream, err := endpointsv1.NewEndpointsServiceClient(conn).Acknowledge(ctx)
		if err != nil {
			continue
		}
		answer := &endpointsv1.AcknowledgeRequest{Node: name}
		for err = stream.Send(answer); err == nil; {
			var news *endpointsv1.AcknowledgeResponse
			if news, err = stream.Recv(); err != nil || news.GetWanted() <= answer.GetProgrammed() {
				continue
			}
			answer = &endpointsv1.AcknowledgeRequest{Programmed: news.GetWanted()}
			messages.Add(1)
			err = stream.Send(answer)
		}
	}
	return ctx.Err()
}
