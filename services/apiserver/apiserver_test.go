package apiserver

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// as is who a test's client is.
type as = rpctest.As

// start serves an apiserver on the cluster's etcd and returns a connection to it.
func start(t *testing.T, etcd *etcdtest.Cluster) grpc.ClientConnInterface {
	t.Helper()
	return startConfigured(t, DefaultConfig(), etcd)
}

func startConfigured(t *testing.T, cfg Config, etcd *etcdtest.Cluster) grpc.ClientConnInterface {
	t.Helper()
	_, conn := startService(t, cfg, etcd)
	return conn
}

// startService returns also the service, which each change has changed before it ran.
func startService(t *testing.T, cfg Config, etcd *etcdtest.Cluster, changes ...func(*Service)) (*Service, grpc.ClientConnInterface) {
	t.Helper()
	return startServiceWith(t, cfg, etcd.Client(), changes...)
}

// startServiceWith is startService with a client of etcd.
func startServiceWith(t *testing.T, cfg Config, etcd *clientv3.Client, changes ...func(*Service)) (*Service, grpc.ClientConnInterface) {
	t.Helper()
	// The only member of etcd is busy when it does not answer at once: to try again would leave some
	// outcomes unknown.
	cfg.Storage.WriteAttempt = 10 * time.Second
	svc, err := New(cfg, kinds.NewScheme(), etcd, zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel)))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		change(svc)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()

	server := rpctest.HeaderServer()
	svc.Register(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(func() {
		server.Stop()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	select {
	case <-svc.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("the apiserver is not ready after 30 s")
	}
	return svc, conn
}

func admin(conn grpc.ClientConnInterface) *client.Client {
	return client.New(as{ClientConnInterface: conn, User: "alice", Group: authz.GroupAdmins})
}

func decode[T scheme.Object](t *testing.T, json string) T {
	t.Helper()
	o, err := codec.Unmarshal([]byte(json))
	if err != nil {
		t.Fatal(err)
	}
	return o.(T)
}

// waitNamespace waits until the apiserver has made the namespaces default and kube-node-lease.
func waitNamespace(t *testing.T, c *client.Client) {
	t.Helper()
	missing := map[string]bool{"default": true, "kube-node-lease": true}
	for event, err := range client.Watch[*corev1.Namespace](t.Context(), c, client.WatchOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if delete(missing, event.Object.GetMetadata().GetName()); len(missing) == 0 {
			return
		}
	}
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Name: name, Namespace: "default"}, Data: map[string]string{"k": "v"}}
}

func service(name string) *corev1.Service {
	return &corev1.Service{Metadata: &metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: &corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []*corev1.ServicePort{{Port: 80}}}}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{Metadata: &metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: &corev1.PodSpec{Containers: []*corev1.Container{{Name: "c", Image: "i"}}}}
}

