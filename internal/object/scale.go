package object

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// ScaleSelector returns the selector of the pods of an object, whose kind has a Scale, as a List
// takes it; empty when there is none.
func ScaleSelector(k *scheme.Kind, o scheme.Object) (string, error) {
	value, ok := k.Selector(o)
	if !ok {
		return "", nil
	}
	if text, ok := value.Interface().(string); ok {
		return text, nil
	}
	if set, ok := value.Interface().(protoreflect.Map); ok {
		return labelsOf(set).AsSelector().String(), nil
	}
	selector := &metav1.LabelSelector{}
	raw, err := proto.Marshal(value.Message().Interface())
	if err == nil {
		err = proto.Unmarshal(raw, selector)
	}
	if err != nil {
		return "", err
	}
	parsed, err := LabelSelector(selector)
	if err != nil {
		return "", err
	}
	return parsed.String(), nil
}

func labelsOf(m protoreflect.Map) labels.Set {
	set := labels.Set{}
	m.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		set[key.String()] = value.String()
		return true
	})
	return set
}
