package patch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// same compares two JSON texts by their values.
func same(t *testing.T, got []byte, want string) bool {
	t.Helper()
	var a, b any
	if err := errors.Join(json.Unmarshal(got, &a), json.Unmarshal([]byte(want), &b)); err != nil {
		t.Fatalf("%v in %s or %s", err, got, want)
	}
	return reflect.DeepEqual(a, b)
}

// TestMerge has the examples of RFC 7386, those whose patch is an object.
func TestMerge(t *testing.T) {
	for _, tt := range []struct{ doc, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"a":"foo"}`, `{"a":{"b":{"c":null}}}`, `{"a":{"b":{}}}`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"n":9007199254740993}`, `{"a":9007199254740993}`, `{"n":9007199254740993,"a":9007199254740993}`},
	} {
		p, err := ParseMerge([]byte(tt.patch))
		if err != nil {
			t.Errorf("%s: %v", tt.patch, err)
			continue
		}
		for range 2 { // a patch may be applied again
			got, err := p.Apply(t.Context(), []byte(tt.doc))
			if err != nil || !same(t, got, tt.want) {
				t.Errorf("%s with %s is %s, %v; want %s", tt.doc, tt.patch, got, err, tt.want)
			}
		}
	}
	for _, bad := range []string{``, `[]`, `"a"`, `{`, `{} {}`} {
		if _, err := ParseMerge([]byte(bad)); err == nil {
			t.Errorf("merge patch %q is taken", bad)
		}
	}
}

