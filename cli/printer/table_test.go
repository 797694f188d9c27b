package printer

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/xebec-project/xebec/cli/terminal"
)

func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		"plain é世\n\ttext":       "plain é世\n\ttext",
		"\x1b[31mred\x1b]0;t\a":  "^[[31mred^[]0;t^G",
		"end\rover\b\x00\x7f":    `end\rover^H^@^?`,
		"\u009b2J\u0085":         `\u009b2J\u0085`,
		"\x9b2J":                 `\x9b2J`,
		"a\u202eb\u2066c\u2028d": `a\u202eb\u2066c\u2028d`,
		"cut \xe2\x80":           `cut \xe2\x80`,
	} {
		if got := terminal.Escape(text); got != want {
			t.Errorf("escape(%q) = %q, want %q", text, got, want)
		}
		if again := terminal.Escape(want); again != want {
			t.Errorf("escape(%q) = %q: what is escaped must stay as it is", want, again)
		}
	}
	table := &Table{Heads: []string{"A\x1bB", "C"}}
	table.Add("one\r\ntwo", "x\x1b[2K")
	var b bytes.Buffer
	table.Print(&b)
	if want := "A^[B      C\none two   x^[[2K\n"; b.String() != want {
		t.Errorf("a table is\n%q, want\n%q: columns must be as wide as what is shown", b.String(), want)
	}
}

func TestTableFits(t *testing.T) {
	table := &Table{Heads: []string{"NAME", "STATE", "MESSAGE"}, Keep: 1}
	table.Add("a-rather-long-name-of-a-pod", "Running", strings.Repeat("word ", 30))
	var b strings.Builder
	table.PrintWidths(&b, table.Widths(80))
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("a line has %d columns: %s", n, line)
		}
	}
	if out := b.String(); !strings.Contains(out, "a-rather-long-name-of-a-pod   Running   word") || !strings.Contains(out, "…") {
		t.Errorf("the name is cut, or the message is not:\n%s", out)
	}
}

func TestFit(t *testing.T) {
	for _, test := range []struct {
		widths []int
		limit  int
		keep   int
		want   []int
	}{
		{[]int{10, 10}, 0, 0, []int{10, 10}},
		{[]int{10, 10}, 23, 0, []int{10, 10}},
		{[]int{10, 40, 30}, 60, 1, []int{10, 22, 22}},
		// What can't be cut further sticks out rather than become unreadable.
		{[]int{50, 20}, 40, 1, []int{50, 12}},
	} {
		got := slices.Clone(test.widths)
		fit(got, test.limit, test.keep)
		if !slices.Equal(got, test.want) {
			t.Errorf("fit %v into %d: %v, want %v", test.widths, test.limit, got, test.want)
		}
	}
}
