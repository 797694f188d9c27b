package kind_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestGatewayAccess(t *testing.T) {
	access := func() *gatewayv1.GatewayAccess {
		return &gatewayv1.GatewayAccess{
			Metadata: &metav1.ObjectMeta{Name: "cluster"},
			Spec: &gatewayv1.GatewayAccessSpec{
				Public:  &gatewayv1.ListenerAccess{Enabled: proto.Bool(true), AllowedCidrs: []string{"203.0.113.0/24", "2001:db8::/48"}},
				Private: &gatewayv1.ListenerAccess{},
			},
		}
	}
	off := &gatewayv1.ListenerAccess{Enabled: proto.Bool(false)}
	public := func(entries ...string) func(*gatewayv1.GatewayAccess) {
		return func(a *gatewayv1.GatewayAccess) { a.Spec.Public.AllowedCidrs = entries }
	}
	var many []string
	for i := range 41 {
		many = append(many, fmt.Sprintf("10.%d.0.0/16", i))
	}
	testValidate(t, access, []badCase[*gatewayv1.GatewayAccess]{
		{"another name", func(a *gatewayv1.GatewayAccess) { a.Metadata.Name = "mine" }, []string{`metadata.name: Invalid value: "mine": must be "cluster"`}},
		{"too many", public(many...), []string{"spec.public.allowedCIDRs: Too many: 41: must have at most 40 items"}},
		{"no prefix", public("office"), []string{`spec.public.allowedCIDRs[0]: Invalid value: "office": is no prefix`}},
		{"an address", public("192.0.2.1"), []string{`spec.public.allowedCIDRs[0]: Invalid value: "192.0.2.1": is an address: write 192.0.2.1/32`}},
		{"host bits", public("10.0.0.0/8", "192.0.2.1/24"), []string{`spec.public.allowedCIDRs[1]: Invalid value: "192.0.2.1/24": has host bits set: write 192.0.2.0/24`}},
		{"overlap", public("10.0.0.0/8", "10.1.0.0/16"), []string{`spec.public.allowedCIDRs[1]: Invalid value: "10.1.0.0/16": overlaps 10.0.0.0/8`}},
		{"twice", public("10.0.0.0/8", "10.0.0.0/8"), []string{`spec.public.allowedCIDRs[1]: Invalid value: "10.0.0.0/8": is there twice`}},
		{"both listeners off", func(a *gatewayv1.GatewayAccess) { a.Spec.Public, a.Spec.Private = off, off }, []string{"spec: Invalid value: \"public and private off\": one listener must take connections"}},
		{"off with a list", func(a *gatewayv1.GatewayAccess) { a.Spec.Public.Enabled = proto.Bool(false) }, []string{"spec.public.allowedCIDRs: Invalid value"}},
	})
	expectCells(t, access(), now, map[string]string{"PUBLIC": "203.0.113.0/24,2001:db8::/48", "PRIVATE": "everywhere"})
	a := access()
	a.Spec.Private, a.Spec.Public.AllowedCidrs = off, many[:5]
	expectCells(t, a, now, map[string]string{"PUBLIC": "10.0.0.0/16,10.1.0.0/16 and 3 more", "PRIVATE": "off"})
}
