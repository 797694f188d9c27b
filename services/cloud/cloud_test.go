package cloud

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

type bed struct {
	t *testing.T
	s *clienttest.Server
	c *client.Client
}

// start runs the service with these pools until the test ends.
func start(t *testing.T, pools ...string) bed {
	t.Helper()
	s, c := clienttest.Start(t)
	cfg := DefaultConfig()
	cfg.Pools = pools
	svc, err := New(cfg, Deps{Host: "master-1", Client: c})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = svc.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	b := bed{t, s, c}
	b.settle()
	return b
}

// settle lets the service come to rest.
func (b bed) settle() {
	<-time.After(2 * time.Second)
	synctest.Wait()
}

func balancer(name string, change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:     &corev1.ServiceSpec{Type: "LoadBalancer", Ports: []*corev1.ServicePort{{Port: 80, Protocol: "TCP"}}},
	}
	for _, f := range change {
		f(s)
	}
	return s
}

func wish(ip string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.LoadBalancerIp = ip }
}

func ofClass(class string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.LoadBalancerClass = proto.String(class) }
}

func ofPool(name string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Metadata.Annotations = map[string]string{annotationPool: name} }
}

func (b bed) get(name string) *corev1.Service {
	b.t.Helper()
	svc, err := client.Get[*corev1.Service](b.t.Context(), b.c, "default", name)
	if err != nil {
		b.t.Fatal(err)
	}
	return svc
}

// expect checks the addresses that a service shows, in their order; empty stands for none.
func (b bed) expect(name string, want ...string) {
	b.t.Helper()
	want = slices.DeleteFunc(want, func(s string) bool { return s == "" })
	var got []string
	for _, in := range b.get(name).GetStatus().GetLoadBalancer().GetIngress() {
		got = append(got, in.GetIp())
		if in.GetIpMode() != "VIP" {
			b.t.Errorf("%s shows %v", name, in)
		}
	}
	if !slices.Equal(got, want) {
		b.t.Errorf("%s shows %q, want %q", name, got, want)
	}
}

// allocated checks which addresses are allocated, and to which services.
func (b bed) allocated(want map[string]string) {
	b.t.Helper()
	all, _, err := client.List[*networkingv1.IPAddress](b.t.Context(), b.c, client.ListOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, a := range all {
		if holder := a.GetSpec().GetParentRef().GetName(); want[a.GetMetadata().GetName()] != holder {
			b.t.Errorf("%s is allocated to %s, want %q", a.GetMetadata().GetName(), holder, want[a.GetMetadata().GetName()])
		}
	}
	if len(all) != len(want) {
		b.t.Errorf("%d addresses are allocated, want %d", len(all), len(want))
	}
}

// hasEvent checks that a service has an event with these words.
func (b bed) hasEvent(name, words string) {
	b.t.Helper()
	all, _, err := client.List[*corev1.Event](b.t.Context(), b.c, client.ListOptions{Namespace: "default"})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range all {
		if e.GetInvolvedObject().GetName() == name && strings.Contains(e.GetMessage(), words) {
			return
		}
	}
	b.t.Errorf("no event on %s says %q: %v", name, words, all)
}

func TestAddressesComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, "192.0.2.64/29")
		clienttest.Seed(b.s, balancer("a"))
		b.settle()
		clienttest.Seed(b.s, balancer("b", wish("192.0.2.67")), balancer("other", ofClass("example.com/lb")), balancer("ours", ofClass("xebec.io/pool")))
		b.settle()
		b.expect("a", "192.0.2.65")
		b.expect("b", "192.0.2.67")
		b.expect("other", "")
		b.expect("ours", "192.0.2.66")
		b.hasEvent("a", "Allocated address 192.0.2.65")

		// Deleted, and turned into another type.
		clienttest.Remove(b.s, b.get("a"))
		turned := b.get("b")
		turned.Spec.Type, turned.Spec.LoadBalancerIp = "ClusterIP", ""
		clienttest.Seed(b.s, turned)
		b.settle()
		b.expect("b", "")
		b.allocated(map[string]string{"192.0.2.66": "ours"})

		// A later wish moves the service; what it had is free at once.
		moved := b.get("ours")
		moved.Spec.LoadBalancerIp = "192.0.2.70"
		clienttest.Seed(b.s, moved)
		b.settle()
		b.expect("ours", "192.0.2.70")
		b.allocated(map[string]string{"192.0.2.70": "ours"})
	})
}

func TestUnallocatableAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, "192.0.2.64/30", "vip=198.51.100.0/31")
		clienttest.Seed(b.s,
			balancer("a", wish("192.0.2.65")), balancer("outside", wish("203.0.113.1")), balancer("nopool", ofPool("gold")),
			balancer("vip", ofPool("vip")))
		b.settle()
		clienttest.Seed(b.s, balancer("b", wish("192.0.2.65")))
		b.settle()
		clienttest.Seed(b.s, balancer("c"))
		b.settle()
		clienttest.Seed(b.s, balancer("d"))
		b.settle()
		b.expect("a", "192.0.2.65")
		b.expect("b", "")
		b.hasEvent("b", "192.0.2.65 is allocated already")
		b.expect("outside", "")
		b.hasEvent("outside", "is in no pool; there are default=192.0.2.64/30, vip=198.51.100.0/31")
		b.expect("nopool", "")
		b.hasEvent("nopool", `there is no pool "gold"`)
		b.expect("vip", "198.51.100.0")
		b.expect("c", "192.0.2.66")
		b.expect("d", "")
		b.hasEvent("d", `every IPv4 address of pool "default" is allocated`)

		// Who waits gets what comes free without being touched.
		clienttest.Remove(b.s, b.get("c"))
		b.settle()
		b.expect("d", "192.0.2.66")
		clienttest.Remove(b.s, b.get("a"))
		b.settle()
		b.expect("b", "192.0.2.65")
	})
}

// What is allocated while no instance leads, or by one who died halfway, is put in order by the
// next leader.
func TestLeaderFindsWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		clienttest.Seed(b.s, balancer("pending"))
		b.settle()
		b.hasEvent("pending", "no pool of addresses is configured")
		svc := clienttest.Seed(b.s, balancer("kept"))[0]
		clienttest.Seed(b.s, allocation(svc, addr("192.0.2.70")), allocation(balancer("gone"), addr("192.0.2.65")),
			// Another service by the same name had it.
			allocation(balancer("pending", func(s *corev1.Service) { s.Metadata.Uid = "former" }), addr("192.0.2.66")))
		clienttest.Seed(b.s, &networkingv1.IPAddress{
			Metadata: &metav1.ObjectMeta{Name: "192.0.2.67"},
			Spec:     &networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "clusterip"}},
		})
		b.settle()
		// It is no pool's address, and stays with its service all the same.
		b.expect("kept", "192.0.2.70")
		b.allocated(map[string]string{"192.0.2.70": "kept", "192.0.2.67": "clusterip"})
	})
}

func TestNodesKeepTheirAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, "192.0.2.64/29")
		clienttest.Seed(b.s, &corev1.Node{
			Metadata: &metav1.ObjectMeta{Name: "node-1"},
			Status:   &corev1.NodeStatus{Addresses: []*corev1.NodeAddress{{Type: "InternalIP", Address: "192.0.2.65"}}},
		})
		b.settle()
		clienttest.Seed(b.s, balancer("a"))
		b.settle()
		b.expect("a", "192.0.2.66")
	})
}
