package object_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/xebec-project/xebec/internal/object"
)

// FuzzParseQuantity parses quantities: none is accepted that Kubernetes refuses, and the value is
// the same.
func FuzzParseQuantity(f *testing.F) {
	for _, text := range []string{"1", "100m", "1.5Gi", "1e3", "1E", "-0.1", "1e999999", "9223372036854775808", "0x10", " 1", "1ki"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := object.ParseQuantity(text)
		if err != nil {
			return
		}
		want, err := resource.ParseQuantity(text)
		if err != nil || got.Cmp(want) != 0 {
			t.Errorf("%q is %s, in Kubernetes %s, %v", text, &got, &want, err)
		}
	})
}
