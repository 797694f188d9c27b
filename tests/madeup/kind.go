// Package madeup is a kind that no part of Xebec knows, to show what a kind takes: messages for
// each version with their rules as options, a description with the rules that span fields and the
// conversion, and a controller.
package madeup

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	gadgetsv1 "github.com/xebec-project/xebec/tests/madeup/proto/gadgets/v1"
	gadgetsv2 "github.com/xebec-project/xebec/tests/madeup/proto/gadgets/v2"
)

// Group is the API group of the kind.
const Group = "gadgets.example.com"

// maxSize is how large the parts of a gadget may be together.
const maxSize = 100

// Kinds returns the versions of the kind, the stored one first.
func Kinds() []*scheme.Kind {
	subresources := []scheme.Subresource{
		{Name: "scale", Verbs: []string{"get", "patch", "update"}}, {Name: "status", Verbs: []string{"patch", "update"}},
	}
	v1 := &scheme.Kind{
		Group: Group, Version: "v1", Name: "Gadget", Plural: "gadgets", Singular: "gadget", ShortNames: []string{"gd"},
		Namespaced: true, Dynamic: true, Subresources: subresources,
		Scale: &scheme.Scale{Replicas: ".spec.replicas", StatusReplicas: ".status.replicas", Selector: ".status.selector"},
		New:   func() scheme.Object { return new(gadgetsv1.Gadget) },
		Columns: []scheme.Column{
			{Name: "MODEL", Path: ".spec.model", Value: func(o scheme.Object, _ time.Time) string {
				return o.(*gadgetsv1.Gadget).GetSpec().GetModel()
			}},
			column.AgeColumn,
		},
		Fields: map[string][]protowire.Number{"spec.model": {2, 2}},
		Rules:  rules.FromDescriptor(checkSize),
		Comments: map[protoreflect.FullName]string{
			"gadgets.v1.GadgetSpec":          "GadgetSpec is the wanted state of a Gadget.",
			"gadgets.v1.GadgetSpec.replicas": "How many there should be.",
		},
	}
	v2 := &scheme.Kind{
		Group: Group, Version: "v2", Name: "Gadget", Plural: "gadgets", Singular: "gadget", ShortNames: []string{"gd"},
		Namespaced: true, Dynamic: true, Subresources: subresources,
		Scale:      &scheme.Scale{Replicas: ".spec.count", StatusReplicas: ".status.count"},
		New:        func() scheme.Object { return new(gadgetsv2.Gadget) },
		Columns:    []scheme.Column{column.AgeColumn},
		Fields:     map[string][]protowire.Number{"spec.count": {2, 1}},
		Rules:      rules.FromDescriptor(nil),
		Conversion: &scheme.Conversion{Stored: v1, ToStored: toV1, FromStored: toV2},
	}
	return []*scheme.Kind{v1, v2}
}

// checkSize is a rule that spans fields.
func checkSize(o scheme.Object) field.ErrorList {
	size := int32(0)
	for _, part := range o.(*gadgetsv1.Gadget).GetSpec().GetParts() {
		size += part.GetSize()
	}
	if size > maxSize {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "parts"), size, "must be at most 100 together")}
	}
	return nil
}

func toV1(o scheme.Object) (scheme.Object, error) {
	from := proto.CloneOf(o.(*gadgetsv2.Gadget))
	to := &gadgetsv1.Gadget{Metadata: from.GetMetadata()}
	if from.Spec != nil {
		to.Spec = &gadgetsv1.GadgetSpec{Replicas: from.Spec.Count, Model: from.Spec.GetModel()}
		for _, name := range slices.Sorted(maps.Keys(from.GetSpec().GetParts())) {
			to.Spec.Parts = append(to.Spec.Parts, &gadgetsv1.Part{Name: name, Size: from.GetSpec().GetParts()[name]})
		}
	}
	if from.Status != nil {
		to.Status = &gadgetsv1.GadgetStatus{Replicas: from.GetStatus().GetCount()}
	}
	return to, nil
}

func toV2(o scheme.Object) (scheme.Object, error) {
	from := proto.CloneOf(o.(*gadgetsv1.Gadget))
	to := &gadgetsv2.Gadget{Metadata: from.GetMetadata()}
	if from.Spec != nil {
		to.Spec = &gadgetsv2.GadgetSpec{Count: from.Spec.Replicas, Model: from.Spec.GetModel(), Parts: map[string]int32{}}
		for _, part := range from.GetSpec().GetParts() {
			to.Spec.Parts[part.GetName()] = part.GetSize()
		}
	}
	if from.Status != nil {
		to.Status = &gadgetsv2.GadgetStatus{Count: from.GetStatus().GetReplicas()}
	}
	return to, nil
}
