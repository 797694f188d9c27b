package object

import (
	"fmt"
	"math"
	"strings"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// IntOrStringText returns the number or the text, as errors show the value.
func IntOrStringText(v *metav1.IntOrString) any {
	if v.GetType() == 0 {
		return v.GetIntVal()
	}
	return v.GetStrVal()
}

// PercentOrCount reads a number of pods that may be a percentage; false when it is neither.
func PercentOrCount(v *metav1.IntOrString) (n int32, percent, ok bool) {
	if v.GetType() == 0 {
		return v.GetIntVal(), false, true
	}
	text, ok := strings.CutSuffix(v.GetStrVal(), "%")
	if !ok || text == "" || len(text) > 9 {
		return 0, false, false
	}
	for _, r := range text {
		if r < '0' || r > '9' {
			return 0, false, false
		}
		n = n*10 + int32(r-'0')
	}
	return n, true, true
}

// ScaledValue returns a count, or a percentage of total that is rounded up or down; it returns an
// error for other values. A value that is not set is 0. Values that overflow are the largest int32.
func ScaledValue(v *metav1.IntOrString, total int32, roundUp bool) (int32, error) {
	n, percent, ok := PercentOrCount(v)
	if !ok {
		return 0, fmt.Errorf("%q is neither a number nor a percentage", v.GetStrVal())
	}
	if !percent {
		return n, nil
	}
	scaled := int64(n) * int64(total)
	if roundUp {
		scaled += 99
	}
	return int32(min(scaled/100, math.MaxInt32)), nil
}

// Count makes an IntOrString of a number.
func Count(n int32) *metav1.IntOrString { return &metav1.IntOrString{IntVal: n} }

// Text makes an IntOrString of a string, such as 25%.
func Text(s string) *metav1.IntOrString { return &metav1.IntOrString{Type: 1, StrVal: s} }
