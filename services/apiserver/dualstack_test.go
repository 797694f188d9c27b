package apiserver

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

func TestDualStackConfig(t *testing.T) {
	for cidr, want := range map[string]string{
		"10.96.0.0/16":                     "",
		"10.96.0.0/16,fd00:10:96::/112":    "",
		"fd00:10:96::/112":                 "serviceCIDR",
		"fd00:10:96::/112,10.96.0.0/16":    "serviceCIDR",
		"10.96.0.0/16,10.97.0.0/16":        "serviceCIDR",
		"10.97.0.0/16,fd00:10:96::/112":    "clusterDNS",
		"10.96.0.0/16,fd00:10:96::/112,::": "serviceCIDR",
	} {
		cfg := DefaultConfig()
		cfg.ServiceCIDR = cidr
		if err := cfg.Validate(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", cidr, err, want)
		}
	}
}

// TestDualStack follows services through all that can become of their families, at two apiservers
// at once where it matters, and looks after each step whether exactly the addresses that services
// have are allocated.
func TestDualStack(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	cfg := DefaultConfig()
	cfg.ServiceCIDR = "10.96.0.0/16,fd00:10:96::/120"
	first, second := admin(startConfigured(t, cfg, etcd)), admin(startConfigured(t, cfg, etcd))
	ctx := t.Context()
	waitNamespace(t, first)
	waitNamespace(t, second)

	with := func(name, policy string, families []string, ips ...string) *corev1.Service {
		s := service(name)
		s.Spec.IpFamilies, s.Spec.ClusterIps = families, ips
		if len(ips) > 0 {
			s.Spec.ClusterIp = ips[0]
		}
		if policy != "" {
			s.Spec.IpFamilyPolicy = proto.String(policy)
		}
		return s
	}
	held := func(what string) {
		t.Helper()
		services, _, err := client.List[*corev1.Service](ctx, second, client.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for _, s := range services {
			for _, ip := range s.GetSpec().GetClusterIps() {
				if ip != "None" {
					want = append(want, ip+" "+s.GetMetadata().GetName())
				}
			}
		}
		list, _, err := client.List[*networkingv1.IPAddress](ctx, second, client.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			got = append(got, a.GetMetadata().GetName()+" "+a.GetSpec().GetParentRef().GetName())
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			t.Errorf("%s: allocated are %q, services have %q", what, got, want)
		}
	}
	shape := func(s *corev1.Service) string {
		var ips []string
		for _, ip := range s.GetSpec().GetClusterIps() {
			ips = append(ips, strings.SplitN(ip, ".", 2)[0][:2])
		}
		if len(ips) > 0 && s.GetSpec().GetClusterIp() != s.GetSpec().GetClusterIps()[0] {
			t.Errorf("clusterIP is %q, the first of %q", s.GetSpec().GetClusterIp(), s.GetSpec().GetClusterIps())
		}
		return fmt.Sprint(s.GetSpec().GetIpFamilyPolicy(), " ", s.GetSpec().GetIpFamilies(), " ", ips)
	}

	both := []string{"IPv4", "IPv6"}
	for _, test := range []struct {
		service *corev1.Service
		want    string
	}{
		// First, since others get addresses at random, of 256 in one family.
		{with("asks", "", nil, "fd00:10:96::99", "10.96.0.99"), "RequireDualStack [IPv6 IPv4] [fd 10]"},
		{with("plain", "", nil), "SingleStack [IPv4] [10]"},
		{with("six", "", []string{"IPv6"}), "SingleStack [IPv6] [fd]"},
		{with("prefer", "PreferDualStack", nil), "PreferDualStack [IPv4 IPv6] [10 fd]"},
		{with("require", "RequireDualStack", []string{"IPv6"}), "RequireDualStack [IPv6 IPv4] [fd 10]"},
		{with("named", "", both), "RequireDualStack [IPv4 IPv6] [10 fd]"},
		{with("half", "PreferDualStack", nil, "10.96.0.98"), "PreferDualStack [IPv4 IPv6] [10 fd]"},
		{with("headless", "PreferDualStack", nil, "None"), "PreferDualStack [IPv4 IPv6] [No]"},
	} {
		s, err := client.Create(ctx, first, test.service)
		if err != nil {
			t.Errorf("%s: %v", test.service.GetMetadata().GetName(), err)
		} else if got := shape(s); got != test.want {
			t.Errorf("%s: %s, want %s", s.GetMetadata().GetName(), got, test.want)
		}
	}
	held("after creating")
	for what, test := range map[string]struct {
		service *corev1.Service
		want    string
	}{
		"taken":           {with("x", "", nil, "10.96.0.97", "fd00:10:96::99"), "spec.clusterIPs[1]"},
		"out of range":    {with("x", "", nil, "10.96.0.97", "fd01::1"), "spec.clusterIPs[1]"},
		"two of a family": {with("x", "", nil, "10.96.0.97", "10.96.0.96"), "no more than one"},
		"single with two": {with("x", "SingleStack", both), "spec.ipFamilyPolicy"},
		"wrong order":     {with("x", "RequireDualStack", both, "fd00:10:96::97"), "spec.clusterIPs[0]"},
		"no address":      {with("x", "RequireDualStack", both, "10.96.0.97", "y"), "spec.clusterIPs[1]"},
		"three":           {with("x", "", nil, "10.96.0.97", "fd00:10:96::97", "10.96.0.96"), "spec.clusterIPs"},
	} {
		if _, err := client.Create(ctx, first, test.service); !apierr.IsInvalid(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want a refusal with %q", what, err, test.want)
		}
	}
	held("after refusals")

	update := func(what, want string, s *corev1.Service) {
		t.Helper()
		now, err := client.Update(ctx, second, s)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		} else if got := shape(now); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
		held(what)
	}
	update("upgrade", "PreferDualStack [IPv4 IPv6] [10 fd]", with("plain", "PreferDualStack", nil))
	update("applied again", "PreferDualStack [IPv4 IPv6] [10 fd]", with("plain", "", nil))
	update("downgrade", "SingleStack [IPv4] [10]", with("plain", "SingleStack", nil))
	update("upgrade with an address", "RequireDualStack [IPv6 IPv4] [fd 10]", func() *corev1.Service {
		s, err := client.Get[*corev1.Service](ctx, first, "default", "six")
		if err != nil {
			t.Fatal(err)
		}
		s = proto.CloneOf(s)
		s.Spec.IpFamilyPolicy, s.Spec.IpFamilies = proto.String("RequireDualStack"), []string{"IPv6", "IPv4"}
		s.Spec.ClusterIps = append(s.Spec.ClusterIps, "10.96.0.95")
		return s
	}())
	name := with("named", "", nil)
	name.Spec = &corev1.ServiceSpec{Type: "ExternalName", ExternalName: "db.example.com"}
	update("a mere name", " [] []", name)
	update("no longer", "RequireDualStack [IPv6 IPv4] [fd 10]", with("named", "RequireDualStack", []string{"IPv6"}))
	for what, s := range map[string]*corev1.Service{
		"another second address": with("asks", "", nil, "fd00:10:96::99", "10.96.0.94"),
		"the other order":        with("asks", "", []string{"IPv4", "IPv6"}, "10.96.0.99", "fd00:10:96::99"),
	} {
		if _, err := client.Update(ctx, first, s); !apierr.IsInvalid(err) {
			t.Errorf("%s: %v, want a refusal", what, err)
		}
	}
	held("after refusals of updates")
	for _, gone := range []string{"prefer", "asks", "headless"} {
		if _, err := client.Delete[*corev1.Service](ctx, first, "default", gone); err != nil {
			t.Error(err)
		}
	}
	held("after deletions")

	// Two apiservers fill the smaller range: each address is allocated once, and further services are
	// refused.
	var wg sync.WaitGroup
	var mu sync.Mutex
	full := 0
	for i, c := range []*client.Client{first, second} {
		wg.Go(func() {
			for n := range 130 {
				_, err := client.Create(ctx, c, with(fmt.Sprintf("s-%d-%d", i, n), "RequireDualStack", nil))
				mu.Lock()
				switch {
				case err == nil:
				case apierr.Reason(err) == apierr.ReasonServiceCIDRFull:
					full++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	// 255 addresses, 4 of which are in use already.
	if full != 260-(255-4) {
		t.Errorf("%d services were refused because the range is full, want %d", full, 260-(255-4))
	}
	held("after filling the range")
}

// In a cluster of one family, services get one address, and RequireDualStack is refused.
func TestSingleStackCluster(t *testing.T) {
	c := admin(start(t, etcdtest.New(t, 1)))
	waitNamespace(t, c)
	create := func(name, policy string, families ...string) (*corev1.Service, error) {
		s := service(name)
		s.Spec.IpFamilyPolicy, s.Spec.IpFamilies = proto.String(policy), families
		return client.Create(t.Context(), c, s)
	}
	s, err := create("prefer", "PreferDualStack")
	if err != nil || len(s.GetSpec().GetClusterIps()) != 1 || !slices.Equal(s.GetSpec().GetIpFamilies(), []string{"IPv4"}) {
		t.Errorf("a preference: %v, %v", s.GetSpec(), err)
	}
	if _, err := create("require", "RequireDualStack"); !apierr.IsInvalid(err) || !strings.Contains(err.Error(), "not configured for dual-stack") {
		t.Errorf("a requirement: %v", err)
	}
	if _, err := create("six", "SingleStack", "IPv6"); !apierr.IsInvalid(err) || !strings.Contains(err.Error(), "not configured on this cluster") {
		t.Errorf("IPv6: %v", err)
	}
	if _, err := client.Get[*corev1.Service](t.Context(), c, "default", "six"); !apierr.IsNotFound(err) {
		t.Errorf("what was refused: %v", err)
	}
}