func TestObjects(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	conn := start(t, etcd)
	c := admin(conn)
	ctx := t.Context()
	waitNamespace(t, c)

	t.Run("create, read, update, delete", func(t *testing.T) {
		made, err := client.Create(ctx, c, configMap("a"))
		if err != nil {
			t.Fatal(err)
		}
		m := made.GetMetadata()
		if m.GetUid() == "" || m.GetResourceVersion() == "" || m.GetCreationTimestamp() == nil {
			t.Errorf("metadata is not complete: %v", m)
		}
		if _, err := client.Create(ctx, c, configMap("a")); !apierr.IsAlreadyExists(err) {
			t.Errorf("a second create: %v, want AlreadyExists", err)
		}
		got, err := client.Get[*corev1.ConfigMap](ctx, c, "default", "a")
		if err != nil || got.GetMetadata().GetResourceVersion() != m.GetResourceVersion() || got.GetData()["k"] != "v" {
			t.Fatalf("got %v, %v", got, err)
		}
		got.Data["k"] = "w"
		updated, err := client.Update(ctx, c, got)
		if err != nil || updated.GetMetadata().GetResourceVersion() == m.GetResourceVersion() {
			t.Fatalf("update: %v, %v", updated, err)
		}
		if _, err := client.Update(ctx, c, got); !apierr.IsConflict(err) {
			t.Errorf("an update of a stale version: %v, want a conflict", err)
		}
		same, err := client.Update(ctx, c, updated)
		if err != nil || same.GetMetadata().GetResourceVersion() != updated.GetMetadata().GetResourceVersion() {
			t.Errorf("an update without a change made a new version: %v, %v", same, err)
		}
		if removed, err := client.Delete[*corev1.ConfigMap](ctx, c, "default", "a"); err != nil || !removed {
			t.Fatalf("delete: %v, %v", removed, err)
		}
		if _, err := client.Get[*corev1.ConfigMap](ctx, c, "default", "a"); !apierr.IsNotFound(err) {
			t.Errorf("get after delete: %v, want NotFound", err)
		}
	})

	t.Run("generated names differ", func(t *testing.T) {
		cm := configMap("")
		cm.Metadata.GenerateName = "gen-"
		a, err1 := client.Create(ctx, c, cm)
		b, err2 := client.Create(ctx, c, cm)
		if err1 != nil || err2 != nil || a.GetMetadata().GetName() == b.GetMetadata().GetName() || !strings.HasPrefix(a.GetMetadata().GetName(), "gen-") {
			t.Errorf("got %v %v, %v %v", a.GetMetadata().GetName(), err1, b.GetMetadata().GetName(), err2)
		}
	})

	t.Run("bad input", func(t *testing.T) {
		long := configMap(strings.Repeat("a", 254))
		noNamespace := configMap("x")
		noNamespace.Metadata.Namespace = "nowhere"
		huge := configMap("huge")
		huge.BinaryData = map[string][]byte{"b": make([]byte, 3<<20)}
		badDeploy := decode[*appsv1.Deployment](t, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","namespace":"default"},
			"spec":{"replicas":-1,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"c"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`)
		badPort := service("s")
		badPort.Spec.Ports[0].Port = 65536
		for _, tt := range []struct {
			name string
			o    scheme.Object
			want string
		}{
			{"a name of 254 characters", long, "metadata.name"},
			{"no name", configMap(""), "name"},
			{"an absent namespace", noNamespace, `namespaces "nowhere" not found`},
			{"an object of 3 MB", huge, ""},
			{"negative replicas", badDeploy, "spec.replicas"},
			{"a selector that does not match", badDeploy, "spec.template.metadata.labels"},
			{"port 65536", badPort, "spec.ports[0].port"},
		} {
			_, err := client.Create(ctx, c, tt.o)
			if err == nil || !strings.Contains(apierr.Message(err), tt.want) {
				t.Errorf("%s: got %v, want it to mention %q", tt.name, err, tt.want)
			}
		}
	})

	t.Run("a pod is marked, then removed", func(t *testing.T) {
		if _, err := client.Create(ctx, c, pod("p")); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Transact(ctx, c, client.OpBind("default", "p", "", "node-1")); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Transact(ctx, c, client.OpBind("default", "p", "", "node-2")); !apierr.IsConflict(err) {
			t.Errorf("a second binding: %v, want a conflict", err)
		}
		if removed, err := client.Delete[*corev1.Pod](ctx, c, "default", "p"); err != nil || removed {
			t.Fatalf("delete of a bound pod: removed %v, %v; want it marked", removed, err)
		}
		p, err := client.Get[*corev1.Pod](ctx, c, "default", "p")
		if err != nil || p.GetMetadata().GetDeletionTimestamp() == nil || p.GetMetadata().GetDeletionGracePeriodSeconds() != 30 {
			t.Fatalf("got %v, %v", p.GetMetadata(), err)
		}
		if removed, err := client.Delete[*corev1.Pod](ctx, c, "default", "p", client.GracePeriod(0)); err != nil || !removed {
			t.Errorf("delete with grace 0: removed %v, %v", removed, err)
		}
	})

	t.Run("finalizers hold", func(t *testing.T) {
		cm := configMap("held")
		cm.Metadata.Finalizers = []string{"example.com/hold"}
		if _, err := client.Create(ctx, c, cm); err != nil {
			t.Fatal(err)
		}
		if removed, err := client.Delete[*corev1.ConfigMap](ctx, c, "default", "held"); err != nil || removed {
			t.Fatalf("removed %v, %v", removed, err)
		}
		if _, err := client.Patch[*corev1.ConfigMap](ctx, c, "default", "held", []byte(`{"metadata":{"finalizers":null}}`)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Get[*corev1.ConfigMap](ctx, c, "default", "held"); !apierr.IsNotFound(err) {
			t.Errorf("after the last finalizer went: %v, want NotFound", err)
		}
	})

	t.Run("transactions are all or nothing", func(t *testing.T) {
		_, err := client.Transact(ctx, c, client.OpCreate(configMap("t1")), client.OpCreate(configMap("t2")), client.OpCreate(configMap("")))
		if err == nil || !strings.Contains(apierr.Message(err), "operations[2]") {
			t.Errorf("got %v, want an error that names operations[2]", err)
		}
		if _, err := client.Get[*corev1.ConfigMap](ctx, c, "default", "t1"); !apierr.IsNotFound(err) {
			t.Errorf("a part of a failed transaction was done: %v", err)
		}
		if _, err := client.Transact(ctx, c, client.OpCreate(configMap("t1")), client.OpCreate(configMap("t2"))); err != nil {
			t.Fatal(err)
		}
		a, _ := client.Get[*corev1.ConfigMap](ctx, c, "default", "t1")
		b, _ := client.Get[*corev1.ConfigMap](ctx, c, "default", "t2")
		if a.GetMetadata().GetResourceVersion() != b.GetMetadata().GetResourceVersion() {
			t.Errorf("revisions %s and %s differ within a transaction", a.GetMetadata().GetResourceVersion(), b.GetMetadata().GetResourceVersion())
		}
	})

	t.Run("a transaction applies", func(t *testing.T) {
		alice := c.WithFieldManager("alice")
		env := configMap("ta")
		env.Metadata.Finalizers = []string{"a.b/c", "a.b/c"}
		apply := func(objects ...scheme.Object) (*client.Result, error) {
			ops := make([]client.Operation, len(objects))
			for i, o := range objects {
				ops[i] = opApply(o)
			}
			return client.Transact(ctx, alice, ops...)
		}
		changed := configMap("tb")
		changed.Data = map[string]string{"k": "w"}
		for _, step := range []struct {
			second scheme.Object
			want   []apiv1.ApplyResult
		}{
			{configMap("tb"), []apiv1.ApplyResult{apiv1.ApplyResult_APPLY_RESULT_CREATED, apiv1.ApplyResult_APPLY_RESULT_CREATED}},
			{changed, []apiv1.ApplyResult{apiv1.ApplyResult_APPLY_RESULT_UNCHANGED, apiv1.ApplyResult_APPLY_RESULT_CONFIGURED}},
			{changed, []apiv1.ApplyResult{apiv1.ApplyResult_APPLY_RESULT_UNCHANGED, apiv1.ApplyResult_APPLY_RESULT_UNCHANGED}},
		} {
			result, err := apply(env, step.second)
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range step.want {
				got, warnings := result.Applied(i)
				if got != want || (i == 0) != (len(warnings) == 1) {
					t.Errorf("operation %d: %v with warnings %q, want %v", i, got, warnings, want)
				}
			}
		}
		if _, err := apply(configMap("tc"), configMap("")); err == nil || !strings.Contains(apierr.Message(err), "operations[1]") {
			t.Errorf("got %v, want an error that names operations[1]", err)
		}
		if _, err := client.Get[*corev1.ConfigMap](ctx, c, "default", "tc"); !apierr.IsNotFound(err) {
			t.Errorf("a part of a failed transaction was done: %v", err)
		}
		if _, err := client.Transact(ctx, c.WithFieldManager("bob"), opApply(configMap("tb"))); apierr.Reason(err) != apierr.ReasonApplyConflict {
			t.Errorf("got %v, want a conflict with alice", err)
		}
	})

	t.Run("a transaction holds as many writes as it may", func(t *testing.T) {
		ops := make([]client.Operation, client.MaxOperations)
		for i := range ops {
			ops[i] = client.OpCreate(configMap(fmt.Sprintf("many-%d", i)))
		}
		result, err := client.Transact(ctx, c, ops...)
		if err != nil || result.Len() != client.MaxOperations {
			t.Fatalf("%d writes in one transaction: %v", client.MaxOperations, err)
		}
	})

	t.Run("apply", func(t *testing.T) {
		want := func(replicas int) *appsv1.Deployment {
			return decode[*appsv1.Deployment](t, fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"default"},
				"spec":{"replicas":%d,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`, replicas))
		}
		alice, bob := c.WithFieldManager("alice"), c.WithFieldManager("bob")
		for _, step := range []struct {
			by     *client.Client
			n      int
			want   apiv1.ApplyResult
			refuse bool
		}{
			{alice, 2, apiv1.ApplyResult_APPLY_RESULT_CREATED, false},
			{alice, 2, apiv1.ApplyResult_APPLY_RESULT_UNCHANGED, false},
			{alice, 3, apiv1.ApplyResult_APPLY_RESULT_CONFIGURED, false},
			{bob, 4, 0, true},
		} {
			d, result, err := client.Apply(ctx, step.by, want(step.n))
			if step.refuse {
				if apierr.Reason(err) != apierr.ReasonApplyConflict || !strings.Contains(apierr.Message(err), "alice") {
					t.Errorf("apply by another manager: %v, want a conflict that names alice", err)
				}
				continue
			}
			if err != nil || result != step.want || int(d.GetSpec().GetReplicas()) != step.n {
				t.Errorf("apply of %d replicas: %v, %v, %v; want %v", step.n, d.GetSpec().GetReplicas(), result, err, step.want)
			}
		}
		d, err := client.Get[*appsv1.Deployment](ctx, c, "default", "web")
		if err != nil || d.GetMetadata().GetGeneration() != 2 || d.GetSpec().GetStrategy().GetType() != "RollingUpdate" {
			t.Errorf("generation %d, strategy %v, %v; want 2 and the default strategy", d.GetMetadata().GetGeneration(), d.GetSpec().GetStrategy(), err)
		}
	})

	t.Run("fenced writes end with the election", func(t *testing.T) {
		service := client.New(as{ClientConnInterface: conn, User: "xebec:collector", Group: authz.GroupServices})
		lease, err := client.KeepLease(ctx, service, 5*time.Second, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		won, err := client.Create(ctx, service, &coordinationv1.Lease{Metadata: &metav1.ObjectMeta{Namespace: "kube-system", Name: "collector"}}, client.UnderLease(lease.ID()))
		if err != nil {
			t.Fatal(err)
		}
		fenced := c.WithFence(&apiv1.Fence{Namespace: "kube-system", Name: "collector", CreateRevision: won.GetMetadata().GetResourceVersion()})
		if _, err := client.Create(ctx, fenced, configMap("fenced")); err != nil {
			t.Fatal(err)
		}
		if err := lease.Revoke(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Create(ctx, fenced, configMap("late")); !apierr.IsElectionLost(err) {
			t.Errorf("a write under a lost election: %v", err)
		}
		if _, err := client.Get[*coordinationv1.Lease](ctx, c, "kube-system", "collector"); !apierr.IsNotFound(err) {
			t.Errorf("the object outlived its lease: %v", err)
		}
	})

	t.Run("a node may not act for another", func(t *testing.T) {
		node := client.New(as{ClientConnInterface: conn, User: "system:node:node-1", Group: authz.GroupNodes})
		n := &corev1.Node{Metadata: &metav1.ObjectMeta{Name: "node-2"}}
		if _, err := client.Create(ctx, node, n); !apierr.IsForbidden(err) {
			t.Errorf("got %v, want a refusal", err)
		}
		if _, _, err := client.List[*corev1.Pod](ctx, node, client.ListOptions{}); !apierr.IsForbidden(err) {
			t.Errorf("listing all pods: %v, want a refusal", err)
		}
		if _, _, err := client.List[*corev1.Pod](ctx, node, client.ListOptions{FieldSelector: "spec.nodeName=node-1"}); err != nil {
			t.Errorf("listing its own pods: %v", err)
		}
	})
}

// TestNodePorts makes services at two apiservers at once and expects every port to be given once,
// and back when it is no longer wanted.
func TestNodePorts(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	first, second := admin(start(t, etcd)), admin(start(t, etcd))
	ctx := t.Context()
	waitNamespace(t, first)
	waitNamespace(t, second)
	open := func(name string, ports ...int32) *corev1.Service {
		s := service(name)
		s.Spec.Type, s.Spec.Ports = "NodePort", nil
		for i, p := range ports {
			s.Spec.Ports = append(s.Spec.Ports, &corev1.ServicePort{Name: fmt.Sprint("p", i), Port: int32(80 + i), NodePort: p})
		}
		return s
	}
	held := func(what string, want int) {
		t.Helper()
		list, _, err := client.List[*networkingv1.NodePort](ctx, second, client.ListOptions{})
		if err != nil || len(list) != want {
			t.Errorf("%s: %d ports are allocated, want %d (%v)", what, len(list), want, err)
		}
	}
	var mu sync.Mutex
	given := map[int32]string{}
	var wg sync.WaitGroup
	for i, c := range []*client.Client{first, second} {
		wg.Go(func() {
			for n := range 20 {
				svc, err := client.Create(ctx, c, open(fmt.Sprintf("s-%d-%d", i, n), 0, 0))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, p := range svc.GetSpec().GetPorts() {
					if other, twice := given[p.GetNodePort()]; twice || p.GetNodePort() == 0 {
						t.Errorf("%d given to %s and %s", p.GetNodePort(), other, svc.GetMetadata().GetName())
					}
					given[p.GetNodePort()] = svc.GetMetadata().GetName()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	held("40 services of two ports", 80)

	// Of two services that request one port at two apiservers at the same time, only one gets it.
	var wanted int32 = 30000
	for given[wanted] != "" {
		wanted++
	}
	results := make([]error, 2)
	for i, c := range []*client.Client{first, second} {
		wg.Go(func() { _, results[i] = client.Create(ctx, c, open(fmt.Sprint("wants-", i), wanted)) })
	}
	wg.Wait()
	if (results[0] == nil) == (results[1] == nil) || !apierr.IsInvalid(cmp.Or(results[0], results[1])) {
		t.Errorf("one port for two services: %v and %v", results[0], results[1])
	}
	held("one more", 81)

	svc, err := client.Get[*corev1.Service](ctx, first, "default", "s-0-0")
	if err != nil {
		t.Fatal(err)
	}
	kept := svc.GetSpec().GetPorts()[0].GetNodePort()
	again := open("s-0-0", 0, 0) // as a manifest that is applied again
	if svc, err = client.Update(ctx, first, again); err != nil || svc.GetSpec().GetPorts()[0].GetNodePort() != kept {
		t.Errorf("ports are %v, %v, want the first to be %d still", svc.GetSpec().GetPorts(), err, kept)
	}
	held("an update that leaves ports out", 81)
	if _, err := client.Update(ctx, first, open("s-0-0", kept)); err != nil {
		t.Error(err)
	}
	held("a port less", 80)
	if _, err := client.Update(ctx, first, service("s-0-0")); err != nil {
		t.Error(err)
	}
	held("of type ClusterIP", 79)
	if svc, err := client.Create(ctx, second, open("heir", kept)); err != nil || svc.GetSpec().GetPorts()[0].GetNodePort() != kept {
		t.Errorf("a port that was given back: %v, %v", svc.GetSpec().GetPorts(), err)
	}
	if _, err := client.Delete[*corev1.Service](ctx, first, "default", "s-0-1"); err != nil {
		t.Error(err)
	}
	held("after a deletion", 78)
	both := open("both", 0, 0)
	both.Spec.Ports[0].NodePort, both.Spec.Ports[1].NodePort, both.Spec.Ports[1].Protocol = kept, wanted, "UDP"
	if _, err := client.Create(ctx, first, both); !apierr.IsInvalid(err) || !strings.Contains(err.Error(), "spec.ports[0].nodePort") {
		t.Errorf("a TCP port in use and a UDP one that is not: %v", err)
	}
	held("after a refusal", 78)

	// Load balancers that keep traffic on its node have a port more, for the node's health.
	balancer := func(name, policy string, health int32) *corev1.Service {
		s := open(name, 0)
		s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = "LoadBalancer", policy, health
		return s
	}
	lb, err := client.Create(ctx, first, balancer("lb", "Local", 0))
	if err != nil || lb.GetSpec().GetHealthCheckNodePort() == 0 {
		t.Fatalf("no health-check port: %v, %v", lb.GetSpec(), err)
	}
	held("a load balancer", 80)
	if svc, err := client.Update(ctx, second, balancer("lb", "Local", 0)); err != nil || svc.GetSpec().GetHealthCheckNodePort() != lb.GetSpec().GetHealthCheckNodePort() {
		t.Errorf("applied again: %v, %v", svc.GetSpec(), err)
	}
	if _, err := client.Update(ctx, second, balancer("lb", "Local", wanted)); !apierr.IsInvalid(err) {
		t.Errorf("another health-check port: %v", err)
	}
	for _, port := range []int32{lb.GetSpec().GetHealthCheckNodePort(), lb.GetSpec().GetPorts()[0].GetNodePort()} {
		if _, err := client.Create(ctx, second, balancer("other", "Local", port)); !apierr.IsInvalid(err) || !strings.Contains(err.Error(), "spec.healthCheckNodePort") {
			t.Errorf("health-check port %d, which is taken: %v", port, err)
		}
	}
	if _, err := client.Update(ctx, first, balancer("lb", "Cluster", 0)); err != nil {
		t.Error(err)
	}
	held("a load balancer that spreads its traffic", 79)
	without := balancer("without", "Local", 0)
	without.Spec.AllocateLoadBalancerNodePorts = proto.Bool(false)
	if svc, err := client.Create(ctx, first, without); err != nil || svc.GetSpec().GetPorts()[0].GetNodePort() != 0 || svc.GetSpec().GetHealthCheckNodePort() == 0 {
		t.Errorf("a load balancer without node ports: %v, %v", svc.GetSpec(), err)
	}
	held("a load balancer without node ports", 80)
}

// TestClusterIPs makes services at two apiservers at once and expects every address to be given
// once.
func TestClusterIPs(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	first, second := admin(start(t, etcd)), admin(start(t, etcd))
	ctx := t.Context()
	waitNamespace(t, first)
	waitNamespace(t, second)

	const each = 40
	var mu sync.Mutex
	given := map[string]string{}
	var wg sync.WaitGroup
	for i, c := range []*client.Client{first, second} {
		wg.Go(func() {
			for n := range each {
				svc, err := client.Create(ctx, c, service(fmt.Sprintf("s-%d-%d", i, n)))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				ip := svc.GetSpec().GetClusterIp()
				if other, twice := given[ip]; twice || ip == "" {
					t.Errorf("%q given to %s and %s", ip, other, svc.GetMetadata().GetName())
				}
				given[ip] = svc.GetMetadata().GetName()
				mu.Unlock()
			}
		})
	}
	wg.Wait()

	taken := service("taken")
	for ip := range given {
		taken.Spec.ClusterIp = ip
	}
	if _, err := client.Create(ctx, first, taken); !apierr.IsInvalid(err) {
		t.Errorf("an address in use was given again: %v", err)
	}
	taken.Spec.ClusterIp = "192.0.2.1"
	if _, err := client.Create(ctx, first, taken); !apierr.IsInvalid(err) {
		t.Errorf("an address outside the range was given: %v", err)
	}
	if _, err := client.Delete[*corev1.Service](ctx, first, "default", "s-0-0"); err != nil {
		t.Fatal(err)
	}
	left, _, err := client.List[*networkingv1.IPAddress](ctx, second, client.ListOptions{})
	if err != nil || len(left) != 2*each-1 {
		t.Errorf("%d addresses are allocated after a deletion, want %d (%v)", len(left), 2*each-1, err)
	}
	for _, a := range left {
		if a.GetSpec().GetParentRef().GetName() != given[a.GetMetadata().GetName()] {
			t.Errorf("%s belongs to %q, want %q", a.GetMetadata().GetName(), a.GetSpec().GetParentRef().GetName(), given[a.GetMetadata().GetName()])
		}
	}
}
