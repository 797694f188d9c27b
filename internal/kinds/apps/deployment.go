// Package apps has the kinds of the group apps: their rules, defaults, columns and constants.
package apps

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/schema"
	"github.com/xebec-project/xebec/internal/scheme"
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
	deploymentRules = rules.For[*appsv1.Deployment]{
		Name:     rules.NameIsSubdomain,
		Defaults: defaultDeployment,
		Check:    checkDeployment,
		CheckUpdate: func(new, old *appsv1.Deployment, c *rules.Checker) {
			checkSelectorUpdate(c, new.GetSpec().GetSelector(), old.GetSpec().GetSelector())
		},
		CheckStatus: func(new, old *appsv1.Deployment, c *rules.Checker) {
			checkDeploymentStatus(new.GetStatus(), c)
			if n := new.GetStatus().GetCollisionCount(); n < old.GetStatus().GetCollisionCount() {
				c.Invalid(field.NewPath("status", "collisionCount"), n, "cannot be decremented")
			}
		},
		Warn: func(d *appsv1.Deployment) []string {
			t := d.GetSpec().GetTemplate()
			return core.WarnPod(field.NewPath("spec", "template"), t.GetMetadata(), t.GetSpec())
		},
	}
	deploymentColumns = []scheme.Column{
		column.New("READY", func(d *appsv1.Deployment) string {
			return fmt.Sprintf("%d/%d", d.GetStatus().GetReadyReplicas(), d.GetSpec().GetReplicas())
		}),
		column.At(".status.updatedReplicas", column.New("UP-TO-DATE", func(d *appsv1.Deployment) string {
			return strconv.Itoa(int(d.GetStatus().GetUpdatedReplicas()))
		})),
		column.At(".status.availableReplicas", column.New("AVAILABLE", func(d *appsv1.Deployment) string {
			return strconv.Itoa(int(d.GetStatus().GetAvailableReplicas()))
		})),
		column.AgeColumn,
		column.Wide("CONTAINERS", func(d *appsv1.Deployment) string { return core.TemplateContainers(d.GetSpec().GetTemplate()) }),
		column.Wide("IMAGES", func(d *appsv1.Deployment) string { return core.TemplateImages(d.GetSpec().GetTemplate()) }),
		column.Wide("SELECTOR", func(d *appsv1.Deployment) string { return column.FormatLabelSelector(d.GetSpec().GetSelector()) }),
	}
)

func defaultDeployment(d *appsv1.Deployment) {
	if s := d.Spec.Strategy; s.GetType() == StrategyRollingUpdate && s.RollingUpdate == nil {
		s.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		schema.Default(s.RollingUpdate)
	}
	core.DefaultTemplate(d.Spec.Template)
}

func checkDeployment(d *appsv1.Deployment, c *rules.Checker) {
	p, s := field.NewPath("spec"), d.GetSpec()
	if s == nil {
		c.Required(p, "")
		return
	}
	checkSelectorAndTemplate(c, "Deployment", p, s.GetSelector(), s.GetTemplate())
	checkStrategy(c, p.Child("strategy"), s.GetStrategy())
	if s.ProgressDeadlineSeconds != nil && s.GetProgressDeadlineSeconds() <= s.GetMinReadySeconds() {
		c.Invalid(p.Child("progressDeadlineSeconds"), s.GetProgressDeadlineSeconds(), "must be greater than minReadySeconds")
	}
}

func checkStrategy(c *rules.Checker, p *field.Path, s *appsv1.DeploymentStrategy) {
	rolling, r := p.Child("rollingUpdate"), s.GetRollingUpdate()
	if s.GetType() == StrategyRecreate && r != nil {
		c.Forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'")
	}
	if s.GetType() != StrategyRollingUpdate {
		return
	}
	down, percent, ok1 := object.PercentOrCount(r.GetMaxUnavailable())
	up, _, ok2 := object.PercentOrCount(r.GetMaxSurge())
	if ok1 && ok2 && down == 0 && up == 0 {
		c.Invalid(rolling.Child("maxUnavailable"), object.IntOrStringText(r.GetMaxUnavailable()), "may not be 0 when `maxSurge` is 0")
	}
	if ok1 && percent && down > 100 {
		c.Invalid(rolling.Child("maxUnavailable"), object.IntOrStringText(r.GetMaxUnavailable()), "must not be greater than 100%")
	}
}

func checkSelectorUpdate(c *rules.Checker, new, old *metav1.LabelSelector) {
	if !proto.Equal(new, old) {
		c.Invalid(field.NewPath("spec", "selector"), column.FormatLabelSelector(new), rules.Immutable)
	}
}

func checkDeploymentStatus(s *appsv1.DeploymentStatus, c *rules.Checker) {
	p := field.NewPath("status")
	if s.GetUpdatedReplicas() > s.GetReplicas() {
		c.Invalid(p.Child("updatedReplicas"), s.GetUpdatedReplicas(), "cannot be greater than status.replicas")
	}
	if s.GetReadyReplicas() > s.GetReplicas() {
		c.Invalid(p.Child("readyReplicas"), s.GetReadyReplicas(), "cannot be greater than status.replicas")
	}
	if s.GetAvailableReplicas() > s.GetReplicas() {
		c.Invalid(p.Child("availableReplicas"), s.GetAvailableReplicas(), "cannot be greater than status.replicas")
	}
	if s.GetAvailableReplicas() > s.GetReadyReplicas() {
		c.Invalid(p.Child("availableReplicas"), s.GetAvailableReplicas(), "cannot be greater than readyReplicas")
	}
}
