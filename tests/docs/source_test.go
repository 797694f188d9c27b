package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const module = "github.com/xebec-project/xebec/"

// parse reads the Go files of one folder of the tree, without tests.
func parse(t *testing.T, dir string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	return parseFiles(t, names)
}

// parseAll reads the Go files of a folder and all below it, without tests.
func parseAll(t *testing.T, dirs ...string) []*ast.File {
	t.Helper()
	var names []string
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(name string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && strings.HasSuffix(name, ".go") {
				names = append(names, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return parseFiles(t, names)
}

func parseFiles(t *testing.T, names []string) []*ast.File {
	t.Helper()
	var files []*ast.File
	set := token.NewFileSet()
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// constant is a constant with its comment.
type constant struct{ name, value, doc string }

// constants lists the string constants of some files, in their order.
func constants(files []*ast.File) []constant {
	var all []constant
	for _, file := range files {
		for _, decl := range file.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.CONST {
				continue
			}
			for _, spec := range d.Specs {
				v := spec.(*ast.ValueSpec)
				for i, name := range v.Names {
					if i >= len(v.Values) {
						continue
					}
					if lit, ok := v.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
						doc := v.Doc.Text()
						if doc == "" && len(d.Specs) == 1 {
							doc = d.Doc.Text()
						}
						all = append(all, constant{name.Name, strings.Trim(lit.Value, "`\""), sentence(doc)})
					}
				}
			}
		}
	}
	return all
}

// fieldDocs returns the comments of a struct type's fields, by name.
func fieldDocs(t *testing.T, of reflect.Type) map[string]string {
	t.Helper()
	docs := map[string]string{}
	dir, ok := strings.CutPrefix(of.PkgPath(), module)
	if !ok {
		return docs
	}
	for _, file := range parse(t, dir) {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || spec.Name.Name != of.Name() {
				return true
			}
			body, ok := spec.Type.(*ast.StructType)
			if !ok {
				return false
			}
			for _, f := range body.Fields.List {
				for _, name := range f.Names {
					docs[name.Name] = sentence(f.Doc.Text())
				}
			}
			return false
		})
	}
	return docs
}
