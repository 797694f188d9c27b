// Package docs keeps docs/ true: the parts of it that follow from the code are generated, what it
// names must exist, and every dependency must have its reason there.
//
// A generated part stands between two comments that name its generator. After a change of the code:
//
//	go test ./tests/docs -update
package docs

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "update the generated parts of docs/")

// root is the top of the tree, seen from this package.
const root = "../.."

// generators make the parts of pages, by name.
var generators = map[string]func(*testing.T) string{
	"config common":    commonConfig,
	"config agent":     agentConfig,
	"config etcd":      etcdConfig,
	"config apiserver": apiserverConfig,
	"config auth":      authConfig,
	"config gateway":   gatewayConfig,
	"config scheduler": schedulerConfig,
	"config workloads": workloadsConfig,
	"config nodes":     nodesConfig,
	"config endpoints": endpointsConfig,
	"config collector": collectorConfig,
	"config cloud":     cloudConfig,
	"fields pod":       podFields,
	"fields service":   serviceFields,
	"metrics":          metricsTable,
	"log keys":         logKeys,
	"reasons":          reasons,
	"kinds":            listKinds,
	"methods":          methods,
	"rights":           rights,
	"commands xebec":   commands,
	"commands lab":     labCommands,
}

var part = regexp.MustCompile(`(?s)<!-- begin ([a-z ]+) -->\n.*?<!-- end ([a-z ]+) -->`)

// pages are the Markdown files that people read.
func pages(t *testing.T) []string {
	t.Helper()
	list := []string{filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md")}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(name, ".md") {
			list = append(list, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestGenerated compares every generated part with what the code says now.
func TestGenerated(t *testing.T) {
	used := map[string]bool{}
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		fresh := part.ReplaceAllStringFunc(string(text), func(old string) string {
			name := part.FindStringSubmatch(old)[1]
			generate := generators[name]
			if generate == nil {
				t.Errorf("%s: no generator makes %q", page, name)
				return old
			}
			used[name] = true
			return fmt.Sprintf("<!-- begin %[1]s -->\n%[2]s<!-- end %[1]s -->", name, generate(t))
		})
		switch {
		case fresh == string(text):
		case *update:
			if err := os.WriteFile(page, []byte(fresh), 0o644); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("%s does not say what the code says; run: go test ./tests/docs -update", page)
		}
	}
	for name := range generators {
		if !used[name] {
			t.Errorf("no page has the generated part %q", name)
		}
	}
}

// code puts a text into back quotes, unless it is empty.
func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// sentence turns a doc comment into one line.
func sentence(doc string) string { return strings.Join(strings.Fields(doc), " ") }
