// Package structure holds the rules of the source tree that no compiler checks: which way imports
// run, what every package and file has to have, and what none may do.
package structure

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// module is the path that all of this tree's packages begin with.
const module = "github.com/xebec-project/xebec/"

// root is the top of the tree, seen from this package.
const root = "../.."

// source is one Go file of the tree.
type source struct {
	// path is relative to the top, with slashes.
	path      string
	lines     int
	syntax    *ast.File
	files     *token.FileSet
	generated bool
}

// dir is the folder of the file, empty at the top.
func (s *source) dir() string {
	if d := path.Dir(s.path); d != "." {
		return d
	}
	return ""
}

// test reports whether only `go test` builds the file.
func (s *source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

// at is where a node stands, for messages.
func (s *source) at(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.files.Position(n.Pos()).Line)
}

// imports lists the imported packages of this tree, relative to the top, and those of others in
// full.
func (s *source) imports() (own, foreign []string) {
	for _, spec := range s.syntax.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has accepted it
		}
		if rest, ok := strings.CutPrefix(name, module); ok {
			own = append(own, rest)
		} else {
			foreign = append(foreign, name)
		}
	}
	return own, foreign
}

// sources returns every Go file of the tree, parsed once for all tests, which do not change them.
func sources(t *testing.T) []*source {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("found %d Go files under %s: this is not the whole tree", len(all), root)
	}
	return all
}

var parsed = sync.OnceValues(parse)

// parse parses every Go file of the tree. Folders that Go itself passes over are left out, and so
// is what is built.
func parse() ([]*source, error) {
	var all []*source
	files := token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			skip := base == "testdata" || base == "bin" || name != root && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_"))
			if skip {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		syntax, err := parser.ParseFile(files, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		all = append(all, &source{
			path: filepath.ToSlash(relative), lines: strings.Count(string(text), "\n"), syntax: syntax, files: files,
			generated: ast.IsGenerated(syntax),
		})
		return nil
	})
	return all, err
}
