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

// Amount reads a quantity; one that is not set is 0. Stored objects hold only what Validate let pass, so that an error
// here means that the object never was validated.
func Amount(q *metav1.Quantity) (resource.Quantity, error) {
	if q.GetString_() == "" {
		return resource.Quantity{}, nil
	}
	return ParseQuantity(q.GetString_())
}

// ErrQuantityRange is returned by ParseQuantity for what no resource ever comes near.
var ErrQuantityRange = errors.New("the quantity is out of range")

// ParseQuantity reads a quantity from an untrusted source. Unlike the parser of Kubernetes, which writes every number
// out in full and so takes minutes for 1e-99999999, it refuses exponents of more than two digits and texts of more than
// 128 bytes, with ErrQuantityRange.
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

// amounts checks a list of resources: names and amounts that are no less than nothing.
func (c *checker) amounts(p *field.Path, list map[string]*metav1.Quantity) {
	for _, name := range sorted(list) {
		at := p.Key(name)
		c.resourceName(at, name)
		c.amount(at, name, list[name])
	}
}

func (c *checker) amount(p *field.Path, name string, q *metav1.Quantity) (resource.Quantity, bool) {
	v, err := Amount(q)
	if err != nil {
		c.invalid(p, q.GetString_(), err.Error())
		return v, false
	}
	if v.Sign() < 0 {
		c.invalid(p, q.GetString_(), notNegative)
		return v, false
	}
	if strings.Contains(name, "/") && v.MilliValue()%1000 != 0 {
		c.invalid(p, q.GetString_(), "must be an integer")
		return v, false
	}
	return v, true
}

func (c *checker) resourceName(p *field.Path, name string) {
	c.each(p, name, validation.IsQualifiedName(name))
}

// standardResource are the names without a domain that containers may ask for.
func standardResource(name string) bool {
	return name == ResourceCPU || name == ResourceMemory || name == ResourceEphemeralStorage ||
		strings.HasPrefix(name, ResourceHugePagesPrefix)
}

// overcommittable resources may have limits above their requests.
func overcommittable(name string) bool {
	return name == ResourceCPU || name == ResourceMemory || name == ResourceEphemeralStorage
}

func (c *checker) resources(p *field.Path, r *corev1.ResourceRequirements) {
	limits, requests := p.Child("limits"), p.Child("requests")
	list := func(p *field.Path, amounts map[string]*metav1.Quantity) {
		for _, name := range sorted(amounts) {
			at := p.Key(name)
			c.resourceName(at, name)
			if !strings.Contains(name, "/") && !standardResource(name) {
				c.invalid(at, name, "must be a standard resource for containers")
			}
			c.amount(at, name, amounts[name])
		}
	}
	list(limits, r.GetLimits())
	list(requests, r.GetRequests())

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
	c.refused(p, r)
}
