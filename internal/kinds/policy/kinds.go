package policy

import (
	"github.com/xebec-project/xebec/internal/scheme"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// Kinds are the kinds of the group policy, by name.
var Kinds = []*scheme.Kind{
	{
		Group: "policy", Version: "v1", Name: "PodDisruptionBudget", Plural: "poddisruptionbudgets", Singular: "poddisruptionbudget",
		ShortNames: []string{"pdb"},
		Namespaced: true, Subresources: scheme.StatusOnly,
		New:     func() scheme.Object { return new(policyv1.PodDisruptionBudget) },
		Columns: podDisruptionBudgetColumns, Rules: podDisruptionBudgetRules,
	},
}
