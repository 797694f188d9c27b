// Package object reads the values that objects of all kinds are made of: label selectors,
// quantities, counts that may be percentages, and finalizers.
package object

import (
	"errors"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
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
