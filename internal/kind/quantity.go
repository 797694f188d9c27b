package kind

import (
	"errors"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

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

// Amount reads a quantity; one that is not set is 0. Stored objects hold only what Validate let
// pass, so that an error here means that the object never was validated.
func Amount(q *metav1.Quantity) (resource.Quantity, error) {
	if q.GetString_() == "" {
		return resource.Quantity{}, nil
	}
	return ParseQuantity(q.GetString_())
}

// ErrQuantityRange is returned by ParseQuantity for quantities far beyond any resource.
var ErrQuantityRange = errors.New("the quantity is out of range")

// ParseQuantity parses a quantity from an untrusted source. The parser of Kubernetes writes numbers
// out in full and takes minutes for 1e-99999999. ParseQuantity refuses exponents of more than two
// digits and texts of more than 128 bytes with ErrQuantityRange.
func ParseQuantity(text string) (resource.Quantity, error) {
	exponent := ""
	if i := strings.LastIndexAny(text, "eE"); i >= 0 {
		exponent = strings.TrimLeft(text[i+1:], "+-0")
	}
	if len(exponent) > 2 || len(text) > 128 {
		return resource.Quantity{}, ErrQuantityRange
	}
	return resource.ParseQuantity(text)
}

// amounts checks a list of resources: qualified names and amounts that are not negative.
func (c *checker) amounts(p *field.Path, list map[string]*metav1.Quantity) {
	for _, name := range sorted(list) {
		at := p.Key(name)
		c.resourceName(at, name)
		c.amount(at, name, list[name])
	}
}

func (c *checker) amount(p *field.Path, name string, q *metav1.Quantity) {
	v, err := Amount(q)
	if err != nil {
		c.invalid(p, q.GetString_(), err.Error())
		return
	}
	if v.Sign() < 0 {
		c.invalid(p, q.GetString_(), notNegative)
		return
	}
	if strings.Contains(name, "/") && v.MilliValue()%1000 != 0 {
		c.invalid(p, q.GetString_(), "must be an integer")
		return
	}
}

func (c *checker) resourceName(p *field.Path, name string) {
	c.each(p, name, validation.IsQualifiedName(name))
}

// containerResourceName checks the name of a resource that containers may ask for.
func (c *checker) containerResourceName(p *field.Path, name string) {
	if wrong := validation.IsQualifiedName(name); len(wrong) > 0 {
		c.each(p, name, wrong)
		return
	}
	domain, _, qualified := strings.Cut(name, "/")
	switch {
	case qualified && strings.HasSuffix(domain, "kubernetes.io"):
	case qualified && strings.HasPrefix(domain, "requests."):
		c.invalid(p, name, "doesn't follow extended resource name standard")
	case qualified || standardResource(name):
	default:
		if !quotaResource(name) {
			c.invalid(p, name, "must be a standard resource type or fully qualified")
		}
		c.invalid(p, name, "must be a standard resource for containers")
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

// hugePages checks an amount of huge pages, of which there are whole ones only.
func (c *checker) hugePages(p *field.Path, name string, q *metav1.Quantity) {
	size, ok := strings.CutPrefix(name, ResourceHugePagesPrefix)
	if !ok {
		return
	}
	page, err := ParseQuantity(size)
	amount, err2 := Amount(q)
	if err != nil || err2 != nil || page.Sign() <= 0 || amount.Sign() <= 0 || amount.Value()%page.Value() != 0 {
		c.invalid(p, q.GetString_(), q.GetString_()+" is not positive integer multiple of "+name)
	}
}

// hugePagesAlone refuses huge pages for what asks for neither cpu nor memory.
func (c *checker) hugePagesAlone(p *field.Path, r *corev1.ResourceRequirements) {
	pages, compute := false, false
	for _, list := range []map[string]*metav1.Quantity{r.GetLimits(), r.GetRequests()} {
		for name := range list {
			pages = pages || strings.HasPrefix(name, ResourceHugePagesPrefix)
			compute = compute || name == ResourceCPU || name == ResourceMemory
		}
	}
	if pages && !compute {
		c.forbidden(p, "HugePages require cpu or memory")
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

func (c *checker) resources(p *field.Path, r *corev1.ResourceRequirements) {
	limits, requests := p.Child("limits"), p.Child("requests")
	list := func(p *field.Path, amounts map[string]*metav1.Quantity) {
		for _, name := range sorted(amounts) {
			at := p.Key(name)
			c.containerResourceName(at, name)
			c.amount(at, name, amounts[name])
			c.hugePages(at, name, amounts[name])
		}
	}
	list(limits, r.GetLimits())
	list(requests, r.GetRequests())
	c.hugePagesAlone(p, r)

	for _, name := range sorted(r.GetRequests()) {
		limit, limited := r.GetLimits()[name]
		want, err := Amount(r.GetRequests()[name])
		if err != nil {
			continue
		}
		if !limited {
			if !overcommittable(name) {
				c.required(limits, "Limit must be set for non overcommitable resources")
			}
			continue
		}
		most, err := Amount(limit)
		switch {
		case err != nil:
		case want.Cmp(most) > 0:
			c.invalid(requests, r.GetRequests()[name].GetString_(), "must be less than or equal to "+name+" limit of "+limit.GetString_())
		case want.Cmp(most) < 0 && !overcommittable(name):
			c.invalid(requests, r.GetRequests()[name].GetString_(), "must be equal to "+name+" limit of "+limit.GetString_())
		}
	}
}
