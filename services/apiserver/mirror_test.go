package apiserver

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestMirrorPods checks that a node creates no pods but those that show what it runs by itself.
func TestMirrorPods(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	waitNamespace(t, admin(conn))
	self := client.New(as{ClientConnInterface: conn, User: "system:node:node-1", Group: "system:nodes"})
	node, err := client.Create(t.Context(), self, &corev1.Node{Metadata: &metav1.ObjectMeta{Name: "node-1"}})
	if err != nil {
		t.Fatal(err)
	}
	mirror := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			Metadata: &metav1.ObjectMeta{
				Namespace: "default", Name: "own-node-1", Annotations: map[string]string{core.MirrorAnnotation: "x"},
				OwnerReferences: []*metav1.OwnerReference{{ApiVersion: "v1", Kind: "Node", Name: "node-1", Uid: node.GetMetadata().GetUid(), Controller: proto.Bool(true)}},
			},
			Spec: &corev1.PodSpec{NodeName: "node-1", Containers: []*corev1.Container{{Name: "c", Image: "c:1"}}},
		}
		change(p)
		return p
	}
	for name, change := range map[string]func(*corev1.Pod){
		"no mirror":       func(p *corev1.Pod) { p.Metadata.Annotations = nil },
		"another's":       func(p *corev1.Pod) { p.Spec.NodeName = "node-2" },
		"bound to none":   func(p *corev1.Pod) { p.Spec.NodeName = "" },
		"without owner":   func(p *corev1.Pod) { p.Metadata.OwnerReferences = nil },
		"another's owner": func(p *corev1.Pod) { p.Metadata.OwnerReferences[0].Uid = "y" },
		"an account":      func(p *corev1.Pod) { p.Spec.ServiceAccountName = "admin" },
		"a secret": func(p *corev1.Pod) {
			p.Spec.Volumes = []*corev1.Volume{{Name: "s", VolumeSource: &corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}}}
		},
	} {
		if _, err := client.Create(t.Context(), self, mirror(change)); !apierr.IsForbidden(err) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
	p, err := client.Create(t.Context(), self, mirror(func(*corev1.Pod) {}))
	if err != nil || p.GetSpec().GetServiceAccountName() != "" {
		t.Fatalf("a mirror became %v, %v", p, err)
	}
	if _, err := client.Delete[*corev1.Pod](t.Context(), self, "default", "own-node-1", client.GracePeriod(0)); err != nil {
		t.Errorf("deleting the mirror: %v", err)
	}
}
