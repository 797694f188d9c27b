package kind

import (
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"

	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
)

var (
	replicaSetRules = rulesOf[*appsv1.ReplicaSet]{
		name:     nameIsSubdomain,
		defaults: defaultReplicaSet,
		check:    checkReplicaSet,
		checkUpdate: func(new, old *appsv1.ReplicaSet, c *checker) {
			c.selectorUpdate(new.GetSpec().GetSelector(), old.GetSpec().GetSelector())
		},
		checkStatus: func(new, _ *appsv1.ReplicaSet, c *checker) { checkReplicaSetStatus(new.GetStatus(), c) },
		warn: func(r *appsv1.ReplicaSet) []string {
			t := r.GetSpec().GetTemplate()
			return warnPod(field.NewPath("spec", "template"), t.GetMetadata(), t.GetSpec())
		},
	}
	replicaSetColumns = []Column{
		at(".spec.replicas", column("DESIRED", func(r *appsv1.ReplicaSet) string { return strconv.Itoa(int(r.GetSpec().GetReplicas())) })),
		at(".status.replicas", column("CURRENT", func(r *appsv1.ReplicaSet) string { return strconv.Itoa(int(r.GetStatus().GetReplicas())) })),
		at(".status.readyReplicas", column("READY", func(r *appsv1.ReplicaSet) string {
			return strconv.Itoa(int(r.GetStatus().GetReadyReplicas()))
		})),
		AgeColumn,
		wide("CONTAINERS", func(r *appsv1.ReplicaSet) string { return templateContainers(r.GetSpec().GetTemplate()) }),
		wide("IMAGES", func(r *appsv1.ReplicaSet) string { return templateImages(r.GetSpec().GetTemplate()) }),
		wide("SELECTOR", func(r *appsv1.ReplicaSet) string { return FormatLabelSelector(r.GetSpec().GetSelector()) }),
	}
)

func defaultReplicaSet(r *appsv1.ReplicaSet) {
	defaultTemplate(r.Spec.Template)
}

func checkReplicaSet(r *appsv1.ReplicaSet, c *checker) {
	p, s := field.NewPath("spec"), r.GetSpec()
	if s == nil {
		c.required(p, "")
		return
	}
	c.selectorAndTemplate("ReplicaSet", p, s.GetSelector(), s.GetTemplate())
}

func checkReplicaSetStatus(s *appsv1.ReplicaSetStatus, c *checker) {
	p := field.NewPath("status")
	count := func(name string, n int32) {
		if n > s.GetReplicas() {
			c.invalid(p.Child(name), n, "cannot be greater than status.replicas")
		}
	}
	count("fullyLabeledReplicas", s.GetFullyLabeledReplicas())
	count("readyReplicas", s.GetReadyReplicas())
	count("availableReplicas", s.GetAvailableReplicas())
	if s.GetAvailableReplicas() > s.GetReadyReplicas() {
		c.invalid(p.Child("availableReplicas"), s.GetAvailableReplicas(), "cannot be greater than readyReplicas")
	}
}
