package rules

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	// NotNegative is the detail of errors on negative numbers.
	NotNegative = "must be greater than or equal to 0"
	// Immutable is the detail of errors on fields that no update may change.
	Immutable = "field is immutable"
)

// SetOf returns the set of the keys of a list. Clients decide how long lists are: looking each
// element of one list up in another takes minutes for the longest.
func SetOf[T any, K comparable](list []T, key func(T) K) map[K]bool {
	out := make(map[K]bool, len(list))
	for _, x := range list {
		out[key(x)] = true
	}
	return out
}

// Checker collects the errors of an object.
type Checker struct {
	// List has the errors in the order in which they were found.
	List field.ErrorList
}

// Add adds an error.
func (c *Checker) Add(err *field.Error) { c.List = append(c.List, err) }

// Required adds an error on a field that is not set.
func (c *Checker) Required(p *field.Path, detail string) { c.Add(field.Required(p, detail)) }

// Forbidden adds an error on a field that must not be set or changed.
func (c *Checker) Forbidden(p *field.Path, detail string) { c.Add(field.Forbidden(p, detail)) }

// Invalid adds an error on a value.
func (c *Checker) Invalid(p *field.Path, value any, detail string) {
	c.Add(field.Invalid(p, value, detail))
}

// Each adds one error per message that a function of the validation package returned.
func (c *Checker) Each(p *field.Path, value any, messages []string) {
	for _, m := range messages {
		c.Add(field.Invalid(p, value, m))
	}
}

// OneOf checks an enumeration; empty is an error too.
func (c *Checker) OneOf(p *field.Path, value string, allowed ...string) bool {
	switch {
	case value == "":
		c.Required(p, "supported values: "+quoted(allowed))
	case !slices.Contains(allowed, value):
		c.Add(field.NotSupported(p, value, allowed))
	default:
		return true
	}
	return false
}

func quoted(values []string) string {
	var out []string
	for _, v := range values {
		out = append(out, fmt.Sprintf("%q", v))
	}
	return strings.Join(out, ", ")
}

// PortNumber checks a port, 1 to 65535.
func (c *Checker) PortNumber(p *field.Path, n int32) {
	c.Each(p, n, validation.IsValidPortNum(int(n)))
}

// Unchanged refuses a change of a scalar field.
func Unchanged[T comparable](c *Checker, p *field.Path, new, old T) {
	if new != old {
		c.Invalid(p, new, Immutable)
	}
}

// unchangedPointer refuses a change of an optional scalar field, between set and not set too.
func unchangedPointer[T comparable](c *Checker, p *field.Path, new, old *T) {
	switch {
	case Equal(new, old):
	case new == nil:
		c.Add(&field.Error{Type: field.ErrorTypeInvalid, Field: p.String(), BadValue: nil, Detail: Immutable})
	default:
		c.Invalid(p, *new, Immutable)
	}
}

// Equal reports whether two optional fields are both absent, or set to the same value.
func Equal[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// Names remembers what must be unique within an object.
type Names map[string]bool

// Unique adds a Duplicate error when the value was seen before.
func (c *Checker) Unique(p *field.Path, seen Names, value string) {
	if seen[value] {
		c.Add(field.Duplicate(p, value))
	}
	seen[value] = true
}

// DNSLabel checks a required name that is a label in DNS, as those of containers and volumes.
func (c *Checker) DNSLabel(p *field.Path, value string) bool {
	if value == "" {
		c.Required(p, "")
		return false
	}
	c.Each(p, value, validation.IsDNS1123Label(value))
	return true
}

// ObjectName checks a required reference to an object whose name is a DNS subdomain.
func (c *Checker) ObjectName(p *field.Path, value string) {
	if value == "" {
		c.Required(p, "")
		return
	}
	c.Each(p, value, validation.IsDNS1123Subdomain(value))
}

// IP checks an address of either family.
func (c *Checker) IP(p *field.Path, value string) netip.Addr {
	if errs := validation.IsValidIPForLegacyField(p, value, true, nil); len(errs) > 0 {
		c.List = append(c.List, errs...)
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(value)
	return a
}

// CIDR checks a network of either family, whose address has no bits beyond the prefix.
func (c *Checker) CIDR(p *field.Path, value string) netip.Prefix {
	if errs := validation.IsValidCIDRForLegacyField(p, value, true, nil); len(errs) > 0 {
		c.List = append(c.List, errs...)
		return netip.Prefix{}
	}
	n, _ := netip.ParsePrefix(value)
	return n
}

// NameIsSubdomain returns what is wrong with a name that has to be a DNS subdomain.
func NameIsSubdomain(name string) []string { return validation.IsDNS1123Subdomain(name) }

// NameIsLabel returns what is wrong with a name that has to be a DNS label.
func NameIsLabel(name string) []string { return validation.IsDNS1123Label(name) }
