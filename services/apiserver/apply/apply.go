// Package apply merges what several managers want of one object: server-side apply. Every manager
// owns the fields it applied; a field that two managers want different is a conflict; a field that
// its last owner no longer applies is removed. The algorithm is Kubernetes' own (KEP-555), by its
// library structured-merge-diff; the schema it merges by is built from the protos' descriptors.
package apply

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/merge"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// The operations recorded in managedFields.
const (
	operationApply  = "Apply"
	operationUpdate = "Update"
	// subresourceStatus is the subresource whose owners are recorded besides those of the object.
	subresourceStatus = "status"
)

// identity is what says who an object is and what only the server writes: it has no owners. While
// objects are merged it has, as in Kubernetes: a manager's last label would take the name along.
func identity() *fieldpath.Set {
	s := fieldpath.NewSet(fieldpath.MakePathOrDie("metadata"))
	for _, f := range []string{
		"name", "namespace", "generateName", "uid", "resourceVersion", "generation", "creationTimestamp",
		"deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields",
	} {
		s.Insert(fieldpath.MakePathOrDie("metadata", f))
	}
	return s
}

// Conflict is a field that the apply would change while another manager owns it.
type Conflict struct {
	Manager string // the owner's name
	Field   string // JSON path, such as .spec.replicas
}

// ConflictError is returned by Merger.Apply when other managers own fields that the apply would
// change.
type ConflictError struct{ Conflicts []Conflict }

// Error names the owners and the fields.
func (e *ConflictError) Error() string {
	parts := make([]string, len(e.Conflicts))
	for i, c := range e.Conflicts {
		parts[i] = fmt.Sprintf("%s is owned by %q", c.Field, c.Manager)
	}
	return fmt.Sprintf("apply conflicts in %d field(s): %s; "+
		"remove these fields, use the values of their owner, or force the apply to take ownership", len(e.Conflicts), strings.Join(parts, ", "))
}

// Merger merges objects of every kind of a scheme. It is safe for concurrent use.
type Merger struct {
	kinds   *scheme.Scheme
	codec   *codec.Codec
	current atomic.Pointer[schemas]
}

// schemas are what objects are merged by, built for one generation of the scheme.
type schemas struct {
	generation uint64
	codec      *codec.Codec
	schema     *schema.Schema
	// kinds are all versions of all kinds, by the full name of their messages.
	kinds map[string]*scheme.Kind
	// updaters merge the object without its status, and, by the name of the subresource, the status
	// and other parts of objects.
	updaters map[string]*merge.Updater
}

// New returns a merger, with the merge schema of the kinds that the scheme has now. It follows
// changes of the scheme.
func New(kinds *scheme.Scheme) (*Merger, error) {
	m := &Merger{kinds: kinds, codec: codec.New(kinds)}
	_, err := m.schemas()
	return m, err
}

// schemas returns the merge schema of the kinds that are registered now.
func (m *Merger) schemas() (*schemas, error) {
	generation := m.kinds.Generation()
	if s := m.current.Load(); s != nil && s.generation >= generation {
		return s, nil
	}
	s, err := newSchemas(m.kinds.Served(), m.codec)
	if err != nil {
		return nil, err
	}
	// Of a change since the generation was read the schema may know already; it is then built once
	// more.
	s.generation = generation
	m.current.Store(s)
	return s, nil
}

