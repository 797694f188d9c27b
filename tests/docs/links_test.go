package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)\s]*)?\)`)
	// mention is a path of the tree in back quotes: a folder or file below one of its top folders.
	mention = regexp.MustCompile("`((?:agent|cli|cmd|docs|hack|internal|lab|proto|samples|services|tests|tools)/[A-Za-z0-9_./-]*)`")
)

// TestLinks follows every link between pages.
func TestLinks(t *testing.T) {
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s, which does not exist", page, m[1])
			}
		}
	}
}

// TestMentions looks for every file and folder that a page names.
func TestMentions(t *testing.T) {
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mention.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names %s, which does not exist", page, m[1])
			}
		}
	}
}

// TestIndex demands that the index of docs/ names every page.
func TestIndex(t *testing.T) {
	index, err := os.ReadFile(filepath.Join(root, "docs", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages(t) {
		name, err := filepath.Rel(filepath.Join(root, "docs"), page)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "..") || name == "README.md" {
			continue
		}
		if !strings.Contains(string(index), "]("+filepath.ToSlash(name)+")") {
			t.Errorf("docs/README.md does not name %s", name)
		}
	}
}

var (
	required = regexp.MustCompile(`(?m)^\t?(?:require )?([a-z][^\s()]+\.[^\s()]+) v\S+$`)
	toolLine = regexp.MustCompile(`(?m)^(?:tool |\t)([a-z][^\s()]+\.[^\s()]+)$`)
)

// TestDependencies demands a reason in docs/dependencies.md for every direct dependency, and for
// nothing else.
func TestDependencies(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		listed[m[1]] = true
	}
	wanted := map[string]bool{}
	for file, pattern := range map[string]*regexp.Regexp{"go.mod": required, "tools/go.mod": toolLine, "tools/golangci/go.mod": toolLine} {
		mod, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range pattern.FindAllStringSubmatch(string(mod), -1) {
			wanted[m[1]] = true
		}
	}
	if len(wanted) < 10 {
		t.Fatalf("found %d dependencies: go.mod is written in another form than this test reads", len(wanted))
	}
	for name := range wanted {
		if !listed[name] {
			t.Errorf("docs/dependencies.md does not say why %s is needed", name)
		}
	}
	for name := range listed {
		if !wanted[name] {
			t.Errorf("docs/dependencies.md has %s, which is no direct dependency", name)
		}
	}
}
