package jsonpath

import (
	"strings"
	"testing"
)

var sample = map[string]any{
	"kind": "List",
	"items": []any{
		map[string]any{"name": "a", "n": int64(1), "ready": true, "labels": map[string]any{"app.kubernetes.io/name": "x"}},
		map[string]any{"name": "b", "n": int64(2), "ready": false},
		map[string]any{"name": "c", "n": 2.5},
	},
}

func TestTemplate(t *testing.T) {
	for _, test := range []struct{ template, want string }{
		{"{.kind}", "List"},
		{".kind", "List"},
		{"{$.kind} of {.items[0].name}", "List of a"},
		{"{.items[*].name}", "a b c"},
		{"{.items[-1].name}", "c"},
		{"{.items[1:].name}", "b c"},
		{"{.items[:2].n}", "1 2"},
		{"{.items[?(@.ready==true)].name}", "a"},
		{"{.items[?(@.n>=2)].name}", "b c"},
		{`{.items[?(@.name!="b")].n}`, "1 2.5"},
		{"{.items[?(@.ready)].name}", "a b"},
		{`{.items[0].labels.app\.kubernetes\.io/name}`, "x"},
		{`{.items[0]['name']}`, "a"},
		{"{.items[0].labels}", `{"app.kubernetes.io/name":"x"}`},
		{`{range .items[*]}{.name}{"\t"}{.n}{"\n"}{end}`, "a\t1\nb\t2\nc\t2.5\n"},
		{`{range .items[?(@.n<2.5)]}[{.name}]{end}.`, "[a][b]."},
		{"{.nothing.here}", ""},
		{`{"{"}{.kind}{"}"}`, "{List}"},
	} {
		parsed, err := Parse(test.template)
		if err != nil {
			t.Errorf("%s: %v", test.template, err)
			continue
		}
		var b strings.Builder
		if err := parsed.Execute(&b, sample); err != nil || b.String() != test.want {
			t.Errorf("%s gives %q, %v; want %q", test.template, b.String(), err, test.want)
		}
	}
}

func TestTemplateErrors(t *testing.T) {
	for template, want := range map[string]string{
		"{.a":                     "missing }",
		"{.a[0}":                  "missing ]",
		"{range .a}x":             "without {end}",
		"x{end}":                  "without {range}",
		"{.a[x]}":                 "neither a number",
		"{..name}":                "not supported",
		"{.a[?(@.b==c)]}":         "neither a quoted text",
		`{"open}`:                 "missing }",
		"{.a..b}":                 "not supported",
		`{range .items[*]}{.a]}}`: "without {end}",
	} {
		if _, err := Parse(template); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", template, err, want)
		}
	}
	parsed, err := Parse("{.items[7].name}")
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.Execute(&strings.Builder{}, sample); err == nil {
		t.Error("an element beyond the end is no error")
	}
}

// FuzzTemplate: whatever the text, parsing and executing end without a panic.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{.items[*].name}", `{range .items[?(@.n>=2)]}{.name}{"\n"}{end}`, `{.a\.b['c'][-1:2]}`, "{{}}", "{[", `{"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			t.Skip()
		}
		parsed, err := Parse(text)
		if err == nil {
			_ = parsed.Execute(&strings.Builder{}, sample)
		}
	})
}