func newSchemas(kinds []*scheme.Kind, codec *codec.Codec) (*schemas, error) {
	b := &schemaBuilder{seen: map[protoreflect.FullName]bool{}}
	for _, k := range kinds {
		if err := b.addKind(k.New().ProtoReflect().Descriptor()); err != nil {
			return nil, fmt.Errorf("merge schema of %s: %w", k.Name, err)
		}
	}
	m := &schemas{
		codec: codec, schema: &schema.Schema{Types: b.types},
		kinds: map[string]*scheme.Kind{}, updaters: map[string]*merge.Updater{},
	}
	for _, k := range kinds {
		m.kinds[string(k.MessageName())] = k
	}
	for _, subresource := range []string{"", subresourceStatus} {
		unowned := map[fieldpath.APIVersion]*fieldpath.Set{}
		for _, k := range kinds {
			if unowned[apiVersion(k)] == nil {
				unowned[apiVersion(k)] = fieldpath.NewSet(fieldpath.MakePathOrDie("apiVersion"), fieldpath.MakePathOrDie("kind"))
			}
			fields := k.New().ProtoReflect().Descriptor().Fields()
			for i := range fields.Len() {
				name := fields.Get(i).JSONName()
				if name != "metadata" && (name == "status") != (subresource == subresourceStatus) {
					unowned[apiVersion(k)].Insert(fieldpath.MakePathOrDie(name))
				}
			}
		}
		filters := map[fieldpath.APIVersion]fieldpath.Filter{}
		for version, set := range unowned {
			filters[version] = fieldpath.NewExcludeSetFilter(set)
		}
		builder := merge.UpdaterBuilder{Converter: converter{m}, IgnoreFilter: filters, ReturnInputOnNoop: true}
		m.updaters[subresource] = builder.BuildUpdater()
	}
	for subresource, filters := range partFilters(kinds) {
		builder := merge.UpdaterBuilder{Converter: converter{m}, IgnoreFilter: filters, ReturnInputOnNoop: true}
		m.updaters[subresource] = builder.BuildUpdater()
	}
	return m, nil
}

// partFilters are filters of the fields that writes to each subresource with a Part can own.
func partFilters(kinds []*scheme.Kind) map[string]map[fieldpath.APIVersion]fieldpath.Filter {
	matchers := map[string]map[fieldpath.APIVersion][]*fieldpath.SetMatcher{}
	for _, k := range kinds {
		for _, s := range k.Subresources {
			if s.Part == nil {
				continue
			}
			if matchers[s.Name] == nil {
				matchers[s.Name] = map[fieldpath.APIVersion][]*fieldpath.SetMatcher{}
			}
			for _, field := range s.Part.Fields {
				m := fieldpath.MakePrefixMatcherOrDie(pathElements(field)...)
				matchers[s.Name][apiVersion(k)] = append(matchers[s.Name][apiVersion(k)], m)
			}
		}
	}
	out := map[string]map[fieldpath.APIVersion]fieldpath.Filter{}
	for subresource, versions := range matchers {
		out[subresource] = map[fieldpath.APIVersion]fieldpath.Filter{}
		for version, m := range versions {
			out[subresource][version] = fieldpath.NewIncludeMatcherFilter(m...)
		}
	}
	return out
}

// pathElements are the elements of a path such as .spec.containers[*].resources.
func pathElements(path string) []any {
	var out []any
	for name := range strings.SplitSeq(strings.TrimPrefix(path, "."), ".") {
		list, ok := strings.CutSuffix(name, "[*]")
		if out = append(out, list); ok {
			out = append(out, fieldpath.MatchAnyPathElement())
		}
	}
	return out
}

func (s *schemas) updater(subresource string) *merge.Updater {
	if u := s.updaters[subresource]; u != nil {
		return u
	}
	return s.updaters[""]
}

// Apply merges config, the fields that manager wants, into live and returns the result with its
// managedFields brought up to date. live is nil when the object does not exist; neither argument is
// changed. config's status and server-set metadata are ignored. Elements of a list that have their
// keys in common are merged in their order, and all kept, but equal elements of a set are kept
// once. Without force, fields of other managers that would change are a *ConflictError.
func (m *Merger) Apply(live, config scheme.Object, manager string, force bool, now time.Time) (scheme.Object, error) {
	return m.ApplyTo("", live, config, nil, manager, force, now)
}

