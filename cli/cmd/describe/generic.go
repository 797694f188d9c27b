package describe

import (
	"maps"
	"slices"

	"github.com/xebec-project/xebec/cli/jsonpath"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// generic describes an object by its fields as JSON has them. A pod template and the conditions are
// shown as in other descriptions.
func (r *report) generic(obj scheme.Object) error {
	k := kinds.Of(obj)
	r.metadata(obj)
	r.labels(obj)
	r.field("API Version", k.APIVersion())
	r.field("Kind", k.Name)
	r.field("Age", column.Age(obj.GetMetadata().GetCreationTimestamp(), r.now))
	r.ends(obj)
	value, err := codec.Value(obj)
	if err != nil {
		return err
	}
	members, _ := value.(map[string]any)
	for _, shown := range []string{"apiVersion", "kind", "metadata"} {
		delete(members, shown)
	}
	template, path := resolve.PodTemplate(obj)
	if template != nil {
		remove(members, path)
	}
	status := conditionsOf(members)
	r.tree(members)
	if template != nil {
		r.template(template)
	}
	conditions(r, status)
	return nil
}

// remove deletes the value at a path from a JSON object.
func remove(members map[string]any, path []string) {
	last := len(path) - 1
	for _, name := range path[:last] {
		members, _ = members[name].(map[string]any)
	}
	delete(members, path[last])
}

// conditionsOf takes the conditions out of the status of an object. They stay if they have another
// form.
func conditionsOf(members map[string]any) []*metav1.Condition {
	status, _ := members["status"].(map[string]any)
	list, _ := status["conditions"].([]any)
	found := make([]*metav1.Condition, len(list))
	for i, item := range list {
		fields, _ := item.(map[string]any)
		known := map[string]any{}
		for _, name := range []string{"type", "status", "reason", "message", "lastTransitionTime"} {
			if value, ok := fields[name]; ok {
				known[name] = value
			}
		}
		found[i] = &metav1.Condition{}
		if codec.FromValue(known, found[i]) != nil || found[i].GetType() == "" {
			return nil
		}
	}
	delete(status, "conditions")
	if len(status) == 0 {
		delete(members, "status")
	}
	return found
}

// tree writes the members of a JSON object.
func (r *report) tree(members map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(members)) {
		r.node(printer.Title(key), members[key])
	}
}

func (r *report) node(name string, value any) {
	switch v := value.(type) {
	case map[string]any:
		r.group(name, func() { r.tree(v) })
	case []any:
		r.group(name, func() {
			for _, item := range v {
				if members, ok := item.(map[string]any); ok {
					r.line("-")
					r.level++
					r.tree(members)
					r.level--
				} else {
					r.line(jsonpath.Text(item))
				}
			}
		})
	default:
		r.field(name, jsonpath.Text(v))
	}
}
