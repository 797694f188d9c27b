package clienttest

import (
	"cmp"
	"strings"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/scheme"
)

// selector decides which objects a list or watch is about.
type selector struct {
	kind      *scheme.Kind
	namespace string
	labels    labels.Selector
	fields    fields.Selector
}

func newSelector(k *scheme.Kind, namespace, labelSelector, fieldSelector string) (*selector, error) {
	l, err := labels.Parse(labelSelector)
	if err != nil {
		return nil, apierr.BadField("label_selector", "%v", err)
	}
	f, err := fields.ParseSelector(fieldSelector)
	if err != nil {
		return nil, apierr.BadField("field_selector", "%v", err)
	}
	for _, r := range f.Requirements() {
		if _, ok := k.Field(r.Field); !ok {
			return nil, apierr.BadField("field_selector", "%s cannot be selected by %q", k.Plural, r.Field)
		}
	}
	return &selector{kind: k, namespace: namespace, labels: l, fields: f}, nil
}

func (s *selector) matches(obj scheme.Object) bool {
	m := obj.GetMetadata()
	if s.namespace != "" && m.GetNamespace() != s.namespace {
		return false
	}
	if !s.labels.Matches(labels.Set(m.GetLabels())) {
		return false
	}
	raw, err := proto.Marshal(obj)
	if err != nil {
		return false
	}
	values := fields.Set{}
	for _, r := range s.fields.Requirements() {
		if values[r.Field], err = scheme.FieldString(raw, s.kind, r.Field); err != nil {
			return false
		}
	}
	return s.fields.Matches(values)
}

func compare(a, b scheme.Object) int {
	x, y := a.GetMetadata(), b.GetMetadata()
	return cmp.Or(strings.Compare(x.GetNamespace(), y.GetNamespace()), strings.Compare(x.GetName(), y.GetName()))
}