// ApplyTo is Apply to a subresource, of objects that are both of one version of their kind, as the
// result is: "status", or empty for the object without its status. written, when not nil, is the
// JSON that config was decoded from: fields that it sets to empty values are applied as such.
func (m *Merger) ApplyTo(
	subresource string, live, config scheme.Object, written map[string]any, manager string, force bool, now time.Time,
) (scheme.Object, error) {
	k, err := m.kinds.Of(config)
	if err != nil {
		return nil, err
	}
	s, err := m.schemas()
	if err != nil {
		return nil, err
	}
	managers := fieldpath.ManagedFields{}
	if live == nil {
		live = k.New()
	} else if managers, err = decodeManagers(k, live.GetMetadata().GetManagedFields()); err != nil {
		return nil, err
	}
	liveTyped, err := s.typed(k, live)
	if err != nil {
		return nil, err
	}
	configTyped, err := s.typedWritten(k, core.FoldWriteOnly(config), written, true)
	if err != nil {
		return nil, err
	}
	merged, managers, err := s.updater(subresource).Apply(
		liveTyped, configTyped, apiVersion(k), managers, managerKey(manager, operationApply, subresource, apiVersion(k)), force)
	if err != nil {
		return nil, conflictError(err)
	}
	out, err := s.untyped(k, merged)
	if err != nil {
		return nil, err
	}
	if out.GetMetadata() == nil {
		return nil, fmt.Errorf("the applied %s has no metadata", k.Name)
	}
	out.GetMetadata().ManagedFields, err = encodeManagers(managers, live.GetMetadata().GetManagedFields(), now)
	return out, err
}

// Update records in updated's managedFields that manager set the fields in which it differs from
// live (nil for a new object) and took them over from their owners.
func (m *Merger) Update(live, updated scheme.Object, manager string, now time.Time) error {
	return m.UpdateOf("", live, updated, manager, now)
}

// UpdateOf is Update of a subresource: "status", or empty or another name for the object without
// its status.
func (m *Merger) UpdateOf(subresource string, live, updated scheme.Object, manager string, now time.Time) error {
	k, err := m.kinds.Of(updated)
	if err != nil {
		return err
	}
	s, err := m.schemas()
	if err != nil {
		return err
	}
	if live == nil {
		live = k.New()
	}
	recorded := live.GetMetadata().GetManagedFields()
	managers, err := decodeManagers(k, recorded)
	if err != nil {
		return err
	}
	liveTyped, err := s.typed(k, live)
	if err != nil {
		return err
	}
	updatedTyped, err := s.typed(k, updated)
	if err != nil {
		return err
	}
	_, managers, err = s.updater(subresource).Update(
		liveTyped, updatedTyped, apiVersion(k), managers, managerKey(manager, operationUpdate, subresource, apiVersion(k)))
	if err != nil {
		return conflictError(err)
	}
	mergeOldest(managers, recorded)
	updated.GetMetadata().ManagedFields, err = encodeManagers(managers, recorded, now)
	return err
}

// Same reports whether two states of an object differ in nothing but the times in their
// managedFields.
func Same(a, b scheme.Object) bool {
	return proto.Equal(timeless(a), timeless(b))
}

func timeless(o scheme.Object) proto.Message {
	c := proto.Clone(o).(scheme.Object)
	for _, e := range c.GetMetadata().GetManagedFields() {
		e.Time = nil
	}
	c.GetMetadata().ResourceVersion = ""
	return c
}

// typed is the object as the merge library sees it, without managedFields, which describe it and
// are no part of it.
func (s *schemas) typed(k *scheme.Kind, o scheme.Object) (*typed.TypedValue, error) {
	return s.typedWritten(k, o, nil, false)
}

// typedWritten is typed with the empty values of the JSON that the object was decoded from. With
// once, equal elements of sets are taken once.
func (s *schemas) typedWritten(k *scheme.Kind, o scheme.Object, written map[string]any, once bool) (*typed.TypedValue, error) {
	v, err := s.codec.Value(o)
	if err != nil {
		return nil, fmt.Errorf("%s as JSON: %w", k.Name, err)
	}
	obj, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s as JSON is a %T, not an object", k.Name, v)
	}
	addEmpty(obj, written)
	if meta, ok := obj["metadata"].(map[string]any); ok {
		delete(meta, "managedFields")
	}
	t := typed.ParseableType{TypeRef: typeOf(o), Schema: s.schema}
	// Sets of stored objects may hold equal elements, as in Kubernetes.
	tv, err := t.FromUnstructured(number(s.schema, t.TypeRef, obj, once), typed.AllowDuplicates)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.Name, err)
	}
	return tv, nil
}

func typeOf(o scheme.Object) schema.TypeRef {
	name := string(o.ProtoReflect().Descriptor().FullName())
	return schema.TypeRef{NamedType: &name}
}

