package apps

import (
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
)

var (
	daemonSetRules = rules.For[*appsv1.DaemonSet]{
		Name:     rules.NameIsSubdomain,
		Defaults: defaultDaemonSet,
		Check:    checkDaemonSet,
		CheckUpdate: func(new, old *appsv1.DaemonSet, c *rules.Checker) {
			checkSelectorUpdate(c, new.GetSpec().GetSelector(), old.GetSpec().GetSelector())
		},
		CheckStatus: func(new, old *appsv1.DaemonSet, c *rules.Checker) {
			if n := new.GetStatus().GetCollisionCount(); n < old.GetStatus().GetCollisionCount() {
				c.Invalid(field.NewPath("status", "collisionCount"), n, "cannot be decremented")
			}
		},
		Warn: func(d *appsv1.DaemonSet) []string {
			t := d.GetSpec().GetTemplate()
			return core.WarnPod(field.NewPath("spec", "template"), t.GetMetadata(), t.GetSpec())
		},
	}
	daemonSetColumns = []scheme.Column{
		daemonSetCount("DESIRED", "desiredNumberScheduled", (*appsv1.DaemonSetStatus).GetDesiredNumberScheduled),
		daemonSetCount("CURRENT", "currentNumberScheduled", (*appsv1.DaemonSetStatus).GetCurrentNumberScheduled),
		daemonSetCount("READY", "numberReady", (*appsv1.DaemonSetStatus).GetNumberReady),
		daemonSetCount("UP-TO-DATE", "updatedNumberScheduled", (*appsv1.DaemonSetStatus).GetUpdatedNumberScheduled),
		daemonSetCount("AVAILABLE", "numberAvailable", (*appsv1.DaemonSetStatus).GetNumberAvailable),
		column.New("NODE SELECTOR", func(d *appsv1.DaemonSet) string {
			return column.FormatLabels(d.GetSpec().GetTemplate().GetSpec().GetNodeSelector())
		}),
		column.AgeColumn,
		column.Wide("CONTAINERS", func(d *appsv1.DaemonSet) string { return core.TemplateContainers(d.GetSpec().GetTemplate()) }),
		column.Wide("IMAGES", func(d *appsv1.DaemonSet) string { return core.TemplateImages(d.GetSpec().GetTemplate()) }),
		column.Wide("SELECTOR", func(d *appsv1.DaemonSet) string { return column.FormatLabelSelector(d.GetSpec().GetSelector()) }),
	}
)

// daemonSetCount is the column of a number of the status.
func daemonSetCount(heading, name string, count func(*appsv1.DaemonSetStatus) int32) scheme.Column {
	return column.At(".status."+name, column.New(heading, func(d *appsv1.DaemonSet) string {
		return strconv.Itoa(int(count(d.GetStatus())))
	}))
}

func defaultDaemonSet(d *appsv1.DaemonSet) {
	if s := d.Spec.UpdateStrategy; s.GetType() == StrategyRollingUpdate {
		if s.RollingUpdate == nil {
			s.RollingUpdate = &appsv1.RollingUpdateDaemonSet{}
		}
		if s.RollingUpdate.MaxUnavailable == nil {
			s.RollingUpdate.MaxUnavailable = object.Count(1)
		}
		if s.RollingUpdate.MaxSurge == nil {
			s.RollingUpdate.MaxSurge = object.Count(0)
		}
	}
	core.DefaultTemplate(d.Spec.Template)
}

func checkDaemonSet(d *appsv1.DaemonSet, c *rules.Checker) {
	p, s := field.NewPath("spec"), d.GetSpec()
	checkSelectorAndTemplate(c, "DaemonSet", p, s.GetSelector(), s.GetTemplate())
	if s.GetUpdateStrategy().GetType() == StrategyRollingUpdate {
		checkRollingUpdateOfNodes(c, p.Child("updateStrategy", "rollingUpdate"), s.GetUpdateStrategy().GetRollingUpdate())
	}
}

// checkRollingUpdateOfNodes requires that exactly one of the limits is not 0.
func checkRollingUpdateOfNodes(c *rules.Checker, p *field.Path, r *appsv1.RollingUpdateDaemonSet) {
	unavailable, surge := p.Child("maxUnavailable"), p.Child("maxSurge")
	down, percentDown, ok1 := object.PercentOrCount(r.GetMaxUnavailable())
	up, percentUp, ok2 := object.PercentOrCount(r.GetMaxSurge())
	const tooMany = "must not be greater than 100%"
	if ok1 && percentDown && down > 100 {
		c.Invalid(unavailable, object.IntOrStringText(r.GetMaxUnavailable()), tooMany)
	}
	if ok2 && percentUp && up > 100 {
		c.Invalid(surge, object.IntOrStringText(r.GetMaxSurge()), tooMany)
	}
	switch {
	case !ok1 || !ok2:
		// The schema has the error.
	case down != 0 && up != 0:
		c.Invalid(surge, object.IntOrStringText(r.GetMaxSurge()), "may not be set when maxUnavailable is non-zero")
	case down == 0 && up == 0:
		c.Required(unavailable, "cannot be 0 when maxSurge is 0")
	}
}
