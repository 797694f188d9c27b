package client

import (
	"slices"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// Absent is the condition that an object does not exist.
func Absent(k *scheme.Kind, namespace, name string) *apiv1.Condition {
	return &apiv1.Condition{Object: reference(k, namespace, name), Expectation: apiv1.Expectation_EXPECTATION_ABSENT}
}

// AtRevision is the condition that an object has not changed since obj was read.
func AtRevision(obj scheme.Object) *apiv1.Condition {
	m := obj.GetMetadata()
	return &apiv1.Condition{
		Object:      reference(kinds.Of(obj), m.GetNamespace(), m.GetName()),
		Expectation: apiv1.Expectation_EXPECTATION_AT_REVISION, ResourceVersion: m.GetResourceVersion(),
	}
}

// WithConditions returns a copy whose writes, transactions among them, happen only while these
// conditions on other objects hold as well as those of c, at most 100: those of Absent and
// AtRevision, or others that the caller makes. A write whose condition does not hold fails:
// apierr.IsConditionFailed. The caller needs the right to get or watch the objects.
func (c *Client) WithConditions(conditions ...*apiv1.Condition) *Client {
	d := *c
	d.conditions = slices.Concat(c.conditions, conditions)
	return &d
}
