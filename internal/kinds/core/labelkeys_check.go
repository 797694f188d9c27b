package core

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// checkKeysOnce refuses keys on which a selector has several conditions.
func checkKeysOnce(c *rules.Checker, p *field.Path, keys []string, s *metav1.LabelSelector) {
	for i, key := range keys {
		if conditionsOn(s, key) > 1 {
			c.Invalid(p.Index(i), key, "exists in both matchLabelKeys and labelSelector")
		}
	}
}

func conditionsOn(s *metav1.LabelSelector, key string) int {
	count := 0
	if _, ok := s.GetMatchLabels()[key]; ok {
		count++
	}
	for _, e := range s.GetMatchExpressions() {
		if e.GetKey() == key {
			count++
		}
	}
	return count
}

// checkKeysOfNewPod refuses matchLabelKeys on which the selector beside them has a condition: with
// the label of the pod there would be two.
func checkKeysOfNewPod(c *rules.Checker, spec *field.Path, p *corev1.Pod) {
	check := func(at *field.Path, keys []string, s *metav1.LabelSelector) {
		for i, key := range keys {
			if _, ok := p.GetMetadata().GetLabels()[key]; ok && conditionsOn(s, key) == 1 {
				c.Invalid(at.Index(i), key, "exists in both matchLabelKeys and labelSelector")
			}
		}
	}
	terms := func(at *field.Path, required []*corev1.PodAffinityTerm, preferred []*corev1.WeightedPodAffinityTerm) {
		for i, t := range required {
			check(at.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i), t.GetMatchLabelKeys(), t.GetLabelSelector())
		}
		for i, w := range preferred {
			t := w.GetPodAffinityTerm()
			check(at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("podAffinityTerm"),
				t.GetMatchLabelKeys(), t.GetLabelSelector())
		}
	}
	near, apart := p.GetSpec().GetAffinity().GetPodAffinity(), p.GetSpec().GetAffinity().GetPodAntiAffinity()
	terms(spec.Child("affinity", "podAffinity"),
		near.GetRequiredDuringSchedulingIgnoredDuringExecution(), near.GetPreferredDuringSchedulingIgnoredDuringExecution())
	terms(spec.Child("affinity", "podAntiAffinity"),
		apart.GetRequiredDuringSchedulingIgnoredDuringExecution(), apart.GetPreferredDuringSchedulingIgnoredDuringExecution())
	for i, t := range p.GetSpec().GetTopologySpreadConstraints() {
		check(spec.Child("topologySpreadConstraints").Index(i), t.GetMatchLabelKeys(), t.GetLabelSelector())
	}
}
