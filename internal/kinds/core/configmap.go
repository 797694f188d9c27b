package core

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// MaxConfigSize is how many bytes the values of a ConfigMap or a Secret may take together.
const MaxConfigSize = 1 << 20

const lockedWhenImmutable = "field is immutable when `immutable` is set"

var (
	configMapRules = rules.For[*corev1.ConfigMap]{
		Name:        rules.NameIsSubdomain,
		Check:       checkConfigMap,
		CheckUpdate: checkConfigMapUpdate,
	}
	configMapColumns = []scheme.Column{
		column.New("DATA", func(m *corev1.ConfigMap) string { return strconv.Itoa(len(m.GetData()) + len(m.GetBinaryData())) }),
		column.AgeColumn,
	}
)

func checkConfigMap(m *corev1.ConfigMap, c *rules.Checker) {
	size := 0
	data := field.NewPath("data")
	for _, key := range slices.Sorted(maps.Keys(m.GetData())) {
		if _, both := m.GetBinaryData()[key]; both {
			c.Invalid(data.Key(key), key, "duplicate of key present in binaryData")
		}
		size += len(m.GetData()[key])
	}
	for _, value := range m.GetBinaryData() {
		size += len(value)
	}
	if size > MaxConfigSize {
		// The limit is for the sum; users expect the error at the larger part.
		c.Add(&field.Error{Type: field.ErrorTypeTooLong, Field: "data",
			Detail: fmt.Sprintf("may not be more than %d bytes, binaryData included", MaxConfigSize)})
	}
}

func checkConfigMapUpdate(new, old *corev1.ConfigMap, c *rules.Checker) {
	if !old.GetImmutable() {
		return
	}
	if !new.GetImmutable() {
		c.Forbidden(field.NewPath("immutable"), lockedWhenImmutable)
	}
	if !maps.Equal(new.GetData(), old.GetData()) {
		c.Forbidden(field.NewPath("data"), lockedWhenImmutable)
	}
	if !maps.EqualFunc(new.GetBinaryData(), old.GetBinaryData(), bytes.Equal) {
		c.Forbidden(field.NewPath("binaryData"), lockedWhenImmutable)
	}
}