func (s *schemas) untyped(k *scheme.Kind, tv *typed.TypedValue) (scheme.Object, error) {
	// The library's objects share what they hold.
	obj, ok := cloned(tv.AsValue().Unstructured()).(map[string]any)
	if !ok {
		return nil, fmt.Errorf("merged %s is not an object", k.Name)
	}
	delete(obj, "apiVersion")
	delete(obj, "kind")
	out := k.New()
	unnumber(s.schema, typeOf(out), obj)
	if err := s.codec.FromValue(obj, out); err != nil {
		return nil, fmt.Errorf("merged %s: %w", k.Name, err)
	}
	return out, nil
}

// cloned returns a deep copy of a JSON value.
func cloned(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for key, value := range v {
			m[key] = cloned(value)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, value := range v {
			list[i] = cloned(value)
		}
		return list
	}
	return v
}

// managerKey names an owner in the library's map: one manager may own fields by applying and others
// by updating. By updates it owns fields in each version that it writes, as in Kubernetes; an apply
// takes the place of the one before in any version.
func managerKey(name, operation, subresource string, version fieldpath.APIVersion) string {
	if operation == operationApply {
		version = ""
	}
	return strings.Join([]string{operation, subresource, string(version), name}, keySeparator)
}

// keySeparator is in none of the parts of a key.
const keySeparator = "\n"

func splitManagerKey(key string) (name, operation, subresource string) {
	parts := strings.SplitN(key, keySeparator, 4)
	return parts[3], parts[0], parts[1]
}

func decodeManagers(k *scheme.Kind, entries []*metav1.ManagedFieldsEntry) (fieldpath.ManagedFields, error) {
	managers := fieldpath.ManagedFields{}
	for _, e := range entries {
		set := fieldpath.NewSet()
		if err := set.FromJSON(bytes.NewReader(e.GetFieldsV1().GetRaw())); err != nil {
			return nil, fmt.Errorf("managedFields of %q: %w", e.GetManager(), err)
		}
		if stored, written := core.StoredAs(k); written != "" {
			set = renamed(set, written, stored)
		}
		managers[keyOfEntry(e)] = fieldpath.NewVersionedSet(set, fieldpath.APIVersion(e.GetApiVersion()), e.GetOperation() == operationApply)
	}
	return managers, nil
}

// renamed makes the owner of fields below one member of an object the owner of the same fields
// below another. Version 0.1.0 recorded the owners of a field that is stored as another.
func renamed(set *fieldpath.Set, from, to string) *fieldpath.Set {
	out := fieldpath.NewSet()
	set.Iterate(func(p fieldpath.Path) {
		p = p.Copy()
		if len(p) > 0 && p[0].FieldName != nil && *p[0].FieldName == from {
			p[0] = fieldpath.PathElement{FieldName: &to}
		}
		out.Insert(p)
	})
	return out
}

// encodeManagers writes the owners in a stable order: by operation and name. An entry whose fields
// did not change keeps its time, so that an apply without effect leaves the object as it is.
func encodeManagers(
	managers fieldpath.ManagedFields, before []*metav1.ManagedFieldsEntry, now time.Time,
) ([]*metav1.ManagedFieldsEntry, error) {
	entries := make([]*metav1.ManagedFieldsEntry, 0, len(managers))
	recorded := byManager(before)
	for key, vs := range managers {
		owned := vs.Set().Difference(identity())
		if owned.Empty() {
			continue
		}
		raw, err := owned.ToJSON()
		if err != nil {
			return nil, fmt.Errorf("managedFields of %q: %w", key, err)
		}
		name, operation, subresource := splitManagerKey(key)
		e := &metav1.ManagedFieldsEntry{
			Manager: name, Operation: operation, Subresource: subresource, ApiVersion: string(vs.APIVersion()),
			FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: raw}, Time: timestamppb.New(now.Truncate(time.Second)),
		}
		if b := recorded[key]; b != nil && bytes.Equal(b.GetFieldsV1().GetRaw(), raw) {
			e.Time = b.GetTime()
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b *metav1.ManagedFieldsEntry) int {
		return strings.Compare(keyOfEntry(a), keyOfEntry(b))
	})
	return entries, nil
}

