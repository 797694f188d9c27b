package kind

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Deployment strategies, conditions, and the names by which a Deployment knows its ReplicaSets.
const (
	StrategyRecreate      = "Recreate"
	StrategyRollingUpdate = "RollingUpdate"

	DeploymentAvailable      = "Available"
	DeploymentProgressing    = "Progressing"
	DeploymentReplicaFailure = "ReplicaFailure"

	AnnotationRevision   = "deployment.kubernetes.io/revision"
	LabelPodTemplateHash = "pod-template-hash"
)

var (
	deploymentRules = rulesOf[*appsv1.Deployment]{
		name:     nameIsSubdomain,
		defaults: defaultDeployment,
		check:    checkDeployment,
		checkUpdate: func(new, old *appsv1.Deployment, c *checker) {
			c.selectorUpdate(new.GetSpec().GetSelector(), old.GetSpec().GetSelector())
		},
		checkStatus: func(new, _ *appsv1.Deployment, c *checker) { checkDeploymentStatus(new.GetStatus(), c) },
		warn: func(d *appsv1.Deployment) []string {
			t := d.GetSpec().GetTemplate()
			return warnPod(field.NewPath("spec", "template"), t.GetMetadata(), t.GetSpec())
		},
	}
	deploymentColumns = []Column{
		column("READY", func(d *appsv1.Deployment) string {
			return fmt.Sprintf("%d/%d", d.GetStatus().GetReadyReplicas(), d.GetSpec().GetReplicas())
		}),
		at(".status.updatedReplicas", column("UP-TO-DATE", func(d *appsv1.Deployment) string { return strconv.Itoa(int(d.GetStatus().GetUpdatedReplicas())) })),
		at(".status.availableReplicas", column("AVAILABLE", func(d *appsv1.Deployment) string { return strconv.Itoa(int(d.GetStatus().GetAvailableReplicas())) })),
		AgeColumn,
		wide("CONTAINERS", func(d *appsv1.Deployment) string { return templateContainers(d.GetSpec().GetTemplate()) }),
		wide("IMAGES", func(d *appsv1.Deployment) string { return templateImages(d.GetSpec().GetTemplate()) }),
		wide("SELECTOR", func(d *appsv1.Deployment) string { return FormatLabelSelector(d.GetSpec().GetSelector()) }),
	}
)

func defaultDeployment(d *appsv1.Deployment) {
	if d.Spec == nil {
		d.Spec = &appsv1.DeploymentSpec{}
	}
	s := d.Spec
	if s.Replicas == nil {
		s.Replicas = proto.Int32(1)
	}
	if s.Strategy == nil {
		s.Strategy = &appsv1.DeploymentStrategy{}
	}
	setDefault(&s.Strategy.Type, StrategyRollingUpdate)
	if s.Strategy.GetType() == StrategyRollingUpdate {
		if s.Strategy.RollingUpdate == nil {
			s.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		}
		r := s.Strategy.RollingUpdate
		if r.MaxUnavailable == nil {
			r.MaxUnavailable = Text("25%")
		}
		if r.MaxSurge == nil {
			r.MaxSurge = Text("25%")
		}
	}
	if s.RevisionHistoryLimit == nil {
		s.RevisionHistoryLimit = proto.Int32(10)
	}
	if s.ProgressDeadlineSeconds == nil {
		s.ProgressDeadlineSeconds = proto.Int32(600)
	}
	defaultTemplate(s.Template)
}

