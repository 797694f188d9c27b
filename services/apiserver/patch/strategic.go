package patch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/schema"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// The directives of a strategic merge patch. The last two are followed by the name of the list that
// they are about.
const (
	directive       = "$patch"
	retainKeys      = "$retainKeys"
	deletePrimitive = "$deleteFromPrimitiveList/"
	elementOrder    = "$setElementOrder/"
)

// ParseStrategic reads a strategic merge patch for objects of a message type, which must be a JSON
// object. Lists are merged as the options of their fields say (xebec.meta.v1.FieldRules): element
// by element if they have a patch_merge_key, by value if they have only a patch_strategy that
// merges; others are replaced, as are messages and maps whose patch_strategy says so.
func ParseStrategic(text []byte, message protoreflect.MessageDescriptor) (Patch, error) {
	if err := checkDepth(text, MaxDepth); err != nil {
		return nil, err
	}
	v, err := parse(text)
	if err != nil {
		return nil, err
	}
	members, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("a strategic merge patch is a JSON object")
	}
	return strategic{members, message}, nil
}

type strategic struct {
	members map[string]any
	message protoreflect.MessageDescriptor
}

// Apply implements Patch.
func (s strategic) Apply(ctx context.Context, doc []byte) ([]byte, error) {
	return change(ctx, doc, func(v any) (any, error) {
		object, ok := v.(map[string]any)
		if !ok {
			return nil, errors.New("the document is not an object")
		}
		return mergeObject(object, s.members, s.message)
	})
}