func keyOfEntry(e *metav1.ManagedFieldsEntry) string {
	return managerKey(e.GetManager(), e.GetOperation(), e.GetSubresource(), fieldpath.APIVersion(e.GetApiVersion()))
}

func byManager(entries []*metav1.ManagedFieldsEntry) map[string]*metav1.ManagedFieldsEntry {
	out := make(map[string]*metav1.ManagedFieldsEntry, len(entries))
	for _, e := range entries {
		out[keyOfEntry(e)] = e
	}
	return out
}

const (
	// maxUpdateManagers is how many managers of one object are known by name besides those that apply,
	// as in Kubernetes.
	maxUpdateManagers = 10
	// oldestManager owns what those owned that are no longer known by name.
	oldestManager = "ancient-changes"
)

// mergeOldest makes one manager of those whose updates are the longest ago, so that an object that
// many write under different names does not grow without end. before are the entries that managers
// were read from.
func mergeOldest(managers fieldpath.ManagedFields, before []*metav1.ManagedFieldsEntry) {
	var updaters []string
	for key := range managers {
		if _, operation, _ := splitManagerKey(key); operation == operationUpdate {
			updaters = append(updaters, key)
		}
	}
	if len(updaters) <= maxUpdateManagers {
		return
	}
	recorded := byManager(before)
	// One that is not recorded yet is the newest; the bucket itself is the oldest.
	at := func(key string) int64 {
		name, _, _ := splitManagerKey(key)
		switch e := recorded[key]; {
		case name == oldestManager:
			return math.MinInt64
		case e == nil:
			return math.MaxInt64
		default:
			return e.GetTime().GetSeconds()
		}
	}
	slices.SortFunc(updaters, func(a, b string) int { return cmp.Or(cmp.Compare(at(a), at(b)), strings.Compare(a, b)) })
	for _, key := range updaters[:len(updaters)-maxUpdateManagers+1] {
		set, version := managers[key].Set(), managers[key].APIVersion()
		delete(managers, key)
		// Fields of different versions have different names.
		oldest := managerKey(oldestManager, operationUpdate, "", version)
		if merged, ok := managers[oldest]; ok {
			set = set.Union(merged.Set())
		}
		managers[oldest] = fieldpath.NewVersionedSet(set, version, false)
	}
}

func conflictError(err error) error {
	conflicts, ok := errors.AsType[merge.Conflicts](err)
	if !ok {
		return err
	}
	out := &ConflictError{}
	for _, c := range conflicts {
		name, _, _ := splitManagerKey(c.Manager)
		out.Conflicts = append(out.Conflicts, Conflict{Manager: name, Field: c.Path.String()})
	}
	return out
}

func apiVersion(k *scheme.Kind) fieldpath.APIVersion {
	if k.Group == "" {
		return fieldpath.APIVersion(k.Version)
	}
	return fieldpath.APIVersion(k.Group + "/" + k.Version)
}

// errNoVersion is returned for a version of a kind that is not served, or no longer: what was owned
// in it has no owner.
var errNoVersion = errors.New("the version is not served")

// converter is the library's version converter.
type converter struct{ *schemas }

// Convert returns the object in another version of its kind.
func (c converter) Convert(o *typed.TypedValue, version fieldpath.APIVersion) (*typed.TypedValue, error) {
	name := o.TypeRef().NamedType
	if name == nil || c.kinds[*name] == nil {
		return nil, fmt.Errorf("convert to %s: it is an object of no kind", version)
	}
	from := c.kinds[*name]
	if apiVersion(from) == version {
		return o, nil
	}
	for _, to := range c.kinds {
		if to.Stored() != from.Stored() || apiVersion(to) != version {
			continue
		}
		obj, err := c.untyped(from, o)
		if err == nil {
			obj, err = from.ToStored(obj)
		}
		if err == nil {
			obj, err = to.FromStored(obj)
		}
		if err != nil {
			return nil, err
		}
		return c.typed(to, obj)
	}
	return nil, fmt.Errorf("convert %s to %s: %w", from.GVK(), version, errNoVersion)
}

// IsMissingVersionError reports whether Convert failed because the version is not served.
func (converter) IsMissingVersionError(err error) bool { return errors.Is(err, errNoVersion) }
