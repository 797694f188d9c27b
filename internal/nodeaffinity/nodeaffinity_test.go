package nodeaffinity_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-project/xebec/internal/nodeaffinity"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func TestRequired(t *testing.T) {
	set := labels.Set{"disk": "fast", "cores": "8"}
	term := func(fields bool, key, op string, values ...string) *corev1.NodeSelectorTerm {
		r := []*corev1.NodeSelectorRequirement{{Key: key, Operator: op, Values: values}}
		if fields {
			return &corev1.NodeSelectorTerm{MatchFields: r}
		}
		return &corev1.NodeSelectorTerm{MatchExpressions: r}
	}
	of := func(terms ...*corev1.NodeSelectorTerm) *corev1.PodSpec {
		return &corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
		}}}
	}
	both := term(false, "disk", "In", "fast")
	both.MatchFields = term(true, "metadata.name", "In", "node-2").MatchFields
	for name, tt := range map[string]struct {
		spec *corev1.PodSpec
		want bool
	}{
		"nothing required":           {nil, true},
		"selector":                   {&corev1.PodSpec{NodeSelector: map[string]string{"disk": "fast"}}, true},
		"another selector":           {&corev1.PodSpec{NodeSelector: map[string]string{"disk": "slow"}}, false},
		"one of the terms":           {of(term(false, "disk", "In", "slow"), term(false, "disk", "Exists")), true},
		"none of the terms":          {of(term(false, "disk", "NotIn", "fast"), term(false, "disk", "DoesNotExist")), false},
		"no terms":                   {of(), false},
		"a term without conditions":  {of(&corev1.NodeSelectorTerm{}), false},
		"more than":                  {of(term(false, "cores", "Gt", "7")), true},
		"less than":                  {of(term(false, "cores", "Lt", "8")), false},
		"the name":                   {of(term(true, "metadata.name", "In", "node-1")), true},
		"another name":               {of(term(true, "metadata.name", "NotIn", "node-1")), false},
		"all conditions of the term": {of(both), false},
		"a field that nodes lack":    {of(term(true, "metadata.uid", "In", "node-1")), false},
		"an unknown operator":        {of(term(false, "disk", "Is", "fast")), false},
	} {
		required := nodeaffinity.RequiredOf(tt.spec)
		if got := required.Matches("node-1", set); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}
