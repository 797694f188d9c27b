package manifest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/manifest"
)

// A text contains any number of objects. Each is known with the line that it begins at.
func ExampleDecode() {
	const text = `apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
data:
  color: blue
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 3
`
	documents, err := manifest.Decode("shop.yaml", strings.NewReader(text))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range documents {
		fmt.Printf("%s:%d: %s %s\n", d.Source, d.Line, kinds.Of(d.Object).Name, d.Object.GetMetadata().GetName())
	}
	fmt.Println("replicas in line", documents[1].LineOf("spec.replicas"))
	// Output:
	// shop.yaml:1: ConfigMap settings
	// shop.yaml:8: Deployment web
	// replicas in line 13
}

// All errors of all objects are reported together, each with its line.
func ExampleDecode_errors() {
	const text = `apiVersion: v1
kind: ConfigMap
metadata:
  nmae: settings
---
apiVersion: v1
kind: Pood
metadata:
  name: a
`
	_, err := manifest.Decode("shop.yaml", strings.NewReader(text))
	fmt.Println(err)
	// Output:
	// shop.yaml:4: metadata.nmae: unknown field, did you mean name?
	// shop.yaml:7: kind: v1 has no Pood, did you mean Pod?
}

// Load reads files and directories. Of a directory it reads the files of YAML and JSON by name.
func ExampleLoad() {
	dir, err := os.MkdirTemp("", "manifests")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{
		"b.yaml":    "{apiVersion: v1, kind: ConfigMap, metadata: {name: second}}",
		"a.json":    `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "first"}}`,
		"README.md": "not a manifest",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			fmt.Println(err)
			return
		}
	}
	documents, err := manifest.Load([]string{dir}, false, nil)
	for _, d := range documents {
		fmt.Println(filepath.Base(d.Source), d.Object.GetMetadata().GetName())
	}
	fmt.Println(err)
	// Output:
	// a.json first
	// b.yaml second
	// <nil>
}
