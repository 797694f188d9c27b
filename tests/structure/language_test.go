package structure

import (
	"go/ast"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// exceptions are banned words that a file may contain, with the reason.
var exceptions = map[string]struct {
	words []string
	why   string
}{
	"CONTRIBUTING.md":                   {[]string{"door", "feed", "flight", "outline", "seeded", "told", "torn"}, "the glossary lists them"},
	"tests/structure/language_test.go":  {slices.Collect(maps.Keys(banned)), "the list itself"},
	"proto/xebec/api/v1/resource.proto": {[]string{"outline"}, "field 7 of WatchRequest, whose name clients of v0.1.0 use"},
	"services/apiserver/reads.go":       {[]string{"outline"}, "the error names that field"},
}

// banned are words and phrases that documentation, comments, messages and names of tests avoid,
// each with what to write instead. CONTRIBUTING.md has the glossary.
var banned = map[string]string{
	"afresh": "again, a new ...", "anew": "again, a new ...", "door": "listener, entry point",
	"feed": "reflector, stream", "fleet": "nodes, hosts", "flight": "single flight, call group",
	"hasten": "speed up", "lest": "so that ... not", "mend": "fix", "nobody": "no client, no process",
	"outline": "summary, metadata", "seeded": "pre-populated, initial", "somebody": "a user, a client",
	"told": "notified, reported", "torn": "partial, inconsistent", "whoever": "the client that ...",
	"whom": "the user that ...", "is to be": "must be, will be", "are to be": "must be, will be",
}

// otherForms are forms of banned words that are no plural.
var otherForms = map[string]string{"mended": "mend", "mending": "mend", "hastens": "hasten", "fed by": "feed"}

// allowedPhrases contain a banned word and are terms of the field.
var allowedPhrases = []string{"single flight", "singleflight", "in flight", "in-flight", "flight recorder", "line feed"}

var bannedPattern = func() *regexp.Regexp {
	var words []string
	for w := range banned {
		words = append(words, strings.ReplaceAll(w, " ", `\s+`))
		if !strings.Contains(w, " ") {
			words = append(words, w+"s")
		}
	}
	for w := range otherForms {
		words = append(words, w)
	}
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
	return regexp.MustCompile(`(?i)\b(` + strings.Join(words, "|") + `)\b`)
}()

// codeSpan is code within a page of documentation.
var codeSpan = regexp.MustCompile("`[^`\n]*`")

// bannedIn returns the banned words of a text.
func bannedIn(text string) []string {
	text = strings.ToLower(text)
	for _, phrase := range allowedPhrases {
		text = strings.ReplaceAll(text, phrase, "")
	}
	return bannedPattern.FindAllString(text, -1)
}

// instead is what to write for a banned word.
func instead(word string) string {
	word = strings.Join(strings.Fields(word), " ")
	if base, ok := otherForms[word]; ok {
		word = base
	}
	if advice, ok := banned[word]; ok {
		return advice
	}
	return banned[strings.TrimSuffix(word, "s")]
}

// words splits a name of a test at its capitals: TestDoorOpens is "Test Door Opens".
func words(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// A line of code has at most maxColumns characters, a line of a comment maxCommentColumns. A tab
// counts as one. Tests have no limit for code, since a table is read by its rows.
const (
	maxColumns        = 140
	maxCommentColumns = 100
)

// hit is one violation.
type hit struct{ at, text string }

// language finds banned words in the comments, strings and names of tests of a file.
func (s *source) language() []hit {
	var hits []hit
	add := func(n ast.Node, what, text string) {
		for _, w := range except(s.path, bannedIn(text)) {
			hits = append(hits, hit{s.at(n), what + " contains " + strconv.Quote(w) + ": write " + instead(w)})
		}
	}
	for _, group := range s.syntax.Comments {
		for _, c := range group.List {
			add(c, "comment", c.Text)
		}
	}
	ast.Inspect(s.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				add(n, "string", n.Value)
			}
		case *ast.FuncDecl:
			if s.test() && strings.HasPrefix(n.Name.Name, "Test") {
				add(n, "name of test", words(n.Name.Name))
			}
		}
		return true
	})
	return hits
}

// columns finds lines that are too long.
func (s *source) columns(t *testing.T) []hit {
	text, err := os.ReadFile(filepath.Join(root, s.path))
	if err != nil {
		t.Fatal(err)
	}
	var hits []hit
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSuffix(line, "\n")
		limit := maxColumns
		switch comment := strings.HasPrefix(strings.TrimLeft(line, "\t"), "//"); {
		case strings.HasPrefix(line, "//go:"), strings.HasPrefix(line, "//nolint"):
			continue
		case comment:
			limit = maxCommentColumns
		case s.test():
			continue
		}
		if n := utf8.RuneCountInString(line); n > limit {
			hits = append(hits, hit{s.path + ":" + strconv.Itoa(number), strconv.Itoa(n) + " columns, more than " + strconv.Itoa(limit)})
		}
	}
	return hits
}

// except returns the words that the exceptions of a file do not contain.
func except(path string, words []string) []string {
	return slices.DeleteFunc(words, func(w string) bool {
		return slices.ContainsFunc(exceptions[path].words, func(e string) bool { return w == e || w == e+"s" || otherForms[w] == e })
	})
}

// TestLanguage refuses banned words in all Go files, protos and pages of documentation, and long
// lines in all Go files. Generated files are excluded.
func TestLanguage(t *testing.T) {
	for _, s := range sources(t) {
		if s.generated {
			continue
		}
		for _, h := range append(s.language(), s.columns(t)...) {
			t.Errorf("%s: %s", h.at, h.text)
		}
	}
	texts := 0
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() && name != root && (base == "testdata" || base == "bin" || strings.HasPrefix(base, ".")) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(base, ".md") && !strings.HasSuffix(base, ".proto") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		texts++
		path, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		for _, w := range except(path, bannedIn(codeSpan.ReplaceAllString(string(text), ""))) {
			t.Errorf("%s contains %q: write %s", path, w, instead(w))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if texts < 100 {
		t.Errorf("found %d protos and pages: this is not the whole tree", texts)
	}
}

func TestBannedWords(t *testing.T) {
	for text, want := range map[string][]string{
		"the agent is told":                  {"told"},
		"Whoever waits at the Doors":         {"whoever", "doors"},
		"requests in flight, single flight":  nil,
		"the object is to\nbe removed":       {"is to\nbe"},
		"a feeder, outdoors, mending fences": {"mending"},
		words("TestTornWrites"):              {"torn"},
	} {
		if got := bannedIn(text); !slices.Equal(got, want) {
			t.Errorf("%q contains %q, want %q", text, got, want)
		}
		for _, w := range want {
			if instead(w) == "" {
				t.Errorf("no advice for %q", w)
			}
		}
	}
}
