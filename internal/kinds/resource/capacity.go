package resource

import (
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

// maxAmounts is how many amounts a policy may list.
const maxAmounts = 10

// amount reads a quantity; one that is not set, or that it reports as invalid, is 0.
func amount(c *rules.Checker, p *field.Path, q *metav1.Quantity) resource.Quantity {
	a, err := object.Amount(q)
	if err != nil {
		c.Invalid(p, q.GetString_(), err.Error())
	}
	return a
}

func checkAmounts(c *rules.Checker, p *field.Path, amounts map[string]*metav1.Quantity) {
	for name, q := range amounts {
		amount(c, p.Key(name), q)
	}
}

// checkCapacity checks a capacity of a device, which is shared or not.
func checkCapacity(c *rules.Checker, p *field.Path, capacity *resourcev1.DeviceCapacity, shared bool) {
	whole, policy := amount(c, p.Child("value"), capacity.GetValue()), capacity.GetRequestPolicy()
	p = p.Child("requestPolicy")
	switch {
	case policy == nil:
	case !shared:
		c.Forbidden(p, "allowMultipleAllocations must be true")
	case len(policy.GetValidValues()) > 0 && policy.GetValidRange() != nil:
		c.Forbidden(p, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`)
	case len(policy.GetValidValues()) > 0 && policy.GetDefault() == nil:
		c.Required(p.Child("default"), "required when validValues is defined")
	case len(policy.GetValidValues()) > 0:
		checkValues(c, p.Child("validValues"), policy.GetValidValues(), amount(c, p.Child("default"), policy.GetDefault()), whole)
	case policy.GetValidRange() != nil && policy.GetDefault() == nil:
		c.Required(p.Child("default"), "required when validRange is defined")
	case policy.GetValidRange() != nil:
		checkRange(c, p.Child("validRange"), policy.GetValidRange(), amount(c, p.Child("default"), policy.GetDefault()), whole)
	}
}

// checkValues checks the amounts that requests can use of a capacity.
func checkValues(c *rules.Checker, p *field.Path, values []*metav1.Quantity, byDefault, whole resource.Quantity) {
	if len(values) > maxAmounts {
		c.Add(field.TooMany(p, len(values), maxAmounts))
		return
	}
	seen, found := rules.Names{}, false
	var last resource.Quantity
	for i, q := range values {
		value := amount(c, p.Index(i), q)
		if i > 0 && last.Cmp(value) > 0 {
			c.Invalid(p.Index(i), value.String(), "values must be sorted in ascending order")
		}
		if value.Cmp(whole) > 0 {
			c.Invalid(p.Index(i), value.String(), "option is larger than capacity value: "+whole.String())
		}
		c.Unique(p.Index(i), seen, strconv.FormatInt(value.Value(), 10))
		found = found || value.Cmp(byDefault) == 0
		last = value
	}
	if !found {
		c.Invalid(p, byDefault.String(), "default value is not valid according to the requestPolicy")
	}
}

// checkRange checks the range of the amounts that requests can use of a capacity.
func checkRange(c *rules.Checker, p *field.Path, r *resourcev1.CapacityRequestPolicyRange, byDefault, whole resource.Quantity) {
	if r.GetMin() == nil {
		c.Required(p.Child("min"), "required when validRange is defined")
		return
	}
	atMin, atMax := p.Child("min"), p.Child("max")
	least, greatest := amount(c, atMin, r.GetMin()), amount(c, atMax, r.GetMax())
	if least.Cmp(whole) > 0 {
		c.Invalid(atMin, least.String(), "min is larger than capacity value: "+whole.String())
	}
	if byDefault.Cmp(least) < 0 {
		c.Invalid(atMin, byDefault.String(), "default is less than min: "+least.String())
	}
	if r.GetMax() != nil {
		if least.Cmp(greatest) > 0 {
			c.Invalid(atMax, least.String(), "min is larger than max: "+greatest.String())
		}
		if greatest.Cmp(whole) > 0 {
			c.Invalid(atMax, greatest.String(), "max is larger than capacity value: "+whole.String())
		}
		if byDefault.Cmp(greatest) > 0 {
			c.Invalid(atMax, byDefault.String(), "default is more than max: "+greatest.String())
		}
	}
	if r.GetStep() == nil {
		return
	}
	at := p.Child("step")
	step := amount(c, at, r.GetStep())
	if step.Value() == 0 {
		c.Invalid(at, step.String(), "must not be zero")
		return
	}
	first := least.DeepCopy()
	first.Add(step)
	if first.Cmp(whole) > 0 {
		c.Invalid(at, step.String(), fmt.Sprintf("one step %s is larger than capacity value: %s", first.String(), whole.String()))
	}
	aligned := func(value resource.Quantity) {
		if (value.Value()-least.Value())%step.Value() != 0 {
			c.Invalid(at, value.String(), fmt.Sprintf("value is not a multiple of a given step (%s) from (%s)", step.String(), least.String()))
		}
	}
	aligned(byDefault)
	if r.GetMax() != nil {
		aligned(greatest)
	}
}
