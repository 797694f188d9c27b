// Package controllers tests the services endpoints and collector against the real apiserver on a
// real etcd, each with no more rights than its own certificate gives it.
package controllers

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver"
	"github.com/xebec-project/xebec/services/collector"
	"github.com/xebec-project/xebec/services/endpoints"
)

// as is who a test's client is.
type as = rpctest.As

// house is an apiserver with what calls it.
type house struct{ conn *grpc.ClientConn }

func newHouse(t *testing.T) *house {
	t.Helper()
	etcd := etcdtest.New(t, 1)
	cfg := apiserver.DefaultConfig()
	// The only member of etcd is busy when it does not answer at once: to try again would leave some
	// outcomes unknown.
	cfg.Storage.WriteAttempt = 10 * time.Second
	svc, err := apiserver.New(cfg, kinds.NewScheme(), etcd.Client(), logger(t))
	if err != nil {
		t.Fatal(err)
	}
	run(t, svc.Run)
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
	h := &house{conn}
	<-svc.Ready()
	eventually(t, "the namespaces of a new cluster", func() bool {
		all, _, err := client.List[*corev1.Namespace](t.Context(), h.admin(), client.ListOptions{})
		return err == nil && len(all) >= 4
	})
	return h
}

func (h *house) admin() *client.Client {
	return client.New(as{ClientConnInterface: h.conn, User: "admin", Group: "system:masters"})
}

func (h *house) service(name string) *client.Client {
	return client.New(as{ClientConnInterface: h.conn, User: "xebec:" + name, Group: "xebec:services"})
}

func logger(t *testing.T) *zap.Logger {
	t.Helper()
	return zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))
}

