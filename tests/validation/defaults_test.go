package validation_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/scheme"
)

// defaults compares a valid object with our defaults with that of Kubernetes. A field in which they
// differ is in docs/fields.md.
func (c *comparison) defaults(k *scheme.Kind, what string, object, defaulted json.RawMessage) {
	c.defaulted++
	o, err := codec.Unmarshal(object)
	if err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
	k.Default(o)
	var ours, theirs map[string]any
	// With the zero values that Kubernetes writes.
	whole, err := codec.EncodeWhole(o)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := json.Unmarshal(whole.JSON(), &ours); err != nil {
		c.t.Fatal(err)
	}
	if err := json.Unmarshal(defaulted, &theirs); err != nil {
		c.t.Fatal(err)
	}
	delete(ours, "status")
	delete(theirs, "status")
	for _, d := range differences("", ours, theirs) {
		entry := k.Name + " " + place(d.path)
		if !c.defaultsDiffer[entry] && !c.used[entry] {
			c.t.Errorf("%s: the default of %s is %v, in Kubernetes %v, and docs/fields.md does not say so", what, d.path, d.ours, d.theirs)
		}
		c.used[entry] = true
	}
}

// difference is a place at which two documents differ.
type difference struct {
	path         string
	ours, theirs any
}

// differences returns the innermost places at which two documents differ. An empty list, map or
// text is the same as an absent one.
func differences(at string, ours, theirs any) []difference {
	a, isMap := ours.(map[string]any)
	b, both := theirs.(map[string]any)
	u, isList := ours.([]any)
	v, bothLists := theirs.([]any)
	var out []difference
	switch {
	case isMap && both:
		keys := maps.Clone(a)
		maps.Copy(keys, b)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			out = append(out, differences(strings.TrimPrefix(at+"."+key, "."), a[key], b[key])...)
		}
	case isList && bothLists && len(u) == len(v):
		for i := range u {
			out = append(out, differences(fmt.Sprintf("%s[%d]", at, i), u[i], v[i])...)
		}
	case !reflect.DeepEqual(ours, theirs) && !(empty(ours) && empty(theirs)):
		out = append(out, difference{at, ours, theirs})
	}
	return out
}

func empty(v any) bool {
	switch v := v.(type) {
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return v == nil || v == ""
}
