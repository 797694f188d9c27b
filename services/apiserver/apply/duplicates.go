package apply

import (
	"fmt"
	"slices"

	"sigs.k8s.io/structured-merge-diff/v6/schema"
)

// occurrence is a further key of every list that merges by keys. Elements that have all their keys
// in common with others, which Kubernetes accepts in env and ports, are numbered by it from the
// second one on, while they are merged: the library merges elements of different keys only, and
// drops the whole list of a list's element where it finds two. The number is seen in managedFields,
// and nowhere else.
const occurrence = "~occurrence"

// number puts the occurrence into elements of equal keys below v, which is of the type ref, and
// returns v. With once, the later ones of equal elements of a set are left out.
func number(s *schema.Schema, ref schema.TypeRef, v any, once bool) any {
	atom, ok := s.Resolve(ref)
	if !ok {
		return v
	}
	switch v := v.(type) {
	case map[string]any:
		if atom.Map == nil || atom.Map.ElementRelationship == schema.Atomic {
			return v
		}
		for name, value := range v {
			v[name] = number(s, memberType(atom.Map, name), value, once)
		}
	case []any:
		switch {
		case atom.List == nil || atom.List.ElementRelationship != schema.Associative:
		case len(atom.List.Keys) > 0:
			seen := map[string]int64{}
			for i, item := range v {
				v[i] = number(s, atom.List.ElementType, item, once)
				key := keyOf(s, atom.List, item)
				if n := seen[key]; n > 0 {
					item.(map[string]any)[occurrence] = n
				}
				seen[key]++
			}
		case once:
			var unique []any
			for _, item := range v {
				if !slices.Contains(unique, item) {
					unique = append(unique, item)
				}
			}
			return unique
		}
	}
	return v
}

// unnumber removes what number put in.
func unnumber(s *schema.Schema, ref schema.TypeRef, v any) {
	atom, ok := s.Resolve(ref)
	if !ok {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		if atom.Map == nil || atom.Map.ElementRelationship == schema.Atomic {
			return
		}
		for name, value := range v {
			unnumber(s, memberType(atom.Map, name), value)
		}
	case []any:
		if atom.List == nil || atom.List.ElementRelationship != schema.Associative || len(atom.List.Keys) == 0 {
			return
		}
		for _, item := range v {
			if members, ok := item.(map[string]any); ok {
				delete(members, occurrence)
			}
			unnumber(s, atom.List.ElementType, item)
		}
	}
}

func memberType(m *schema.Map, name string) schema.TypeRef {
	if f, ok := m.FindField(name); ok {
		return f.Type
	}
	return m.ElementType
}

// keyOf is an element's keys as text, those that are not set as what they count as.
func keyOf(s *schema.Schema, l *schema.List, item any) string {
	members, _ := item.(map[string]any)
	values := make([]any, len(l.Keys))
	for i, key := range l.Keys {
		value, ok := members[key]
		if element, found := s.Resolve(l.ElementType); !ok && found && element.Map != nil {
			if f, known := element.Map.FindField(key); known {
				value = f.Default
			}
		}
		values[i] = value
	}
	return fmt.Sprintf("%q", values)
}