func checkDeployment(d *appsv1.Deployment, c *checker) {
	p, s := field.NewPath("spec"), d.GetSpec()
	if s == nil {
		c.required(p, "")
		return
	}
	c.notNegative(p.Child("replicas"), int64(s.GetReplicas()))
	c.selectorAndTemplate("Deployment", p, s.GetSelector(), s.GetTemplate())
	c.strategy(p.Child("strategy"), s.GetStrategy())
	c.notNegative(p.Child("minReadySeconds"), int64(s.GetMinReadySeconds()))
	if s.RevisionHistoryLimit != nil {
		c.notNegative(p.Child("revisionHistoryLimit"), int64(s.GetRevisionHistoryLimit()))
	}
	if s.ProgressDeadlineSeconds != nil {
		deadline := p.Child("progressDeadlineSeconds")
		c.notNegative(deadline, int64(s.GetProgressDeadlineSeconds()))
		if s.GetProgressDeadlineSeconds() <= s.GetMinReadySeconds() {
			c.invalid(deadline, s.GetProgressDeadlineSeconds(), "must be greater than minReadySeconds")
		}
	}
}

func (c *checker) strategy(p *field.Path, s *appsv1.DeploymentStrategy) {
	if !c.oneOf(p.Child("type"), s.GetType(), StrategyRecreate, StrategyRollingUpdate) {
		return
	}
	rolling := p.Child("rollingUpdate")
	if s.GetType() == StrategyRecreate {
		if s.GetRollingUpdate() != nil {
			c.forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'")
		}
		return
	}
	r := s.GetRollingUpdate()
	if r == nil {
		c.required(rolling, "this should be defaulted and never be nil")
		return
	}
	down, ok1 := c.podCount(rolling.Child("maxUnavailable"), r.GetMaxUnavailable())
	up, ok2 := c.podCount(rolling.Child("maxSurge"), r.GetMaxSurge())
	if ok1 && ok2 && down == 0 && up == 0 {
		c.invalid(rolling.Child("maxUnavailable"), intOrStringText(r.GetMaxUnavailable()), "may not be 0 when `maxSurge` is 0")
	}
	if n, percent, ok := percentOrCount(r.GetMaxUnavailable()); ok && percent && n > 100 {
		c.invalid(rolling.Child("maxUnavailable"), intOrStringText(r.GetMaxUnavailable()), "must not be greater than 100%")
	}
}

// podCount checks a number of pods or a percentage of them.
func (c *checker) podCount(p *field.Path, v *metav1.IntOrString) (int32, bool) {
	n, _, ok := percentOrCount(v)
	if !ok {
		c.invalid(p, v.GetStrVal(), "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')")
		return 0, false
	}
	c.notNegative(p, int64(n))
	return n, n >= 0
}

func intOrStringText(v *metav1.IntOrString) any {
	if v.GetType() == 0 {
		return v.GetIntVal()
	}
	return v.GetStrVal()
}

func (c *checker) selectorUpdate(new, old *metav1.LabelSelector) {
	if !proto.Equal(new, old) {
		c.invalid(field.NewPath("spec", "selector"), FormatLabelSelector(new), fieldImmutable)
	}
}

func checkDeploymentStatus(s *appsv1.DeploymentStatus, c *checker) {
	p := field.NewPath("status")
	c.notNegative(p.Child("observedGeneration"), s.GetObservedGeneration())
	c.notNegative(p.Child("replicas"), int64(s.GetReplicas()))
	c.notNegative(p.Child("updatedReplicas"), int64(s.GetUpdatedReplicas()))
	c.notNegative(p.Child("readyReplicas"), int64(s.GetReadyReplicas()))
	c.notNegative(p.Child("availableReplicas"), int64(s.GetAvailableReplicas()))
	c.notNegative(p.Child("unavailableReplicas"), int64(s.GetUnavailableReplicas()))
	if s.GetUpdatedReplicas() > s.GetReplicas() {
		c.invalid(p.Child("updatedReplicas"), s.GetUpdatedReplicas(), "cannot be greater than status.replicas")
	}
	if s.GetReadyReplicas() > s.GetReplicas() {
		c.invalid(p.Child("readyReplicas"), s.GetReadyReplicas(), "cannot be greater than status.replicas")
	}
	if s.GetAvailableReplicas() > s.GetReadyReplicas() {
		c.invalid(p.Child("availableReplicas"), s.GetAvailableReplicas(), "cannot be greater than readyReplicas")
	}
}
