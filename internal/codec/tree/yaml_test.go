package tree_test

import (
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/codec/tree"
)

// roundTrip writes a string as YAML, as a value and as a key, and reads it back.
func roundTrip(t *testing.T, s string) string {
	t.Helper()
	str := &tree.Node{Kind: tree.String, Text: s}
	text, err := (&tree.Node{Kind: tree.Map, Members: []tree.Member{
		{Key: "value", Value: str},
		{Key: "list", Value: &tree.Node{Kind: tree.List, Items: []*tree.Node{str, str}}},
		{Key: "map", Value: &tree.Node{Kind: tree.Map, Members: []tree.Member{{Key: s, Value: str}}}},
	}}).YAML()
	if err != nil {
		t.Fatalf("write %q: %v", s, err)
	}
	nodes, err := tree.ParseYAML(strings.NewReader(string(text)))
	if err != nil || len(nodes) != 1 {
		t.Fatalf("read %q: %v\n%s", s, err, text)
	}
	n := nodes[0]
	member := n.Get("map").Members[0]
	for _, got := range []*tree.Node{n.Get("value"), n.Get("list").Items[0], n.Get("list").Items[1], member.Value, {Kind: tree.String, Text: member.Key}} {
		if got.Kind != tree.String || got.Text != s {
			t.Errorf("%q came back as %s %q:\n%s", s, got.Kind, got.Text, text)
		}
	}
	return strings.TrimPrefix(strings.SplitN(string(text), "\nlist:", 2)[0], "value: ")
}

func TestYAMLStrings(t *testing.T) {
	tests := []struct{ in, want string }{
		{"web", `web`},
		{"nginx:1.25", `nginx:1.25`},
		{"/healthz", `/healthz`},
		{"10.0.0.1", `10.0.0.1`},
		{"25%", `25%`},
		{"true", `"true"`},
		{"yes", `"yes"`},
		{"y", `"y"`},
		{"null", `"null"`},
		{"~", `"~"`},
		{"", `""`},
		{"1", `"1"`},
		{"0x1F", `"0x1F"`},
		{"0644", `"0644"`},
		{"1e3", `"1e3"`},
		{"22:20", `"22:20"`},
		{"22:80", `22:80`},
		{"2026-01-02", `"2026-01-02"`},
		{"<<", `"<<"`},
		{"*a", `'*a'`},
		{"a: b", `'a: b'`},
		{" a", `' a'`},
		{"a\tb", `"a\tb"`},
		{"a\nb\n", "|\n  a\n  b"},
		{"a\n\tb", "|-\n  a\n  \tb"},
		{"\na", `"\na"`},
		{" a\nb", `" a\nb"`},
		{"a\r\nb", `"a\r\nb"`},
		{"a\x00", `"a\0"`},
		{"世界", `世界`},
		{"世界 😀", `"世界 \U0001F600"`},
		{"\ufeffa", `"\uFEFF\x61"`},
		{strings.Repeat("long ", 60) + "end", strings.Repeat("long ", 60) + "end"},
	}
	for _, tt := range tests {
		if got := roundTrip(t, tt.in); got != tt.want {
			t.Errorf("%q is written as %s, want %s", tt.in, got, tt.want)
		}
	}
}

func FuzzYAMLString(f *testing.F) {
	for _, s := range []string{"a\n b\n\n", "- a", "? a", "a #b", "'", "\"", "\u0085\u2028", "@", "%a", "---\n...", "a\n...\n", "key: |\n  text", strings.Repeat("x", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s != strings.ToValidUTF8(s, "") {
			return
		}
		roundTrip(t, s)
	})
}

func TestJSON(t *testing.T) {
	const text = `{"b":[1.50,-0,1e400,true,null,"<\"\\\n\u0001é"],"a":{},"a":[]}`
	n, err := tree.ParseJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(n.JSON()); got != text {
		t.Errorf("got %s, want %s", got, text)
	}
}

func TestFromValue(t *testing.T) {
	n, err := tree.FromValue(map[string]any{"b": []any{1, int64(2), 3.0, 0.5, uint32(4), nil, true, "x"}, "a": map[string]string{"c": "d"}, "e": []string{"f"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(n.JSON()), `{"a":{"c":"d"},"b":[1,2,3,0.5,4,null,true,"x"],"e":["f"]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n, err := tree.FromValue(map[string]any{"a": make(chan int)}); err == nil {
		t.Errorf("a channel became %s", n.JSON())
	}
}
