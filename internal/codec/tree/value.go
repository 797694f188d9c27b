package tree

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

// FromValue takes a generic Go value: nil, bool, string, any number, json.Number, and slices and
// maps of such values as encoding/json makes them. Members are sorted by key.
func FromValue(v any) (*Node, error) { return fromValue(v, 0) }

func fromValue(v any, depth int) (*Node, error) {
	if depth > maxDepth {
		return nil, &SyntaxError{Message: fmt.Sprintf("lists and objects are nested more than %d deep", maxDepth)}
	}
	switch v := v.(type) {
	case nil:
		return &Node{}, nil
	case bool:
		return &Node{Kind: Bool, Text: strconv.FormatBool(v)}, nil
	case string:
		return &Node{Kind: String, Text: v}, nil
	case json.Number:
		if !isJSONNumber(v.String()) {
			return nil, &SyntaxError{Message: fmt.Sprintf("%q is not a number", v.String())}
		}
		return &Node{Kind: Number, Text: v.String()}, nil
	case int:
		return &Node{Kind: Number, Text: strconv.Itoa(v)}, nil
	case int32:
		return &Node{Kind: Number, Text: strconv.FormatInt(int64(v), 10)}, nil
	case int64:
		return &Node{Kind: Number, Text: strconv.FormatInt(v, 10)}, nil
	case uint32:
		return &Node{Kind: Number, Text: strconv.FormatUint(uint64(v), 10)}, nil
	case uint64:
		return &Node{Kind: Number, Text: strconv.FormatUint(v, 10)}, nil
	case float32:
		return fromFloat(float64(v), 32)
	case float64:
		return fromFloat(v, 64)
	case []string:
		n := &Node{Kind: List}
		for _, item := range v {
			n.Items = append(n.Items, &Node{Kind: String, Text: item})
		}
		return n, nil
	case []any:
		n := &Node{Kind: List, Items: make([]*Node, len(v))}
		for i, item := range v {
			var err error
			if n.Items[i], err = fromValue(item, depth+1); err != nil {
				return nil, err
			}
		}
		return n, nil
	case map[string]string:
		n := &Node{Kind: Map}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			n.Members = append(n.Members, Member{Key: key, Value: &Node{Kind: String, Text: v[key]}})
		}
		return n, nil
	case map[string]any:
		n := &Node{Kind: Map, Members: make([]Member, 0, len(v))}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			value, err := fromValue(v[key], depth+1)
			if err != nil {
				return nil, err
			}
			n.Members = append(n.Members, Member{Key: key, Value: value})
		}
		return n, nil
	}
	return nil, &SyntaxError{Message: fmt.Sprintf("a %T is not a JSON value", v)}
}

// fromFloat writes whole numbers without a point or an exponent as long as a float is exact,
// because generic JSON decoders have no other type for integers.
func fromFloat(f float64, bits int) (*Node, error) {
	const exact = 1 << 53
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return nil, &SyntaxError{Message: fmt.Sprintf("%v is not a JSON number", f)}
	case f == math.Trunc(f) && math.Abs(f) <= exact:
		return &Node{Kind: Number, Text: strconv.FormatInt(int64(f), 10)}, nil
	}
	return &Node{Kind: Number, Text: strconv.FormatFloat(f, 'g', -1, bits)}, nil
}

// Value returns the generic Go value: nil, bool, string, int64, float64, []any or map[string]any.
// Whole numbers in the range of an int64 are one, all others a float64. Of duplicate members the
// last one counts.
func (n *Node) Value() any {
	switch n.Kind {
	case Bool:
		return n.Text == "true"
	case Number:
		if i, err := strconv.ParseInt(n.Text, 10, 64); err == nil {
			return i
		}
		f, _ := strconv.ParseFloat(n.Text, 64) // Out of range is an infinity, the nearest there is.
		return f
	case String:
		return n.Text
	case List:
		items := make([]any, len(n.Items))
		for i, item := range n.Items {
			items[i] = item.Value()
		}
		return items
	case Map:
		members := make(map[string]any, len(n.Members))
		for _, m := range n.Members {
			members[m.Key] = m.Value.Value()
		}
		return members
	}
	return nil
}
