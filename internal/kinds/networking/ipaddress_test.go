package networking_test

import (
	"testing"

	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

func TestIPAddress(t *testing.T) {
	address := func() *networkingv1.IPAddress {
		return &networkingv1.IPAddress{
			Metadata: &metav1.ObjectMeta{Name: "10.96.0.7"},
			Spec:     &networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "web"}},
		}
	}
	kindtest.Validate(t, address, []kindtest.Bad[*networkingv1.IPAddress]{
		{Name: "no address", Edit: func(a *networkingv1.IPAddress) { a.Metadata.Name = "web" }, Want: []string{`metadata.name: Invalid value: "web": must be a valid IP address`}},
		{Name: "another way to write it", Edit: func(a *networkingv1.IPAddress) { a.Metadata.Name = "FD00::0:1" }, Want: []string{`metadata.name: Invalid value: "FD00::0:1": must be in canonical form: fd00::1`}},
		{Name: "no parent", Edit: func(a *networkingv1.IPAddress) { a.Spec = nil }, Want: []string{"spec.parentRef: Required value"}},
		{Name: "empty parent", Edit: func(a *networkingv1.IPAddress) { a.Spec.ParentRef = &networkingv1.ParentReference{} },
			Want: []string{"spec.parentRef.resource: Required value", "spec.parentRef.name: Required value"}},
	})
	kindtest.Update(t, address, []kindtest.Edit[*networkingv1.IPAddress]{
		{Name: "other parent", Edit: func(a *networkingv1.IPAddress) { a.Spec.ParentRef.Name = "db" }, Want: []string{`spec.parentRef: Invalid value: "db": field is immutable`}},
	})
	kindtest.ExpectCells(t, address(), kindtest.Now, map[string]string{"PARENTREF": "services/default/web"})
}