// TestJSON has the examples of RFC 6902's appendix, and what follows from its text.
func TestJSON(t *testing.T) {
	for _, tt := range []struct{ name, doc, patch, want string }{
		{"add a member", `{"foo":"bar"}`, `[{"op":"add","path":"/baz","value":"qux"}]`, `{"baz":"qux","foo":"bar"}`},
		{"add an element", `{"foo":["bar","baz"]}`, `[{"op":"add","path":"/foo/1","value":"qux"}]`, `{"foo":["bar","qux","baz"]}`},
		{"remove a member", `{"baz":"qux","foo":"bar"}`, `[{"op":"remove","path":"/baz"}]`, `{"foo":"bar"}`},
		{"remove an element", `{"foo":["bar","qux","baz"]}`, `[{"op":"remove","path":"/foo/1"}]`, `{"foo":["bar","baz"]}`},
		{"replace", `{"baz":"qux","foo":"bar"}`, `[{"op":"replace","path":"/baz","value":"boo"}]`, `{"baz":"boo","foo":"bar"}`},
		{"move a value", `{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}`, `[{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]`, `{"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}`},
		{"move an element", `{"foo":["all","grass","cows","eat"]}`, `[{"op":"move","from":"/foo/1","path":"/foo/3"}]`, `{"foo":["all","cows","eat","grass"]}`},
		{"move to itself", `{"a":1}`, `[{"op":"move","from":"/a","path":"/a"}]`, `{"a":1}`},
		{"test", `{"baz":"qux","foo":["a",2,"c"]}`, `[{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2}]`, `{"baz":"qux","foo":["a",2,"c"]}`},
		{"test a number written differently", `{"a":2}`, `[{"op":"test","path":"/a","value":2.0}]`, `{"a":2}`},
		{"test that something is absent", `{"a":2}`, `[{"op":"test","path":"/b","value":null}]`, `{"a":2}`},
		{"add an object", `{"foo":"bar"}`, `[{"op":"add","path":"/child","value":{"grandchild":{}}}]`, `{"foo":"bar","child":{"grandchild":{}}}`},
		{"unknown members of an operation", `{"foo":"bar"}`, `[{"op":"add","path":"/baz","value":"qux","xyz":123}]`, `{"foo":"bar","baz":"qux"}`},
		{"escapes", `{"/":9,"~1":10}`, `[{"op":"test","path":"/~01","value":10},{"op":"remove","path":"/~1"}]`, `{"~1":10}`},
		{"append", `{"foo":["bar"]}`, `[{"op":"add","path":"/foo/-","value":["abc","def"]}]`, `{"foo":["bar",["abc","def"]]}`},
		{"append by index", `{"foo":["bar"]}`, `[{"op":"add","path":"/foo/1","value":"x"}]`, `{"foo":["bar","x"]}`},
		{"from the end", `{"foo":["a","b"]}`, `[{"op":"remove","path":"/foo/-1"}]`, `{"foo":["a"]}`},
		{"add null", `{}`, `[{"op":"add","path":"/a","value":null}]`, `{"a":null}`},
		{"copy is independent", `{"a":{"b":1}}`, `[{"op":"copy","from":"/a","path":"/c"},{"op":"add","path":"/c/d","value":2}]`, `{"a":{"b":1},"c":{"b":1,"d":2}}`},
		{"the whole object", `{"a":1}`, `[{"op":"replace","path":"","value":{"b":2}}]`, `{"b":2}`},
		{"what was added is changed", `{}`, `[{"op":"add","path":"/a","value":{"l":[1]}},{"op":"add","path":"/a/l/-","value":2}]`, `{"a":{"l":[1,2]}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ParseJSON([]byte(tt.patch))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				got, err := p.Apply(t.Context(), []byte(tt.doc))
				if err != nil || !same(t, got, tt.want) {
					t.Errorf("got %s, %v; want %s", got, err, tt.want)
				}
			}
		})
	}
}

func TestJSONRefuses(t *testing.T) {
	const doc = `{"foo":["a","b"],"baz":"qux","n":9007199254740993}`
	for name, patch := range map[string]string{
		"not an array":               `{"op":"add","path":"/a","value":1}`,
		"no path":                    `[{"op":"add","value":1}]`,
		"no value":                   `[{"op":"add","path":"/a"}]`,
		"no from":                    `[{"op":"move","path":"/a"}]`,
		"an unknown op":              `[{"op":"spam","path":"/a"}]`,
		"a path without slash":       `[{"op":"remove","path":"baz"}]`,
		"a failing test":             `[{"op":"test","path":"/baz","value":"bar"}]`,
		"a test of another number":   `[{"op":"test","path":"/n","value":9007199254740992}]`,
		"a test of another type":     `[{"op":"test","path":"/baz","value":["qux"]}]`,
		"a missing member":           `[{"op":"remove","path":"/bar"}]`,
		"replace of what is missing": `[{"op":"replace","path":"/bar","value":1}]`,
		"add below what is missing":  `[{"op":"add","path":"/bar/baz","value":1}]`,
		"an index beyond the end":    `[{"op":"add","path":"/foo/3","value":1}]`,
		"an index with a zero":       `[{"op":"remove","path":"/foo/01"}]`,
		"an index that is a name":    `[{"op":"remove","path":"/foo/bar"}]`,
		"the end as a source":        `[{"op":"remove","path":"/foo/-"}]`,
		"removal of everything":      `[{"op":"remove","path":""}]`,
		"a move into itself":         `[{"op":"move","from":"/foo","path":"/foo/0"}]`,
	} {
		p, err := ParseJSON([]byte(patch))
		if err == nil {
			_, err = p.Apply(t.Context(), []byte(doc))
		}
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func nested(levels int, around, inside, end string) string {
	return strings.Repeat(around, levels) + inside + strings.Repeat(end, levels)
}

// TestCostlyPatches refuses patches that are small and would take seconds of processor time, or
// gigabytes.
func TestCostlyPatches(t *testing.T) {
	operations := func(n int, op string) string {
		return "[" + strings.TrimSuffix(strings.Repeat(op+",", n), ",") + "]"
	}
	large := `"` + strings.Repeat("x", 1<<20) + `"`
	list := "[" + strings.TrimSuffix(strings.Repeat("0,", 1<<20), ",") + "]"
	nesting := func(n int) string { // each copy stands one level further down
		var ops []string
		for range n {
			ops = append(ops, `{"op":"copy","from":"/a","path":"/b"}`, `{"op":"move","from":"/b","path":"/a/a"}`)
		}
		return "[" + strings.Join(ops, ",") + "]"
	}
	for name, tt := range map[string]struct {
		parse func([]byte) (Patch, error)
		patch string
		want  string
	}{
		"a deep merge patch":             {ParseMerge, nested(9000, `{"a":`, `1`, `}`), "nested more than 100 deep"},
		"a deep merge patch with a text": {ParseMerge, nested(101, `{"a":`, large, `}`), "nested more than 100 deep"},
		"a deep list in a merge patch":   {ParseMerge, `{"a":` + nested(9000, `[`, ``, `]`) + `}`, "nested more than 100 deep"},
		"a deep value":                   {ParseJSON, `[{"op":"add","path":"/a","value":` + nested(9000, `{"a":`, `1`, `}`) + `}]`, "nested more than"},
		"many operations":                {ParseJSON, operations(60000, `{"op":"test","path":"/a","value":{}}`), "at most 10000 operations"},
		"a long path":                    {ParseJSON, `[{"op":"add","path":"` + strings.Repeat("/a", 5000) + `","value":1}]`, "has 5000 levels"},
		"copies that nest":               {ParseJSON, nesting(150), "nested more than 100 deep"},
		"copies of a large text":         {ParseJSON, `[{"op":"add","path":"/t","value":` + large + `},` + operations(5000, `{"op":"copy","from":"/t","path":"/l/-"}`)[1:], "copies more than"},
		"insertions at the front":        {ParseJSON, `[{"op":"add","path":"/l","value":` + list + `},` + operations(9000, `{"op":"add","path":"/l/0","value":0}`)[1:], "too long"},
		"removals at the front":          {ParseJSON, `[{"op":"add","path":"/l","value":` + list + `},` + operations(9000, `{"op":"remove","path":"/l/0"}`)[1:], "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := tt.parse([]byte(tt.patch))
			if err == nil {
				_, err = p.Apply(t.Context(), []byte(`{"a":{},"l":[]}`))
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 1000 {
				t.Errorf("got %.1000v, want an error with %q", err, tt.want)
			}
		})
	}
	t.Run("as many operations as are allowed", func(t *testing.T) {
		p, err := ParseJSON([]byte(operations(MaxOperations, `{"op":"test","path":"/a","value":{}}`)))
		if err == nil {
			_, err = p.Apply(t.Context(), []byte(`{"a":{}}`))
		}
		if err != nil {
			t.Error(err)
		}
	})
}

func TestApplyHonoursCancellation(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, parse := range map[string]func() (Patch, error){
		"merge": func() (Patch, error) { return ParseMerge([]byte(`{"a":1}`)) },
		"JSON":  func() (Patch, error) { return ParseJSON([]byte(`[{"op":"add","path":"/a","value":1}]`)) },
	} {
		p, err := parse()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Apply(ctx, []byte(`{}`)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStringsDoNotCount has brackets, quotes and backslashes in texts, which are no nesting.
func TestStringsDoNotCount(t *testing.T) {
	text, _ := json.Marshal(strings.Repeat(`[{\"`, 1000))
	if _, err := ParseMerge(fmt.Appendf(nil, `{"a":%s}`, text)); err != nil {
		t.Error(err)
	}
	p, err := ParseJSON(fmt.Appendf(nil, `[{"op":"add","path":"/a","value":%s}]`, text))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.(steps)); n != 1 {
		t.Errorf("%d operations", n)
	}
}
