package apps

import (
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
)

var (
	replicaSetRules = rules.For[*appsv1.ReplicaSet]{
		Name:     rules.NameIsSubdomain,
		Defaults: defaultReplicaSet,
		Check:    checkReplicaSet,
		CheckUpdate: func(new, old *appsv1.ReplicaSet, c *rules.Checker) {
			checkSelectorUpdate(c, new.GetSpec().GetSelector(), old.GetSpec().GetSelector())
		},
		CheckStatus: func(new, _ *appsv1.ReplicaSet, c *rules.Checker) { checkReplicaSetStatus(new.GetStatus(), c) },
		Warn: func(r *appsv1.ReplicaSet) []string {
			t := r.GetSpec().GetTemplate()
			return core.WarnPod(field.NewPath("spec", "template"), t.GetMetadata(), t.GetSpec())
		},
	}
	replicaSetColumns = []scheme.Column{
		column.At(".spec.replicas", column.New("DESIRED", func(r *appsv1.ReplicaSet) string {
			return strconv.Itoa(int(r.GetSpec().GetReplicas()))
		})),
		column.At(".status.replicas", column.New("CURRENT", func(r *appsv1.ReplicaSet) string {
			return strconv.Itoa(int(r.GetStatus().GetReplicas()))
		})),
		column.At(".status.readyReplicas", column.New("READY", func(r *appsv1.ReplicaSet) string {
			return strconv.Itoa(int(r.GetStatus().GetReadyReplicas()))
		})),
		column.AgeColumn,
		column.Wide("CONTAINERS", func(r *appsv1.ReplicaSet) string { return core.TemplateContainers(r.GetSpec().GetTemplate()) }),
		column.Wide("IMAGES", func(r *appsv1.ReplicaSet) string { return core.TemplateImages(r.GetSpec().GetTemplate()) }),
		column.Wide("SELECTOR", func(r *appsv1.ReplicaSet) string { return column.FormatLabelSelector(r.GetSpec().GetSelector()) }),
	}
)

func defaultReplicaSet(r *appsv1.ReplicaSet) {
	core.DefaultTemplate(r.Spec.Template)
}

func checkReplicaSet(r *appsv1.ReplicaSet, c *rules.Checker) {
	p, s := field.NewPath("spec"), r.GetSpec()
	if s == nil {
		c.Required(p, "")
		return
	}
	checkSelectorAndTemplate(c, "ReplicaSet", p, s.GetSelector(), s.GetTemplate())
}

func checkReplicaSetStatus(s *appsv1.ReplicaSetStatus, c *rules.Checker) {
	p := field.NewPath("status")
	count := func(name string, n int32) {
		if n > s.GetReplicas() {
			c.Invalid(p.Child(name), n, "cannot be greater than status.replicas")
		}
	}
	count("fullyLabeledReplicas", s.GetFullyLabeledReplicas())
	count("readyReplicas", s.GetReadyReplicas())
	count("availableReplicas", s.GetAvailableReplicas())
	if s.GetAvailableReplicas() > s.GetReadyReplicas() {
		c.Invalid(p.Child("availableReplicas"), s.GetAvailableReplicas(), "cannot be greater than readyReplicas")
	}
}
