package pods_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestTokens shows tokens as files, renews them before they expire, and goes on with what there is
// without a control plane.
func TestTokens(t *testing.T) {
	n := start(t)
	uid := n.create(pod("who", "exec sleep 3600", func(p *corev1.Pod) {
		p.Spec.ServiceAccountName = "web"
		p.Spec.Volumes = []*corev1.Volume{{Name: "tokens", VolumeSource: &corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []*corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "vault/token", Audience: "vault", ExpirationSeconds: proto.Int64(7200)}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
		}}}}}
		p.Spec.Containers[0].VolumeMounts = []*corev1.VolumeMount{{Name: "tokens", MountPath: "/tokens"}}
	}))
	n.until(uid, "it runs", core.IsPodReady)
	read := func(file string) string { return n.in("who", "main", "cat /tokens/"+file) }
	// They are good for two seconds, so that these need not be the first.
	vault, own := read("vault/token"), read("token")
	if !strings.HasPrefix(vault, "who for vault, 7200s, ") || !strings.HasPrefix(own, "who for , 3600s, ") {
		t.Errorf("the tokens are %q and %q", vault, own)
	}
	containerdtest.Eventually(t, 60*time.Second, "the tokens are renewed", func() bool { return read("vault/token") != vault && read("token") != own })

	// The next agent has them at hand; it asks again only when they are due.
	n.cluster.setAway(true)
	n.stop()
	n.agent()
	n.knows("who")
	if err := n.rt.Kill(t.Context(), uid+"-main-0", 9); err != nil {
		t.Fatal(err)
	}
	n.cluster.setAway(false)
	p := n.until(uid, "the container comes again", func(p *corev1.Pod) bool { return status(p).GetRestartCount() == 1 && core.IsPodReady(p) })
	if got := read("vault/token"); !strings.HasPrefix(got, "who for vault, 7200s, ") {
		t.Errorf("after a restart of pod %s the tokens are %q", p.GetMetadata().GetName(), got)
	}
	n.delete(uid)
	n.untilGone(uid)
}
