package structure

import (
	"flag"
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

// clean are the directories, with all below them, whose language and columns are checked. Add a
// directory when `go test ./tests/structure -run TestLanguage -hits` counts none in it.
var clean = []string{
	"agent",
	"cli",
	"cmd",
	"internal/allowlist",
	"internal/apierr",
	"internal/backoff",
	"internal/cliconfig",
	"internal/condition",
	"internal/controller",
	"internal/daemon",
	"internal/discovery",
	"internal/edge",
	"internal/elected",
	"internal/etcdadmin",
	"internal/etcdtest",
	"internal/events",
	"internal/failpoint",
	"internal/fairness",
	"internal/ipalloc",
	"internal/kinds",
	"internal/manifest",
	"internal/method",
	"internal/metrics",
	"internal/netlab",
	"internal/object",
	"internal/osthread",
	"internal/pki",
	"internal/renewal",
	"internal/retry",
	"internal/rpc",
	"internal/schema",
	"internal/schema/comments",
	"internal/schema/openapi",
	"internal/spelling",
	"internal/token",
	"internal/version",
	"internal/wire",
	"lab",
	"services/apiserver/storage",
	"services/auth",
	"services/cloud",
	"services/collector",
	"services/endpoints",
	"services/etcd",
	"services/gateway",
	"services/nodes",
	"services/scheduler",
	"services/workloads",
	"tests/bench",
	"tests/cluster",
	"tests/controllers",
	"tests/e2e",
	"tests/etcdroles",
	"tests/guests",
	"tests/hosts",
	"tests/kernels",
	"tests/linearizability",
	"tests/openapi",
	"tests/reruns",
	"tests/structure",
	"tests/upgrades",
	"tests/validation",
	"tests/vm",
}

// cleanPages are the pages of documentation whose language is checked.
var cleanPages = []string{
	"README.md",
	"SECURITY.md",
	"docs/README.md",
	"docs/agent.md",
	"docs/architecture.md",
	"docs/cli.md",
	"docs/concepts.md",
	"docs/datapath.md",
	"docs/lab.md",
	"docs/operations/backup.md",
	"docs/operations/bring-up.md",
	"docs/operations/certificates.md",
	"docs/operations/replacing-a-master.md",
	"docs/operations/troubleshooting.md",
	"docs/operations/upgrade.md",
	"docs/podnet.md",
	"docs/policy.md",
	"docs/services/auth.md",
	"docs/services/cloud.md",
	"docs/services/common.md",
	"docs/services/endpoints.md",
	"docs/services/etcd.md",
	"docs/services/gateway.md",
	"docs/services/nodes.md",
	"docs/services/scheduler.md",
	"docs/services/workloads.md",
	"docs/storage.md",
}

var printHits = flag.Bool("hits", false, "print the number of banned words and long lines in every directory")

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

// A line of code has at most maxColumns characters, one of a comment maxCommentColumns. A tab counts
// as one. Tests have no limit for code, since a table is read by its rows.
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
		for _, w := range bannedIn(text) {
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

// isClean reports whether a file is in a directory that is checked. The list of words itself is not.
func isClean(path string) bool {
	return path != "tests/structure/language_test.go" &&
		slices.ContainsFunc(clean, func(dir string) bool { return strings.HasPrefix(path, dir+"/") })
}

// TestLanguage refuses banned words and long lines in the directories and pages that are clean.
func TestLanguage(t *testing.T) {
	counts := map[string][2]int{}
	for _, s := range sources(t) {
		if s.generated {
			continue
		}
		language, columns := s.language(), s.columns(t)
		count := counts[s.dir()]
		counts[s.dir()] = [2]int{count[0] + len(language), count[1] + len(columns)}
		if isClean(s.path) {
			for _, h := range append(language, columns...) {
				t.Errorf("%s: %s", h.at, h.text)
			}
		}
	}
	for _, page := range cleanPages {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range bannedIn(codeSpan.ReplaceAllString(string(text), "")) {
			t.Errorf("%s contains %q: write %s", page, w, instead(w))
		}
	}
	if *printHits {
		logHits(t, counts)
	}
}

// logHits prints the number of violations of every directory and page.
func logHits(t *testing.T, counts map[string][2]int) {
	t.Helper()
	for _, dir := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[dir]; n != [2]int{} {
			t.Logf("%-40s %4d words %4d lines", dir, n[0], n[1])
		}
	}
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := entry.Name(); entry.IsDir() && name != root && (base == "testdata" || strings.HasPrefix(base, ".")) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".md") {
			return nil
		}
		text, err := os.ReadFile(name)
		if n := len(bannedIn(codeSpan.ReplaceAllString(string(text), ""))); n > 0 {
			t.Logf("%-40s %4d words", strings.TrimPrefix(name, root+"/"), n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
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
