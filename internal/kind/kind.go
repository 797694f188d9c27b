// Package kind is the one table of the kinds of object that Xebec serves, with everything that differs from one kind
// to the next: names and scope, defaults, validation, what a write may change, the columns people see, and the fields
// that selectors can name.
//
// Adding a kind means one row in table.go and one file with its rules; no other package has a list of kinds.
package kind

import (
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/wire"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Object is a message of one of the kinds in the table. Its metadata is field number 1.
type Object interface {
	proto.Message
	GetMetadata() *metav1.ObjectMeta
}

// Column is one column of the table that people see; NAME, and NAMESPACE where asked for, stand before it.
type Column struct {
	// Name is the heading, in capitals.
	Name string
	// Wide columns are shown only when asked for.
	Wide bool
	// Value is the cell. It never fails: what is not set reads <none> or <unknown>, as fits the column.
	Value func(o Object, now time.Time) string
}

// Kind is one row of the table. Rows are shared by all callers and are never written to.
//
// The exported fields describe the kind; the rules for its objects are behind the methods.
type Kind struct {
	// Group is the API group, empty for core.
	Group string
	// Version is the version within the group.
	Version string
	// Name is the kind as manifests write it: Pod.
	Name string
	// Plural and Singular are the names people type, in lower case: pods, pod.
	Plural, Singular string
	// ShortNames are further names people type: po.
	ShortNames []string
	// Namespaced objects live in a namespace; others must not name one.
	Namespaced bool
	// HideName says that tables leave the name out, since it tells people nothing.
	HideName bool
	// HasStatus says that the kind has a status, which only UpdateStatus writes.
	HasStatus bool
	// New returns a new, empty object.
	New func() Object

	// Columns are what tables of this kind show after the name, AGE included.
	Columns []Column
	// Fields are the fields that field selectors may name besides metadata.name and metadata.namespace, each with its
	// path of field numbers from the object down.
	Fields map[string][]protowire.Number

	// GracePeriod is how many seconds an object may go on after its deletion was asked for, when the caller of Delete
	// names none; nil means that it goes at once.
	GracePeriod func(Object) int64

	rules rules
}

// A write passes through the methods below in their order here; the ones for updates get the new object first and the
// stored one second. They expect objects of the row's own kind, keep none of their arguments, and change only the first.

// PrepareCreate drops what a client may not set at creation, status above all, and starts the generation.
func (k *Kind) PrepareCreate(o Object) { k.rules.prepareCreate(o) }

// PrepareUpdate carries over from the stored object what an update may not touch, status above all, and bumps the
// generation when the wanted state changed.
func (k *Kind) PrepareUpdate(new, old Object) { k.rules.prepareUpdate(new, old) }

// PrepareStatusUpdate carries over from the stored object everything but the status. The resourceVersion that the
// writer named stays, so that the precondition can be checked.
func (k *Kind) PrepareStatusUpdate(new, old Object) { k.rules.prepareStatusUpdate(new, old) }

// Default fills in what the client left out. It is idempotent, and it may run before or after PrepareUpdate.
func (k *Kind) Default(o Object) { k.rules.fill(o) }

// Validate checks a whole object, metadata included, after defaulting. A name made from generateName must be there
// already.
func (k *Kind) Validate(o Object) field.ErrorList { return k.rules.validate(k, o) }

// ValidateNew checks a new object for what only one that exists already may have. Validate has to pass on it as well.
func (k *Kind) ValidateNew(o Object) field.ErrorList { return k.rules.validateNew(o) }

// ValidateUpdate checks what may not change between two versions, metadata included. Validate has to pass on the new
// object as well.
func (k *Kind) ValidateUpdate(new, old Object) field.ErrorList {
	return k.rules.validateUpdate(new, old)
}

// ValidateStatusUpdate checks a write through UpdateStatus.
func (k *Kind) ValidateStatusUpdate(new, old Object) field.ErrorList {
	return k.rules.validateStatusUpdate(new, old)
}

// Warnings tells the client of values that are accepted and have no effect yet, a sentence each, after defaulting.
// Fields that never have an effect are marked in the protos instead.
func (k *Kind) Warnings(o Object) []string { return k.rules.warnings(o) }

// APIVersion is the kind's group and version as manifests write them: v1, apps/v1.
func (k *Kind) APIVersion() string {
	if k.Group == "" {
		return k.Version
	}
	return k.Group + "/" + k.Version
}

// Resource is the plural qualified by the group, as messages name the kind: pods, deployments.apps.
func (k *Kind) Resource() string {
	if k.Group == "" {
		return k.Plural
	}
	return k.Plural + "." + k.Group
}

// GroupKind is the kind qualified by the group, as messages about invalid objects name it: Pod, Deployment.apps.
func (k *Kind) GroupKind() string {
	if k.Group == "" {
		return k.Name
	}
	return k.Name + "." + k.Group
}

// String is GroupKind.
func (k *Kind) String() string { return k.GroupKind() }

// MessageName is the full name of the kind's protobuf message: xebec.core.v1.Pod.
func (k *Kind) MessageName() protoreflect.FullName {
	return k.New().ProtoReflect().Descriptor().FullName()
}

// TypeURL is the type URL of the kind's objects in a google.protobuf.Any.
func (k *Kind) TypeURL() string { return typeURLPrefix + string(k.MessageName()) }

// AllowsField reports whether field selectors may name path for this kind.
func (k *Kind) AllowsField(path string) bool {
	_, ok := k.FieldPath(path)
	return ok
}

// Field returns a selectable field, by which it can be read from encoded objects of this kind.
func (k *Kind) Field(path string) (wire.Field, bool) {
	f, ok := index().fields[k][path]
	return f, ok
}

// FieldPath returns the field numbers that lead to a selectable field, metadata.name and metadata.namespace included.
func (k *Kind) FieldPath(path string) ([]protowire.Number, bool) {
	if p, ok := metaFields[path]; ok {
		return p, true
	}
	p, ok := k.Fields[path]
	return p, ok
}

// SelectableFields returns the names of all fields that selectors may name, sorted.
func (k *Kind) SelectableFields() []string {
	names := make([]string, 0, len(k.Fields)+len(metaFields))
	for name := range metaFields {
		names = append(names, name)
	}
	for name := range k.Fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
