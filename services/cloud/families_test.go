package cloud

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

func ofFamilies(policy string, families ...string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.IpFamilyPolicy, s.Spec.IpFamilies = &policy, families }
}

// change writes another spec of a service that is there.
func (b bed) change(name string, change ...func(*corev1.Service)) {
	b.t.Helper()
	s := b.get(name)
	for _, f := range change {
		f(s)
	}
	clienttest.Seed(b.s, s)
	b.settle()
}

// A service has an address of each of its families, in their order, for as long as it has the
// family.
func TestOneAddressOfEachFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, "192.0.2.64/29", "2001:db8::100/120", "vip=2001:db8::200/127")
		clienttest.Seed(b.s, balancer("four", ofFamilies(core.SingleStack, "IPv4")))
		b.settle()
		clienttest.Seed(b.s, balancer("six", ofFamilies(core.SingleStack, "IPv6")))
		b.settle()
		clienttest.Seed(b.s, balancer("both", ofFamilies(core.PreferDualStack, "IPv4", "IPv6")))
		b.settle()
		clienttest.Seed(b.s, balancer("turned", ofFamilies(core.RequireDualStack, "IPv6", "IPv4")))
		b.settle()
		clienttest.Seed(b.s, balancer("older", func(s *corev1.Service) { s.Spec.ClusterIps = []string{"fd00:10:96::7"} }))
		b.settle()
		b.expect("four", "192.0.2.65")
		b.expect("six", "2001:db8::101")
		b.expect("both", "192.0.2.66", "2001:db8::102")
		b.expect("turned", "2001:db8::103", "192.0.2.67")
		b.expect("older", "2001:db8::104")
		b.hasEvent("both", "Allocated address 192.0.2.66")
		b.hasEvent("both", "Allocated address 2001:db8::102")

		// A family comes, a family goes, and a type that needs no address.
		b.change("four", ofFamilies(core.PreferDualStack, "IPv4", "IPv6"))
		b.expect("four", "192.0.2.65", "2001:db8::105")
		b.change("turned", ofFamilies(core.SingleStack, "IPv6"))
		b.expect("turned", "2001:db8::103")
		b.change("both", func(s *corev1.Service) { s.Spec.Type = core.ServiceClusterIP })
		b.expect("both", "")
		clienttest.Remove(b.s, b.get("six"))
		b.settle()
		b.allocated(map[string]string{"192.0.2.65": "four", "2001:db8::105": "four", "2001:db8::103": "turned", "2001:db8::104": "older"})

		// A wish is for the address of its family.
		b.change("four", wish("2001:db8::1aa"))
		b.expect("four", "192.0.2.65", "2001:db8::1aa")
		b.change("four", wish("192.0.2.70"))
		b.expect("four", "192.0.2.70", "2001:db8::1aa")
		clienttest.Seed(b.s, balancer("vip", ofPool("vip"), ofFamilies(core.SingleStack, "IPv6")), balancer("wrong", wish("192.0.2.66"), ofFamilies(core.SingleStack, "IPv6")))
		b.settle()
		b.expect("vip", "2001:db8::200")
		b.expect("wrong", "")
		b.hasEvent("wrong", "spec.loadBalancerIP 192.0.2.66 is not of the service's families: spec.ipFamilies has IPv6")
	})
}

// Where addresses of a family lack, who prefers both has one, and who requires both has none.
func TestFamilyWithoutAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, "192.0.2.64/29", "vip=198.51.100.0/31", "vip=2001:db8::200/128")
		clienttest.Seed(b.s,
			balancer("prefers", ofFamilies(core.PreferDualStack, "IPv6", "IPv4")), balancer("requires", ofFamilies(core.RequireDualStack, "IPv4", "IPv6")),
			balancer("six", ofFamilies(core.SingleStack, "IPv6")))
		b.settle()
		b.expect("prefers", "192.0.2.65")
		b.hasEvent("prefers", `pool "default" has no IPv6 addresses; there are default=192.0.2.64/29, vip=198.51.100.0/31, vip=2001:db8::200/128`)
		b.expect("requires", "")
		b.hasEvent("requires", `pool "default" has no IPv6 addresses`)
		b.hasEvent("requires", "spec.ipFamilyPolicy RequireDualStack asks for an address of either family, or none")
		b.expect("six", "")
		b.hasEvent("six", `pool "default" has no IPv6 addresses`)
		b.allocated(map[string]string{"192.0.2.65": "prefers"})

		// What a service has stays with it, whatever it asks for besides.
		b.change("prefers", ofFamilies(core.RequireDualStack, "IPv6", "IPv4"))
		b.expect("prefers", "192.0.2.65")

		// Another pool has both; the next one finds one of them gone, and gets it when it comes free.
		b.change("requires", ofPool("vip"))
		b.expect("requires", "198.51.100.0", "2001:db8::200")
		clienttest.Seed(b.s, balancer("second", ofPool("vip"), ofFamilies(core.RequireDualStack, "IPv4", "IPv6")), balancer("third", ofPool("vip"), ofFamilies(core.PreferDualStack, "IPv4", "IPv6")))
		b.settle()
		b.expect("second", "")
		b.hasEvent("second", `every IPv6 address of pool "vip" is allocated`)
		b.expect("third", "198.51.100.1")
		clienttest.Remove(b.s, b.get("third"))
		clienttest.Remove(b.s, b.get("requires"))
		b.settle()
		b.expect("second", "198.51.100.0", "2001:db8::200")
	})
}

// Many that come at once have addresses of their own, though others take some that the service does
// not see as its own.
func TestNoAddressTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, "192.0.2.0/26", "2001:db8::/122")
		for _, taken := range []string{"192.0.2.1", "192.0.2.2", "2001:db8::2"} {
			clienttest.Seed(b.s, &networkingv1.IPAddress{
				Metadata: &metav1.ObjectMeta{Name: taken},
				Spec:     &networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "others"}},
			})
		}
		var many []*corev1.Service
		for i := range 40 {
			many = append(many, balancer(fmt.Sprint("s", i), ofFamilies(core.RequireDualStack, "IPv4", "IPv6")))
		}
		clienttest.Seed(b.s, many...)
		b.settle()
		holders := map[string]string{"192.0.2.1": "others", "192.0.2.2": "others", "2001:db8::2": "others"}
		for _, s := range many {
			name := s.GetMetadata().GetName()
			ingress := b.get(name).GetStatus().GetLoadBalancer().GetIngress()
			if len(ingress) != 2 || core.FamilyOf(ingress[0].GetIp()) != "IPv4" || core.FamilyOf(ingress[1].GetIp()) != "IPv6" {
				t.Errorf("%s shows %v", name, ingress)
			}
			for _, in := range ingress {
				if other := holders[in.GetIp()]; other != "" {
					t.Errorf("%s and %s have %s", other, name, in.GetIp())
				}
				holders[in.GetIp()] = name
			}
		}
		b.allocated(holders)
	})
}
