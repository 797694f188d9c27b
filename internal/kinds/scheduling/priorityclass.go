// Package scheduling has the kinds of the group scheduling.k8s.io.
package scheduling

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	schedulingv1 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1"
)

const (
	// SystemPrefix begins the names of the cluster's own classes.
	SystemPrefix = "system-"
	// SystemClusterCritical is the class of pods that the cluster needs on some node.
	SystemClusterCritical = SystemPrefix + "cluster-critical"
	// SystemNodeCritical is the class of pods that the cluster needs on their node.
	SystemNodeCritical = SystemPrefix + "node-critical"

	// MaxUserPriority is the highest priority of classes that are not the cluster's own.
	MaxUserPriority = 1_000_000_000
	// SystemPriority is the priority from which on pods are critical.
	SystemPriority = 2 * MaxUserPriority

	// PreemptLowerPriority is the policy of pods that displace others.
	PreemptLowerPriority = "PreemptLowerPriority"
	// PreemptNever is the policy of pods that displace no others.
	PreemptNever = "Never"
)

var (
	priorityClassRules = rules.For[*schedulingv1.PriorityClass]{
		Name:        rules.NameIsSubdomain,
		CheckNew:    checkNewPriorityClass,
		CheckUpdate: checkPriorityClassUpdate,
	}
	priorityClassColumns = []scheme.Column{
		column.At(".value", column.New("VALUE", func(c *schedulingv1.PriorityClass) string { return strconv.Itoa(int(c.GetValue())) })),
		column.At(".globalDefault", column.New("GLOBAL-DEFAULT", func(c *schedulingv1.PriorityClass) string {
			return strconv.FormatBool(c.GetGlobalDefault())
		})),
		column.AgeColumn,
		column.Wide("PREEMPTIONPOLICY", (*schedulingv1.PriorityClass).GetPreemptionPolicy),
	}
)

// SystemClasses returns new objects of the classes that every cluster has.
func SystemClasses() []*schedulingv1.PriorityClass {
	class := func(name string, value int32, description string) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{Metadata: &metav1.ObjectMeta{Name: name}, Value: value, Description: description}
	}
	return []*schedulingv1.PriorityClass{
		class(SystemNodeCritical, SystemPriority+1000, "For pods that must not leave the node on which they run."),
		class(SystemClusterCritical, SystemPriority, "For pods that the cluster needs, which may move to another node."),
	}
}

// IsSystemClass reports whether a name is that of a class that every cluster has.
func IsSystemClass(name string) bool {
	return slices.ContainsFunc(SystemClasses(), func(c *schedulingv1.PriorityClass) bool { return c.GetMetadata().GetName() == name })
}

// checkNewPriorityClass checks what an update cannot change. The apiserver restores a system class
// that an update makes the default.
func checkNewPriorityClass(pc *schedulingv1.PriorityClass, c *rules.Checker) {
	name := pc.GetMetadata().GetName()
	if strings.HasPrefix(name, SystemPrefix) {
		if problem := systemProblem(pc); problem != "" {
			c.Forbidden(rules.MetadataPath.Child("name"),
				"priority class names with '"+SystemPrefix+"' prefix are reserved for system use only. error: "+problem)
		}
		return
	}
	if pc.GetValue() > MaxUserPriority {
		c.Forbidden(field.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %d", MaxUserPriority))
	}
}

// systemProblem returns in what a class with a reserved name differs from the system's.
func systemProblem(pc *schedulingv1.PriorityClass) string {
	name := pc.GetMetadata().GetName()
	for _, own := range SystemClasses() {
		switch {
		case own.GetMetadata().GetName() != name:
		case own.GetValue() != pc.GetValue():
			return fmt.Sprintf("value of %s PriorityClass must be %d", name, own.GetValue())
		case pc.GetGlobalDefault():
			return fmt.Sprintf("globalDefault of %s PriorityClass must be false", name)
		default:
			return ""
		}
	}
	return name + " is not a known system priority class"
}

func checkPriorityClassUpdate(now, old *schedulingv1.PriorityClass, c *rules.Checker) {
	if now.GetValue() != old.GetValue() {
		c.Forbidden(field.NewPath("value"), "may not be changed in an update.")
	}
}
