package networking_test

import (
	"fmt"
	"testing"

	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/kinds/networking"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

func TestNodePort(t *testing.T) {
	port := func() *networkingv1.NodePort {
		return &networkingv1.NodePort{
			Metadata: &metav1.ObjectMeta{Name: networking.NodePortName("", 30080)},
			Spec:     &networkingv1.NodePortSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "web"}},
		}
	}
	const want = "must be a protocol and a port, such as tcp-30080"
	var bad []kindtest.Bad[*networkingv1.NodePort]
	for _, name := range []string{"30080", "tcp", "tcp-", "sctp-30080", "tcp-030080", "tcp-70000", "tcp-x"} {
		bad = append(bad, kindtest.Bad[*networkingv1.NodePort]{
			Name: name, Edit: func(n *networkingv1.NodePort) { n.Metadata.Name = name }, Want: []string{fmt.Sprintf("metadata.name: Invalid value: %q: %s", name, want)},
		})
	}
	bad = append(bad, kindtest.Bad[*networkingv1.NodePort]{Name: "no parent", Edit: func(n *networkingv1.NodePort) { n.Spec = nil }, Want: []string{"spec.parentRef: Required value"}})
	kindtest.Validate(t, port, bad)
	kindtest.Update(t, port, []kindtest.Edit[*networkingv1.NodePort]{
		{Name: "other parent", Edit: func(n *networkingv1.NodePort) { n.Spec.ParentRef.Name = "db" }, Want: []string{`spec.parentRef: Invalid value: "db": field is immutable`}},
	})
	kindtest.ExpectCells(t, port(), kindtest.Now, map[string]string{"PARENTREF": "services/default/web"})
}
