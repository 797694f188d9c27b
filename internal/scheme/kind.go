package scheme

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/wire"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Object is a message of a kind. Its metadata is field number 1.
type Object interface {
	proto.Message
	GetMetadata() *metav1.ObjectMeta
}

// Column is one column of the tables that the command line prints, after NAMESPACE and NAME.
type Column struct {
	// Name is the heading, in capitals.
	Name string
	// Wide columns are shown only when asked for.
	Wide bool
	// Value returns the cell. It never fails: a value that is not set reads <none> or <unknown>, as
	// fits the column.
	Value func(o Object, now time.Time) string
	// Path is the field that the cell shows, as a JSONPath without braces such as .status.phase. It is
	// empty for a column that is computed from several fields.
	Path string
}

// Subresource is a part of objects, or an operation on them, with rights of its own.
type Subresource struct {
	// Name is what stands after the slash in rights and paths: status, exec, token.
	Name string
	// Verbs are Kubernetes' verbs that apply to it, sorted.
	Verbs []string
	// Part is set in subresources that are read and written in the form of the whole object, of which
	// a write changes a part.
	Part *Part
}

// Part is the part of an object that writes to a subresource change.
type Part struct {
	// Fields are the fields of the part, as JSONPaths without braces in which [*] stands for every
	// element of a list: .spec.containers[*].resources. An apply to the subresource owns no others.
	Fields []string
	// OfStatus is true of a part of the status. Writes to it change metadata, as those of the status
	// do.
	OfStatus bool
	// Restrict restores in new what writes to the subresource do not change of old, metadata excluded,
	// and in a part that is not OfStatus the status too. It may leave a change that Validate refuses.
	Restrict func(new, old Object)
	// Validate checks the change, metadata excluded, in place of the kind's ValidateUpdate.
	Validate func(new, old Object) field.ErrorList
}

// Rules are what a kind demands of its objects. A write passes them in the order of the methods of
// Kind. Updates get the new object first and the stored one second. Implementations keep none of
// their arguments and change only the first.
type Rules interface {
	PrepareCreate(Object)
	PrepareUpdate(new, old Object)
	PrepareStatusUpdate(new, old Object)
	Default(Object)
	Validate(*Kind, Object) field.ErrorList
	ValidateNew(Object) field.ErrorList
	ValidateUpdate(new, old Object) field.ErrorList
	ValidateStatusUpdate(new, old Object) field.ErrorList
	Warnings(Object) []string
}

// Conversion relates a version of a kind that is served to the version that is stored.
type Conversion struct {
	// Stored is the kind in the version that is stored. It has the same scope, and no Conversion.
	Stored *Kind
	// ToStored and FromStored return a converted copy of an object. They keep all metadata, and do not
	// change or keep their argument.
	ToStored, FromStored func(Object) (Object, error)
}

// All is the categories of the kinds that run applications.
var All = []string{"all"}

// Kind describes one version of a kind of object. Kinds are shared by all users and never change
// once registered; a kind that changes is another Kind in its place.
//
// The exported fields describe the kind; the rules for its objects are behind the methods.
type Kind struct {
	// Group is the API group, empty for core.
	Group string
	// Version is the version within the group.
	Version string
	// Name is the kind as manifests write it: Pod.
	Name string
	// Plural and Singular are the names that people type, in lower case: pods, pod. The plural is the
	// resource of rights and of paths.
	Plural, Singular string
	// ShortNames are further names that people type: po.
	ShortNames []string
	// Categories are names of groups of kinds that people type in place of a kind: all.
	Categories []string
	// Namespaced objects live in a namespace; others must not name one.
	Namespaced bool
	// HideName leaves the name out of tables, where it tells people nothing.
	HideName bool
	// Dynamic kinds are registered at run time. Where names that people type are ambiguous,
	// compiled-in kinds come first.
	Dynamic bool
	// Subresources are the subresources, sorted by name.
	Subresources []Subresource
	// Scale is set in kinds with the subresource scale.
	Scale *Scale
	// New returns a new, empty object. The message type of the objects belongs to this version of this
	// kind alone; that of a dynamic kind is made at run time.
	New func() Object

	// Columns are what tables of this kind show after the name, AGE included.
	Columns []Column
	// Fields are the fields that field selectors may name besides metadata.name and
	// metadata.namespace, each with its path of field numbers from the object down.
	Fields map[string][]protowire.Number

	// GracePeriod returns how many seconds an object may go on after a delete, when the request names
	// no period; nil removes objects at once.
	GracePeriod func(Object) int64

	// Rules are the rules for objects of the kind. Those of a version that is not stored check what
	// clients send in it, with Default, Validate, ValidateNew and ValidateUpdate, before the rules of
	// the stored version complete and check the converted object; it may have none.
	Rules Rules
	// Comments describe the messages and fields of a dynamic kind to people, by full name, each in one
	// paragraph. The comments of compiled-in kinds are in internal/schema/comments.
	Comments map[protoreflect.FullName]string
	// Conversion is set in versions that are served but not stored.
	Conversion *Conversion

	named   sync.Once
	message protoreflect.FullName
	typeURL string

	resolve  sync.Once
	resolved map[string]wire.Field
	unusable error
}

