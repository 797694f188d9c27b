package kind

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/schema"
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
		at(".status.updatedReplicas", column("UP-TO-DATE", func(d *appsv1.Deployment) string {
			return strconv.Itoa(int(d.GetStatus().GetUpdatedReplicas()))
		})),
		at(".status.availableReplicas", column("AVAILABLE", func(d *appsv1.Deployment) string {
			return strconv.Itoa(int(d.GetStatus().GetAvailableReplicas()))
		})),
		AgeColumn,
		wide("CONTAINERS", func(d *appsv1.Deployment) string { return templateContainers(d.GetSpec().GetTemplate()) }),
		wide("IMAGES", func(d *appsv1.Deployment) string { return templateImages(d.GetSpec().GetTemplate()) }),
		wide("SELECTOR", func(d *appsv1.Deployment) string { return FormatLabelSelector(d.GetSpec().GetSelector()) }),
	}
)

func defaultDeployment(d *appsv1.Deployment) {
	if s := d.Spec.Strategy; s.GetType() == StrategyRollingUpdate && s.RollingUpdate == nil {
		s.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		schema.Default(s.RollingUpdate)
	}
	defaultTemplate(d.Spec.Template)
}

func checkDeployment(d *appsv1.Deployment, c *checker) {
	p, s := field.NewPath("spec"), d.GetSpec()
	if s == nil {
		c.required(p, "")
		return
	}
	c.selectorAndTemplate("Deployment", p, s.GetSelector(), s.GetTemplate())
	c.strategy(p.Child("strategy"), s.GetStrategy())
	if s.ProgressDeadlineSeconds != nil && s.GetProgressDeadlineSeconds() <= s.GetMinReadySeconds() {
		c.invalid(p.Child("progressDeadlineSeconds"), s.GetProgressDeadlineSeconds(), "must be greater than minReadySeconds")
	}
}

func (c *checker) strategy(p *field.Path, s *appsv1.DeploymentStrategy) {
	rolling, r := p.Child("rollingUpdate"), s.GetRollingUpdate()
	if s.GetType() == StrategyRecreate && r != nil {
		c.forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'")
	}
	if s.GetType() != StrategyRollingUpdate {
		return
	}
	down, percent, ok1 := percentOrCount(r.GetMaxUnavailable())
	up, _, ok2 := percentOrCount(r.GetMaxSurge())
	if ok1 && ok2 && down == 0 && up == 0 {
		c.invalid(rolling.Child("maxUnavailable"), intOrStringText(r.GetMaxUnavailable()), "may not be 0 when `maxSurge` is 0")
	}
	if ok1 && percent && down > 100 {
		c.invalid(rolling.Child("maxUnavailable"), intOrStringText(r.GetMaxUnavailable()), "must not be greater than 100%")
	}
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
