package gateway_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/kindtest"
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
	kindtest.Validate(t, access, []kindtest.Bad[*gatewayv1.GatewayAccess]{
		{Name: "another name", Edit: func(a *gatewayv1.GatewayAccess) { a.Metadata.Name = "mine" }, Want: []string{`metadata.name: Invalid value: "mine": must be "cluster"`}},
		{Name: "too many", Edit: public(many...), Want: []string{"spec.public.allowedCIDRs: Too many: 41: must have at most 40 items"}},
		{Name: "no prefix", Edit: public("office"), Want: []string{`spec.public.allowedCIDRs[0]: Invalid value: "office": is no prefix`}},
		{Name: "an address", Edit: public("192.0.2.1"), Want: []string{`spec.public.allowedCIDRs[0]: Invalid value: "192.0.2.1": is an address: write 192.0.2.1/32`}},
		{Name: "host bits", Edit: public("10.0.0.0/8", "192.0.2.1/24"), Want: []string{`spec.public.allowedCIDRs[1]: Invalid value: "192.0.2.1/24": has host bits set: write 192.0.2.0/24`}},
		{Name: "overlap", Edit: public("10.0.0.0/8", "10.1.0.0/16"), Want: []string{`spec.public.allowedCIDRs[1]: Invalid value: "10.1.0.0/16": overlaps 10.0.0.0/8`}},
		{Name: "twice", Edit: public("10.0.0.0/8", "10.0.0.0/8"), Want: []string{`spec.public.allowedCIDRs[1]: Invalid value: "10.0.0.0/8": is there twice`}},
		{Name: "both listeners off", Edit: func(a *gatewayv1.GatewayAccess) { a.Spec.Public, a.Spec.Private = off, off }, Want: []string{"spec: Invalid value: \"public and private off\": one listener must take connections"}},
		{Name: "off with a list", Edit: func(a *gatewayv1.GatewayAccess) { a.Spec.Public.Enabled = proto.Bool(false) }, Want: []string{"spec.public.allowedCIDRs: Invalid value"}},
	})
	kindtest.ExpectCells(t, access(), kindtest.Now, map[string]string{"PUBLIC": "203.0.113.0/24,2001:db8::/48", "PRIVATE": "everywhere"})
	a := access()
	a.Spec.Private, a.Spec.Public.AllowedCidrs = off, many[:5]
	kindtest.ExpectCells(t, a, kindtest.Now, map[string]string{"PUBLIC": "10.0.0.0/16,10.1.0.0/16 and 3 more", "PRIVATE": "off"})
}