const typeURLPrefix = "type.googleapis.com/"

// metadataFields are selectable in every kind.
var metadataFields = map[string][]protowire.Number{
	"metadata.name":      {1, 1},
	"metadata.namespace": {1, 3},
}

// name finds the names of the message once. It does not read the fields of its descriptor, which
// stay encoded in a process that has no object of the kind.
func (k *Kind) name() {
	k.named.Do(func() {
		k.message = k.New().ProtoReflect().Descriptor().FullName()
		k.typeURL = typeURLPrefix + string(k.message)
	})
}

// fields finds the selectable fields once.
func (k *Kind) fields() (map[string]wire.Field, error) {
	k.resolve.Do(func() {
		d := k.New().ProtoReflect().Descriptor()
		k.resolved = make(map[string]wire.Field, len(k.Fields)+len(metadataFields))
		for _, name := range k.SelectableFields() {
			path, _ := k.FieldPath(name)
			f, err := wire.Resolve(d, path...)
			if err != nil {
				k.unusable = fmt.Errorf("selectable field %s: %w", name, err)
				return
			}
			k.resolved[name] = f
		}
	})
	return k.resolved, k.unusable
}

// PrepareCreate drops what a client may not set at creation, status above all, and starts the
// generation.
func (k *Kind) PrepareCreate(o Object) { k.Rules.PrepareCreate(o) }

// PrepareUpdate carries over from the stored object what an update may not change, status above
// all, and increments the generation when the wanted state changed.
func (k *Kind) PrepareUpdate(new, old Object) { k.Rules.PrepareUpdate(new, old) }

// PreparePart carries over from the stored object what a write to a part may not change, metadata
// excluded, and increments the generation when the wanted state changed.
func (k *Kind) PreparePart(part *Part, new, old Object) {
	part.Restrict(new, old)
	k.Default(new)
	if !part.OfStatus {
		k.PrepareUpdate(new, old)
	}
}

// PrepareStatusUpdate carries over from the stored object everything but the status. The
// resourceVersion that the writer named stays, so that the precondition can be checked.
func (k *Kind) PrepareStatusUpdate(new, old Object) { k.Rules.PrepareStatusUpdate(new, old) }

// Default sets fields that the client left out. It is idempotent, and may run before or after
// PrepareUpdate.
func (k *Kind) Default(o Object) { k.Rules.Default(o) }

// Validate checks a whole object, metadata included, after defaulting. A name that the server makes
// from generateName must be set already.
func (k *Kind) Validate(o Object) field.ErrorList { return k.Rules.Validate(k, o) }

// ValidateNew checks a new object for fields that only an existing one may have. Validate must
// accept it as well.
func (k *Kind) ValidateNew(o Object) field.ErrorList { return k.Rules.ValidateNew(o) }

// ValidateUpdate checks what may not change between two versions of an object, metadata included.
// Validate must accept the new object as well.
func (k *Kind) ValidateUpdate(new, old Object) field.ErrorList {
	return k.Rules.ValidateUpdate(new, old)
}

// ValidateStatusUpdate checks a write through UpdateStatus.
func (k *Kind) ValidateStatusUpdate(new, old Object) field.ErrorList {
	return k.Rules.ValidateStatusUpdate(new, old)
}

