package apiserver

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestFieldSelectors selects by booleans as Kubernetes writes them: true and false, and false where
// nothing is set.
func TestFieldSelectors(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c := admin(conn)
	waitNamespace(t, c)
	onHost := pod("host")
	onHost.Spec.HostNetwork = true
	for _, o := range []scheme.Object{
		onHost, pod("plain"),
		&corev1.Node{Metadata: &metav1.ObjectMeta{Name: "cordoned"}, Spec: &corev1.NodeSpec{Unschedulable: true}},
		&corev1.Node{Metadata: &metav1.ObjectMeta{Name: "open"}},
	} {
		if _, err := client.Create(t.Context(), c, o); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ kind, selector, want string }{
		{"pods", "spec.hostNetwork=true", "host"},
		{"pods", "spec.hostNetwork=false", "plain"},
		{"pods", "spec.hostNetwork!=true", "plain"},
		{"pods", "spec.hostNetwork=1", ""},
		{"nodes", "spec.unschedulable=true", "cordoned"},
		{"nodes", "spec.unschedulable=false", "open"},
		{"nodes", "spec.unschedulable!=false", "cordoned"},
	} {
		k, _ := kinds.ByName(tt.kind)
		t.Run(fmt.Sprintf("%s %s", tt.kind, tt.selector), func(t *testing.T) {
			found, _, err := client.ListKind(t.Context(), c, k, client.ListOptions{FieldSelector: tt.selector})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, o := range found {
				names = append(names, o.GetMetadata().GetName())
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("selected %q, want %q", got, tt.want)
			}
		})
	}
}
