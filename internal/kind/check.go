package kind

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	notNegative    = "must be greater than or equal to 0"
	fieldImmutable = "field is immutable"
)

// setOf returns the set of the keys of a list. Clients decide how long lists are: looking each
// element of one list up in another takes minutes for the longest.
func setOf[T any, K comparable](list []T, key func(T) K) map[K]bool {
	out := make(map[K]bool, len(list))
	for _, x := range list {
		out[key(x)] = true
	}
	return out
}

// checker collects what is wrong with an object.
type checker struct {
	list field.ErrorList
}

func (c *checker) add(err *field.Error) { c.list = append(c.list, err) }

func (c *checker) required(p *field.Path, detail string) { c.add(field.Required(p, detail)) }

func (c *checker) forbidden(p *field.Path, detail string) { c.add(field.Forbidden(p, detail)) }

func (c *checker) invalid(p *field.Path, value any, detail string) {
	c.add(field.Invalid(p, value, detail))
}

// each adds one error per message that a function of the validation package returned.
func (c *checker) each(p *field.Path, value any, messages []string) {
	for _, m := range messages {
		c.add(field.Invalid(p, value, m))
	}
}

// oneOf checks an enumeration; empty is an error too.
func (c *checker) oneOf(p *field.Path, value string, allowed ...string) bool {
	switch {
	case value == "":
		c.required(p, "supported values: "+quoted(allowed))
	case !slices.Contains(allowed, value):
		c.add(field.NotSupported(p, value, allowed))
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

func (c *checker) portNumber(p *field.Path, n int32) {
	c.each(p, n, validation.IsValidPortNum(int(n)))
}

// unchanged refuses a change of a scalar field.
func unchanged[T comparable](c *checker, p *field.Path, new, old T) {
	if new != old {
		c.invalid(p, new, fieldImmutable)
	}
}

// unchangedPointer refuses a change of an optional scalar field, between set and not set too.
func unchangedPointer[T comparable](c *checker, p *field.Path, new, old *T) {
	switch {
	case equal(new, old):
	case new == nil:
		c.add(&field.Error{Type: field.ErrorTypeInvalid, Field: p.String(), BadValue: nil, Detail: fieldImmutable})
	default:
		c.invalid(p, *new, fieldImmutable)
	}
}

// equal reports whether two optional fields are both absent, or set to the same value.
func equal[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// names remembers what must be unique within an object.
type names map[string]bool

// unique adds a Duplicate error when the value was seen before.
func (c *checker) unique(p *field.Path, seen names, value string) {
	if seen[value] {
		c.add(field.Duplicate(p, value))
	}
	seen[value] = true
}

// dnsLabel checks a required name that is a label in DNS, as those of containers and volumes.
func (c *checker) dnsLabel(p *field.Path, value string) bool {
	if value == "" {
		c.required(p, "")
		return false
	}
	c.each(p, value, validation.IsDNS1123Label(value))
	return true
}

// objectName checks a required reference to an object whose name is a DNS subdomain.
func (c *checker) objectName(p *field.Path, value string) {
	if value == "" {
		c.required(p, "")
		return
	}
	c.each(p, value, validation.IsDNS1123Subdomain(value))
}

// ip checks an address of either family.
func (c *checker) ip(p *field.Path, value string) netip.Addr {
	if errs := validation.IsValidIPForLegacyField(p, value, true, nil); len(errs) > 0 {
		c.list = append(c.list, errs...)
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(value)
	return a
}

// cidr checks a network of either family, whose address has no bits beyond the prefix.
func (c *checker) cidr(p *field.Path, value string) netip.Prefix {
	if errs := validation.IsValidCIDRForLegacyField(p, value, true, nil); len(errs) > 0 {
		c.list = append(c.list, errs...)
		return netip.Prefix{}
	}
	n, _ := netip.ParsePrefix(value)
	return n
}

// sorted returns the keys of a map in order, so that errors come in the same order every time.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func nameIsSubdomain(name string) []string { return validation.IsDNS1123Subdomain(name) }

func nameIsLabel(name string) []string { return validation.IsDNS1123Label(name) }
