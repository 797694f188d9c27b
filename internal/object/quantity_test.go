package object_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/object"
)

func TestParseQuantity(t *testing.T) {
	for _, text := range []string{"0", "500m", "1.5", "128Mi", "1e3", "1E", "2Ei", "-1e+03", "1e-9"} {
		if _, err := object.ParseQuantity(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	// The parser of Kubernetes would still be at work on the first of these when the test is killed.
	for _, text := range []string{"1e-99999999", "1E99999999", "1e-100", strings.Repeat("1", 129)} {
		if _, err := object.ParseQuantity(text); !errors.Is(err, object.ErrQuantityRange) {
			t.Errorf("%s: error is %v", text, err)
		}
	}
	if _, err := object.ParseQuantity("much"); err == nil || errors.Is(err, object.ErrQuantityRange) {
		t.Errorf("much: error is %v", err)
	}
}