// Warnings returns a sentence for each value of an object that is accepted and has no effect yet,
// after defaulting. Fields that never have an effect are marked in the protos instead.
func (k *Kind) Warnings(o Object) []string { return k.Rules.Warnings(o) }

// APIVersion returns the group and version as manifests write them: v1, apps/v1.
func (k *Kind) APIVersion() string { return APIVersion(k.Group, k.Version) }

// APIVersion joins a group, empty for core, and a version as manifests write them: v1, apps/v1.
func APIVersion(group, version string) string {
	if group == "" {
		return version
	}
	return group + "/" + version
}

// GVK returns the group, version and kind.
func (k *Kind) GVK() GVK { return GVK{k.Group, k.Version, k.Name} }

// GVR returns the group, version and resource.
func (k *Kind) GVR() GVR { return GVR{k.Group, k.Version, k.Plural} }

// Resource returns the plural qualified by the group, as messages name the kind: pods,
// deployments.apps.
func (k *Kind) Resource() string { return qualified(k.Plural, k.Group) }

// GroupKind returns the kind qualified by the group, as messages about invalid objects name it:
// Pod, Deployment.apps.
func (k *Kind) GroupKind() string { return qualified(k.Name, k.Group) }

func qualified(name, group string) string {
	if group == "" {
		return name
	}
	return name + "." + group
}

// String returns GroupKind.
func (k *Kind) String() string { return k.GroupKind() }

// Stored returns the version in which objects of the kind are stored, which may be k itself.
func (k *Kind) Stored() *Kind {
	if k.Conversion != nil {
		return k.Conversion.Stored
	}
	return k
}

// ToStored returns an object of this version in the version that is stored: o itself when that is
// this one.
func (k *Kind) ToStored(o Object) (Object, error) {
	if k.Conversion == nil {
		return o, nil
	}
	converted, err := k.Conversion.ToStored(o)
	if err != nil {
		return nil, fmt.Errorf("convert %s to %s: %w", k.GVK(), k.Conversion.Stored.GVK(), err)
	}
	return converted, nil
}

// FromStored returns an object of the version that is stored in this version: o itself when it is
// the same.
func (k *Kind) FromStored(o Object) (Object, error) {
	if k.Conversion == nil {
		return o, nil
	}
	converted, err := k.Conversion.FromStored(o)
	if err != nil {
		return nil, fmt.Errorf("convert %s to %s: %w", k.Conversion.Stored.GVK(), k.GVK(), err)
	}
	return converted, nil
}

// MessageName returns the full name of the kind's protobuf message: xebec.core.v1.Pod.
func (k *Kind) MessageName() protoreflect.FullName {
	k.name()
	return k.message
}

// TypeURL returns the type URL of the kind's objects in a google.protobuf.Any.
func (k *Kind) TypeURL() string {
	k.name()
	return k.typeURL
}

// HasStatus reports whether the kind has a status, which only UpdateStatus writes.
func (k *Kind) HasStatus() bool { return k.HasSubresource("status") }

// Part returns the part of objects that writes to the named subresource change; nil when there is
// no such subresource, or it is none that has a Part.
func (k *Kind) Part(subresource string) *Part {
	for _, s := range k.Subresources {
		if s.Name == subresource {
			return s.Part
		}
	}
	return nil
}

// HasSubresource reports whether the kind has the named subresource.
func (k *Kind) HasSubresource(name string) bool {
	return slices.ContainsFunc(k.Subresources, func(s Subresource) bool { return s.Name == name })
}

// Field returns a selectable field, by which it can be read from encoded objects of this kind.
func (k *Kind) Field(name string) (wire.Field, bool) {
	fields, _ := k.fields()
	f, ok := fields[name]
	return f, ok
}

// FieldPath returns the field numbers that lead to a selectable field.
func (k *Kind) FieldPath(name string) ([]protowire.Number, bool) {
	if p, ok := metadataFields[name]; ok {
		return p, true
	}
	p, ok := k.Fields[name]
	return p, ok
}

// SelectableFields returns the names of all fields that selectors may name, sorted.
func (k *Kind) SelectableFields() []string {
	names := make([]string, 0, len(k.Fields)+len(metadataFields))
	for name := range metadataFields {
		names = append(names, name)
	}
	for name := range k.Fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
