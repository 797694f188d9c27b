package discovery_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

func TestEndpointSlice(t *testing.T) {
	slice := func() *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			Metadata: kindtest.Meta("web-1"), AddressType: "IPv4", Endpoints: []*discoveryv1.Endpoint{{Addresses: []string{"10.244.1.7"}}},
			Ports: []*discoveryv1.EndpointPort{{Port: proto.Int32(80)}},
		}
	}
	kindtest.Validate(t, slice, []kindtest.Bad[*discoveryv1.EndpointSlice]{
		{Name: "type", Edit: func(s *discoveryv1.EndpointSlice) { s.AddressType, s.Endpoints = "", nil }, Want: []string{"addressType: Required value"}},
		{Name: "other type", Edit: func(s *discoveryv1.EndpointSlice) { s.AddressType, s.Endpoints = "IPX", nil }, Want: []string{`addressType: Unsupported value: "IPX"`}},
		{Name: "addresses", Edit: func(s *discoveryv1.EndpointSlice) {
			s.Endpoints = []*discoveryv1.Endpoint{{}, {Addresses: []string{"x", "fd00::1", "127.0.0.1", "169.254.1.1", "0.0.0.0", "224.0.0.1"}}}
		}, Want: []string{
			"endpoints[0].addresses: Required value", `endpoints[1].addresses[0]: Invalid value: "x"`, `endpoints[1].addresses[1]: Invalid value: "fd00::1": must be an IPv4 address`,
			`endpoints[1].addresses[2]: Invalid value`, `endpoints[1].addresses[3]: Invalid value`, `endpoints[1].addresses[4]: Invalid value`, `endpoints[1].addresses[5]: Invalid value`,
		}},
		{Name: "too many endpoints", Edit: func(s *discoveryv1.EndpointSlice) {
			for i := range 1000 {
				s.Endpoints = append(s.Endpoints, &discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)}})
			}
		}, Want: []string{"endpoints: Too many: 1001: must have at most 1000 items"}},
		{Name: "too many ports", Edit: func(s *discoveryv1.EndpointSlice) {
			for i := range 100 {
				s.Ports = append(s.Ports, &discoveryv1.EndpointPort{Name: proto.String(fmt.Sprintf("p%d", i)), Port: proto.Int32(80)})
			}
		}, Want: []string{"ports: Too many: 101: must have at most 100 items"}},
		{Name: "ports", Edit: func(s *discoveryv1.EndpointSlice) {
			s.Ports = append(s.Ports, &discoveryv1.EndpointPort{Port: proto.Int32(0), Protocol: proto.String("ICMP")})
		}, Want: []string{`ports[1].name: Duplicate value: ""`, `ports[1].protocol: Unsupported value: "ICMP"`, "ports[1].port: Invalid value: 0"}},
		{Name: "names", Edit: func(s *discoveryv1.EndpointSlice) {
			s.Endpoints[0].Hostname, s.Endpoints[0].NodeName = proto.String("a.b"), proto.String("N")
		}, Want: []string{`endpoints[0].hostname: Invalid value: "a.b"`, `endpoints[0].nodeName: Invalid value: "N"`}},
	})
	kindtest.Update(t, slice, []kindtest.Edit[*discoveryv1.EndpointSlice]{
		{Name: "type", Edit: func(s *discoveryv1.EndpointSlice) { s.AddressType = "IPv6" }, Want: []string{`addressType: Invalid value: "IPv6": field is immutable`}},
	})
	s := slice()
	kindtest.ExpectCells(t, s, kindtest.Now, map[string]string{"ADDRESSTYPE": "IPv4", "PORTS": "80", "ENDPOINTS": "10.244.1.7"})
	s.Endpoints[0].Addresses = []string{"a", "b", "c", "d", "e"}
	s.Ports = nil
	kindtest.ExpectCells(t, s, kindtest.Now, map[string]string{"PORTS": "<unset>", "ENDPOINTS": "a,b,c + 2 more..."})
}
