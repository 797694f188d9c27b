package core_test

import (
	"testing"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestKeysOfNewPods has matchLabelKeys on labels that the selector names: refused for labels that
// the pod has, and no matter for mismatchLabelKeys.
func TestKeysOfNewPods(t *testing.T) {
	s := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a", "tier": "b"}}
	term := &corev1.PodAffinityTerm{
		TopologyKey: "zone", LabelSelector: s, MatchLabelKeys: []string{"rev", "tier", "app"}, MismatchLabelKeys: []string{"app"},
	}
	p := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Labels: map[string]string{"app": "a", "rev": "1"}},
		Spec: &corev1.PodSpec{
			TopologySpreadConstraints: []*corev1.TopologySpreadConstraint{{LabelSelector: s, MatchLabelKeys: []string{"app"}}},
			Affinity: &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
				PreferredDuringSchedulingIgnoredDuringExecution: []*corev1.WeightedPodAffinityTerm{{PodAffinityTerm: term}},
			}},
		},
	}
	const why = `Invalid value: "app": exists in both matchLabelKeys and labelSelector`
	kindtest.Expect(t, kinds.Of(p).ValidateNew(p), []string{
		"spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm[2]: " + why,
		"spec.topologySpreadConstraints[0][0]: " + why,
	})
}
