package core

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Names of the resources that every node has.
const (
	ResourceCPU              = "cpu"
	ResourceMemory           = "memory"
	ResourceEphemeralStorage = "ephemeral-storage"
	ResourcePods             = "pods"
	ResourceHugePagesPrefix  = "hugepages-"
)

// checkAmounts checks a list of resources: qualified names and amounts that are not negative.
func checkAmounts(c *rules.Checker, p *field.Path, list map[string]*metav1.Quantity) {
	for _, name := range slices.Sorted(maps.Keys(list)) {
		at := p.Key(name)
		checkResourceName(c, at, name)
		checkAmount(c, at, name, list[name])
	}
}

func checkAmount(c *rules.Checker, p *field.Path, name string, q *metav1.Quantity) {
	v, err := object.Amount(q)
	if err != nil {
		c.Invalid(p, q.GetString_(), err.Error())
		return
	}
	if v.Sign() < 0 {
		c.Invalid(p, q.GetString_(), rules.NotNegative)
		return
	}
	if strings.Contains(name, "/") && v.MilliValue()%1000 != 0 {
		c.Invalid(p, q.GetString_(), "must be an integer")
		return
	}
}

func checkResourceName(c *rules.Checker, p *field.Path, name string) {
	c.Each(p, name, validation.IsQualifiedName(name))
}

// checkContainerResourceName checks the name of a resource that containers may ask for.
func checkContainerResourceName(c *rules.Checker, p *field.Path, name string) {
	if wrong := validation.IsQualifiedName(name); len(wrong) > 0 {
		c.Each(p, name, wrong)
		return
	}
	domain, _, qualified := strings.Cut(name, "/")
	switch {
	case qualified && strings.HasSuffix(domain, "kubernetes.io"):
	case qualified && strings.HasPrefix(domain, "requests."):
		c.Invalid(p, name, "doesn't follow extended resource name standard")
	case qualified || standardResource(name):
	default:
		if !quotaResource(name) {
			c.Invalid(p, name, "must be a standard resource type or fully qualified")
		}
		c.Invalid(p, name, "must be a standard resource for containers")
	}
}

// quotaResource are the further names without a domain, which quotas use.
func quotaResource(name string) bool {
	switch strings.TrimPrefix(strings.TrimPrefix(name, "requests."), "limits.") {
	case ResourceCPU, ResourceMemory, ResourceEphemeralStorage, ResourcePods, "resourcequotas", "services",
		"replicationcontrollers", "secrets", "persistentvolumeclaims", "configmaps", "services.nodeports", "services.loadbalancers", "storage":
		return true
	}
	return strings.HasPrefix(name, "requests."+ResourceHugePagesPrefix)
}

// checkHugePages checks an amount of huge pages, of which there are whole ones only.
func checkHugePages(c *rules.Checker, p *field.Path, name string, q *metav1.Quantity) {
	size, ok := strings.CutPrefix(name, ResourceHugePagesPrefix)
	if !ok {
		return
	}
	page, err := object.ParseQuantity(size)
	amount, err2 := object.Amount(q)
	if err != nil || err2 != nil || page.Sign() <= 0 || amount.Sign() <= 0 || amount.Value()%page.Value() != 0 {
		c.Invalid(p, q.GetString_(), q.GetString_()+" is not positive integer multiple of "+name)
	}
}

// checkHugePagesAlone refuses huge pages for what asks for neither cpu nor memory.
func checkHugePagesAlone(c *rules.Checker, p *field.Path, r *corev1.ResourceRequirements) {
	pages, compute := false, false
	for _, list := range []map[string]*metav1.Quantity{r.GetLimits(), r.GetRequests()} {
		for name := range list {
			pages = pages || strings.HasPrefix(name, ResourceHugePagesPrefix)
			compute = compute || name == ResourceCPU || name == ResourceMemory
		}
	}
	if pages && !compute {
		c.Forbidden(p, "HugePages require cpu or memory")
	}
}

// standardResource are the names without a domain that containers may ask for.
func standardResource(name string) bool {
	return name == ResourceCPU || name == ResourceMemory || name == ResourceEphemeralStorage ||
		strings.HasPrefix(name, ResourceHugePagesPrefix)
}

// overcommittable resources may have limits above their requests.
func overcommittable(name string) bool {
	native := !strings.Contains(name, "/") || strings.Contains(name, "kubernetes.io/")
	return native && !strings.HasPrefix(name, ResourceHugePagesPrefix)
}

// CheckResources checks the limits and requests of a container, a pod or an overhead.
func CheckResources(c *rules.Checker, p *field.Path, r *corev1.ResourceRequirements) {
	limits, requests := p.Child("limits"), p.Child("requests")
	list := func(p *field.Path, amounts map[string]*metav1.Quantity) {
		for _, name := range slices.Sorted(maps.Keys(amounts)) {
			at := p.Key(name)
			checkContainerResourceName(c, at, name)
			checkAmount(c, at, name, amounts[name])
			checkHugePages(c, at, name, amounts[name])
		}
	}
	list(limits, r.GetLimits())
	list(requests, r.GetRequests())
	checkHugePagesAlone(c, p, r)

	for _, name := range slices.Sorted(maps.Keys(r.GetRequests())) {
		limit, limited := r.GetLimits()[name]
		want, err := object.Amount(r.GetRequests()[name])
		if err != nil {
			continue
		}
		if !limited {
			if !overcommittable(name) {
				c.Required(limits, "Limit must be set for non overcommitable resources")
			}
			continue
		}
		most, err := object.Amount(limit)
		switch {
		case err != nil:
		case want.Cmp(most) > 0:
			c.Invalid(requests, r.GetRequests()[name].GetString_(), "must be less than or equal to "+name+" limit of "+limit.GetString_())
		case want.Cmp(most) < 0 && !overcommittable(name):
			c.Invalid(requests, r.GetRequests()[name].GetString_(), "must be equal to "+name+" limit of "+limit.GetString_())
		}
	}
}
