package kind

import (
	"bytes"
	"fmt"
	"maps"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// MaxConfigSize is how many bytes the values of a ConfigMap or a Secret may take together.
const MaxConfigSize = 1 << 20

const lockedWhenImmutable = "field is immutable when `immutable` is set"

var (
	configMapRules = rulesOf[*corev1.ConfigMap]{
		name:        nameIsSubdomain,
		check:       checkConfigMap,
		checkUpdate: checkConfigMapUpdate,
	}
	configMapColumns = []Column{
		column("DATA", func(m *corev1.ConfigMap) string { return strconv.Itoa(len(m.GetData()) + len(m.GetBinaryData())) }),
		AgeColumn,
	}
)

func checkConfigMap(m *corev1.ConfigMap, c *checker) {
	size := 0
	data := field.NewPath("data")
	for _, key := range sorted(m.GetData()) {
		if _, both := m.GetBinaryData()[key]; both {
			c.invalid(data.Key(key), key, "duplicate of key present in binaryData")
		}
		size += len(m.GetData()[key])
	}
	for _, value := range m.GetBinaryData() {
		size += len(value)
	}
	if size > MaxConfigSize {
		// The limit is for the sum; users expect the error at the larger part.
		c.add(&field.Error{Type: field.ErrorTypeTooLong, Field: "data",
			Detail: fmt.Sprintf("may not be more than %d bytes, binaryData included", MaxConfigSize)})
	}
}

func checkConfigMapUpdate(new, old *corev1.ConfigMap, c *checker) {
	if !old.GetImmutable() {
		return
	}
	if !new.GetImmutable() {
		c.forbidden(field.NewPath("immutable"), lockedWhenImmutable)
	}
	if !maps.Equal(new.GetData(), old.GetData()) {
		c.forbidden(field.NewPath("data"), lockedWhenImmutable)
	}
	if !maps.EqualFunc(new.GetBinaryData(), old.GetBinaryData(), bytes.Equal) {
		c.forbidden(field.NewPath("binaryData"), lockedWhenImmutable)
	}
}