// run runs f until the returned stop, or the test's end.
func run(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// eventually polls until cond holds and returns how long that took.
func eventually(t *testing.T, what string, cond func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for time.Since(begun) < 30*time.Second {
		if cond() {
			return time.Since(begun)
		}
		<-tick.C
	}
	t.Fatalf("waited 30 s in vain: %s", what)
	return 0
}

func create[T scheme.Object](t *testing.T, c *client.Client, obj T) T {
	t.Helper()
	stored, err := client.Create(t.Context(), c, obj)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func pod(namespace, name string) *corev1.Pod {
	return &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": "web"}},
		Spec:     &corev1.PodSpec{Containers: []*corev1.Container{{Name: "c", Image: "example/echo:1"}}},
	}
}

// running binds a pod and reports it running at an address, ready or not, as scheduler and agent
// would.
func running(t *testing.T, c *client.Client, p *corev1.Pod, ip string, ready bool) *corev1.Pod {
	t.Helper()
	if p.GetSpec().GetNodeName() == "" {
		if _, err := client.Transact(t.Context(), c, client.OpBind(p.Metadata.Namespace, p.Metadata.Name, "", "node-1")); err != nil {
			t.Fatal(err)
		}
	}
	p, err := client.Get[*corev1.Pod](t.Context(), c, p.Metadata.Namespace, p.Metadata.Name)
	if err != nil {
		t.Fatal(err)
	}
	status := "False"
	if ready {
		status = "True"
	}
	p.Status = &corev1.PodStatus{
		Phase: "Running", PodIp: ip, PodIps: []*corev1.PodIP{{Ip: ip}},
		Conditions: []*corev1.PodCondition{{Type: "Ready", Status: status}},
	}
	if p, err = client.UpdateStatus(t.Context(), c, p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEndpoints(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	stops := map[string]func(){}
	for _, host := range []string{"master-1", "master-2"} {
		svc, err := endpoints.New(endpoints.Config{LeaseTTL: 3 * time.Second}, endpoints.Deps{Host: host, Client: h.service("endpoints"), Logger: logger(t)})
		if err != nil {
			t.Fatal(err)
		}
		stops["endpoints@"+host] = run(t, svc.Run)
	}
	svc := create(t, c, &corev1.Service{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: &corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"},
			Ports:    []*corev1.ServicePort{{Name: "http", Port: 80, TargetPort: &metav1.IntOrString{IntVal: 8080}}},
		},
	})
	if svc.GetSpec().GetClusterIp() == "" {
		t.Error("the service has no cluster IP")
	}
	ready := func() (n int) {
		all, _, err := client.List[*discoveryv1.EndpointSlice](t.Context(), c, client.ListOptions{LabelSelector: "kubernetes.io/service-name=web"})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			for _, ep := range e.GetEndpoints() {
				if ep.GetConditions().GetReady() {
					n++
				}
			}
		}
		return n
	}
	var pods []*corev1.Pod
	for n := range 3 {
		p := create(t, c, pod("default", fmt.Sprintf("web-%d", n)))
		pods = append(pods, running(t, c, p, fmt.Sprintf("10.244.0.%d", n+2), true))
	}
	eventually(t, "three endpoints", func() bool { return ready() == 3 })
	var took []time.Duration
	for n := range 10 {
		running(t, c, pods[0], "10.244.0.2", n%2 == 1)
		took = append(took, eventually(t, "the readiness shows", func() bool { return ready() == 2+n%2 }))
	}
	slices.Sort(took)
	t.Logf("from readiness to slice, polled: median %v, most %v", took[len(took)/2], took[len(took)-1])
	if took[0] > time.Second {
		t.Errorf("readiness takes %v at best to show", took[0])
	}

	var leader string
	eventually(t, "one leads", func() bool { leader = election(t, c); return leader != "" })
	stops[leader]()
	delete(stops, leader)
	d := eventually(t, "the other leads", func() bool { l := election(t, c); return l != "" && l != leader })
	t.Logf("handed over after %v", d)
	running(t, c, pods[1], "10.244.0.3", false)
	eventually(t, "the new leader works", func() bool { return ready() == 2 })
}

func TestCollector(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	svc, err := collector.New(collector.Config{}, collector.Deps{
		Deps: elected.Deps{Host: "master-1", Client: h.service("collector"), Logger: logger(t)}, Scheme: kinds.NewScheme(),
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, svc.Run)
	configMap := func(namespace, name string, owners ...scheme.Object) *corev1.ConfigMap {
		m := &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Namespace: namespace, Name: name}}
		for _, o := range owners {
			ref := kinds.NewOwnerRef(o)
			ref.BlockOwnerDeletion = proto.Bool(true)
			m.Metadata.OwnerReferences = append(m.Metadata.OwnerReferences, ref)
		}
		return create(t, c, m)
	}
	gone := func(namespace, name string) bool {
		_, err := client.Get[*corev1.ConfigMap](t.Context(), c, namespace, name)
		return apierr.IsNotFound(err)
	}
	for name, policy := range map[string]client.DeleteOption{"background": client.Background, "foreground": client.Foreground} {
		owner := configMap("default", name)
		middle := configMap("default", name+"-middle", owner)
		configMap("default", name+"-leaf", middle)
		if _, err := client.Delete[*corev1.ConfigMap](t.Context(), c, "default", name, policy); err != nil {
			t.Fatal(err)
		}
		d := eventually(t, name+": all gone", func() bool {
			return gone("default", name) && gone("default", name+"-middle") && gone("default", name+"-leaf")
		})
		t.Logf("%s: all gone after %v", name, d)
	}
	owner := configMap("default", "orphaned")
	configMap("default", "left", owner)
	if _, err := client.Delete[*corev1.ConfigMap](t.Context(), c, "default", "orphaned", client.Orphan); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the owner gone", func() bool { return gone("default", "orphaned") })
	if m, err := client.Get[*corev1.ConfigMap](t.Context(), c, "default", "left"); err != nil || len(m.Metadata.OwnerReferences) != 0 {
		t.Errorf("the orphan: %v, %v", m, err)
	}

	create(t, c, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "team"}})
	for n := range 20 {
		configMap("team", fmt.Sprint("m-", n))
	}
	create(t, c, pod("team", "unbound"))
	bound := running(t, c, create(t, c, pod("team", "bound")), "10.244.0.9", true)
	if _, err := client.Delete[*corev1.Namespace](t.Context(), c, "", "team"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "only the bound pod is left", func() bool {
		maps, _, err := client.List[*corev1.ConfigMap](t.Context(), c, client.ListOptions{Namespace: "team"})
		pods, _, podErr := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{Namespace: "team"})
		return err == nil && podErr == nil && len(maps) == 0 && len(pods) == 1 && pods[0].GetMetadata().GetDeletionTimestamp() != nil
	})
	eventually(t, "the condition says so", func() bool {
		ns, err := client.Get[*corev1.Namespace](t.Context(), c, "", "team")
		return err == nil && slices.ContainsFunc(ns.GetStatus().GetConditions(), func(c *corev1.NamespaceCondition) bool {
			return c.GetType() == "NamespaceContentRemaining" && c.GetStatus() == "True"
		})
	})
	// The agent has stopped it.
	if _, err := client.Delete[*corev1.Pod](t.Context(), c, "team", "bound", client.GracePeriod(0), client.IfUID(bound.Metadata.Uid)); err != nil {
		t.Fatal(err)
	}
	d := eventually(t, "the namespace gone", func() bool {
		_, err := client.Get[*corev1.Namespace](t.Context(), c, "", "team")
		return apierr.IsNotFound(err)
	})
	t.Logf("the namespace is gone %v after its last object", d)
}