// mergeObject changes an object by a patch, which is left as it is. message describes the object;
// it is nil for free maps.
func mergeObject(object, patch map[string]any, message protoreflect.MessageDescriptor) (map[string]any, error) {
	switch d := patch[directive]; d {
	case nil, "merge":
	case "replace":
		return mergeObject(map[string]any{}, without(patch, directive), message)
	case "delete":
		return map[string]any{}, nil
	default:
		return nil, fmt.Errorf("%s is %v, want merge, replace or delete", directive, d)
	}
	if err := retain(object, patch); err != nil {
		return nil, err
	}
	for name, value := range patch {
		list, isDelete := strings.CutPrefix(name, deletePrimitive)
		if !isDelete {
			list, _ = strings.CutPrefix(name, elementOrder)
		}
		var err error
		switch {
		case name == directive || name == retainKeys:
		case list != name:
			// A directive: with the list's own patch, where there is one.
			if _, together := patch[list]; !together && (isDelete || patch[deletePrimitive+list] == nil) {
				err = mergeMember(object, patch, list, message)
			}
		case value == nil:
			delete(object, name)
		default:
			err = mergeMember(object, patch, name, message)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return object, nil
}

// mergeMember changes one member of an object by its value in the patch and the directives about
// it.
func mergeMember(object, patch map[string]any, name string, message protoreflect.MessageDescriptor) error {
	field := fieldOf(message, name)
	value := patch[name]
	_, deletes := patch[deletePrimitive+name]
	_, orders := patch[elementOrder+name]
	strategy := listStrategy(field)
	switch v := value.(type) {
	case map[string]any:
		before, _ := object[name].(map[string]any)
		if before == nil || isReplaced(field) {
			before = map[string]any{}
		}
		merged, err := mergeObject(before, v, messageOf(field))
		object[name] = merged
		return err
	case []any:
		if strategy.merges {
			return mergeInto(object, patch, name, v, strategy, messageOf(field))
		}
	case nil: // directives alone
		if strategy.merges {
			return mergeInto(object, patch, name, nil, strategy, messageOf(field))
		}
	}
	if deletes || orders {
		return fmt.Errorf("%s and %s apply only to lists that are merged, which %s is not", deletePrimitive+name, elementOrder+name, name)
	}
	object[name] = value
	return nil
}

func mergeInto(object, patch map[string]any, name string, items []any, strategy strategy, element protoreflect.MessageDescriptor) error {
	before, _ := object[name].([]any)
	removed, err := directiveList(patch, deletePrimitive+name)
	if err != nil {
		return err
	}
	order, err := directiveList(patch, elementOrder+name)
	if err != nil {
		return err
	}
	var merged []any
	if strategy.key == "" {
		merged = mergeSet(before, items, removed)
	} else {
		if removed != nil {
			return errors.New("the elements are objects: delete them by " + directive)
		}
		if merged, err = mergeElements(before, items, strategy.key, element); err != nil {
			return err
		}
	}
	if order == nil {
		order = items // as in Kubernetes
	}
	object[name], err = reorder(merged, before, items, order, strategy.key)
	return err
}

func directiveList(patch map[string]any, name string) ([]any, error) {
	v, ok := patch[name]
	if !ok {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%s must be a list", name)
	}
	return list, nil
}

// retain removes the members that a patch's $retainKeys does not name.
func retain(object, patch map[string]any) error {
	v, ok := patch[retainKeys]
	if !ok {
		return nil
	}
	names, ok := v.([]any)
	if !ok {
		return fmt.Errorf("%s must be a list of names", retainKeys)
	}
	kept := make(map[string]bool, len(names))
	for _, n := range names {
		name, ok := n.(string)
		if !ok {
			return fmt.Errorf("%s must be a list of names, holds %v", retainKeys, n)
		}
		kept[name] = true
	}
	for name, value := range patch {
		if !strings.HasPrefix(name, "$") && value != nil && !kept[name] {
			return fmt.Errorf("%s does not name %q, which the patch sets", retainKeys, name)
		}
	}
	for name := range object {
		if !kept[name] {
			delete(object, name)
		}
	}
	return nil
}

// mergeSet adds values to a list of them, each once, and removes others.
func mergeSet(before, items, removed []any) []any {
	gone := make(map[string]bool, len(removed))
	for _, v := range removed {
		gone[keyText(v)] = true
	}
	seen := make(map[string]bool, len(before)+len(items))
	out := []any{}
	for _, v := range slices.Concat(before, items) {
		if text := keyText(v); !gone[text] && !seen[text] {
			seen[text] = true
			out = append(out, v)
		}
	}
	return out
}

// mergeElements merges the elements of a list by a key. Of several stored elements with one key the
// first is merged, as in Kubernetes.
func mergeElements(before, items []any, key string, message protoreflect.MessageDescriptor) ([]any, error) {
	var merging []map[string]any
	gone, replace := map[string]bool{}, false
	for i, item := range items {
		element, ok := item.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("element %d is not an object", i)
		}
		d := element[directive]
		if d == "replace" {
			replace = true
			continue
		}
		if _, ok := element[key]; !ok {
			return nil, fmt.Errorf("element %d lacks %s, the key that this list is merged by", i, key)
		}
		if d == "delete" {
			gone[keyText(element[key])] = true
			continue
		}
		merging = append(merging, element)
	}
	if replace {
		before = nil
	}
	out := make([]any, 0, len(before)+len(merging))
	at := make(map[string]int, len(before)+len(merging))
	for _, item := range before {
		element, _ := item.(map[string]any)
		text := keyText(element[key])
		if gone[text] {
			continue
		}
		if _, twice := at[text]; !twice {
			at[text] = len(out)
		}
		out = append(out, item)
	}
	for _, element := range merging {
		text := keyText(element[key])
		i, ok := at[text]
		if !ok {
			i = len(out)
			at[text] = i
			out = append(out, map[string]any{})
		}
		old, _ := out[i].(map[string]any)
		merged, err := mergeObject(old, element, message)
		if err != nil {
			return nil, fmt.Errorf("element %s=%s: %w", key, text, err)
		}
		out[i] = merged
	}
	return out, nil
}

// reorder sorts a merged list as $setElementOrder wants it. Elements that the order does not name
// keep their place among those that were before and after them.
func reorder(merged, before, items, order []any, key string) ([]any, error) {
	text := func(v any) string {
		if element, ok := v.(map[string]any); ok && key != "" {
			return keyText(element[key])
		}
		return keyText(v)
	}
	positions := func(list []any) map[string]int {
		at := make(map[string]int, len(list))
		for i, v := range list {
			if _, twice := at[text(v)]; !twice {
				at[text(v)] = i
			}
		}
		return at
	}
	wanted, had := positions(order), positions(before)
	for _, item := range items {
		element, _ := item.(map[string]any)
		if _, ok := wanted[text(item)]; !ok && element[directive] == nil {
			return nil, fmt.Errorf("%s does not name the element %s, which the patch sets", strings.TrimSuffix(elementOrder, "/"), text(item))
		}
	}
	var named, others []any
	for _, v := range merged {
		if _, ok := wanted[text(v)]; ok {
			named = append(named, v)
		} else {
			others = append(others, v)
		}
	}
	slices.SortStableFunc(named, func(a, b any) int { return wanted[text(a)] - wanted[text(b)] })
	slices.SortStableFunc(others, func(a, b any) int { return had[text(a)] - had[text(b)] })
	out := make([]any, 0, len(merged))
	for len(named) > 0 && len(others) > 0 {
		// As in Kubernetes: another element goes first only when both were there and it stood in front.
		at, was := had[text(named[0])]
		if was && had[text(others[0])] < at {
			out, others = append(out, others[0]), others[1:]
		} else {
			out, named = append(out, named[0]), named[1:]
		}
	}
	return append(append(out, named...), others...), nil
}

// keyText is a key or an element of a set as text that tells strings from numbers.
func keyText(v any) string {
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprint(v)
}

func without(members map[string]any, name string) map[string]any {
	out := make(map[string]any, len(members))
	for n, v := range members {
		if n != name {
			out[n] = v
		}
	}
	return out
}

// strategy is how a list is merged: by a key of its elements, or, without one, as a set.
type strategy struct {
	merges bool
	key    string
}

// listStrategy reads the options patch_strategy and patch_merge_key of a field. That members are
// retained is left to the patch's $retainKeys, as in Kubernetes.
func listStrategy(field protoreflect.FieldDescriptor) strategy {
	if field == nil || !field.IsList() {
		return strategy{}
	}
	rules := schema.RulesOf(field)
	switch rules.GetPatchStrategy() {
	case metav1.PatchStrategy_PATCH_STRATEGY_MERGE, metav1.PatchStrategy_PATCH_STRATEGY_MERGE_RETAIN_KEYS:
		return strategy{merges: true, key: rules.GetPatchMergeKey()}
	}
	return strategy{}
}

// isReplaced reports whether a patch replaces a message or a map as a whole.
func isReplaced(field protoreflect.FieldDescriptor) bool {
	return field != nil && schema.RulesOf(field).GetPatchStrategy() == metav1.PatchStrategy_PATCH_STRATEGY_REPLACE
}

// fieldOf finds a field by its name in JSON; nil for free maps and what no message declares.
func fieldOf(message protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if message == nil {
		return nil
	}
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if schema.RulesOf(field).GetInline() {
			if inner := fieldOf(field.Message(), name); inner != nil {
				return inner
			}
		} else if field.JSONName() == name {
			return field
		}
	}
	return nil
}

// messageOf describes the objects in a field: its value, or the elements of its list. The values of
// maps are free.
func messageOf(field protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if field == nil || field.IsMap() {
		return nil
	}
	return field.Message()
}
