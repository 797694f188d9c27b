// Command generate writes the OpenAPI documents of the compiled-in kinds to a directory,
// compressed.
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/schema/comments"
	"github.com/xebec-project/xebec/internal/schema/openapi"
	"github.com/xebec-project/xebec/internal/schema/openapi/build"
)

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: generate DIRECTORY"))
	}
	if err := generate(os.Args[1]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "generate:", err)
	os.Exit(1)
}

// generate replaces the documents in a directory.
func generate(dir string) error {
	descriptions, err := comments.All()
	if err != nil {
		return err
	}
	three, two, err := build.Documents(kinds.NewScheme(), descriptions)
	if err != nil {
		return err
	}
	message, err := openapiv2.ParseDocument(two.JSON)
	if err != nil {
		return fmt.Errorf("the document of version 2 is invalid: %w", err)
	}
	binary, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return err
	}
	files := map[string][]byte{openapi.V2JSON: two.JSON, openapi.V2Protobuf: binary}
	for _, d := range three {
		files[openapi.V3(d.Path)] = d.JSON
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for name, data := range files {
		if err := write(filepath.Join(dir, name+".gz"), data); err != nil {
			return err
		}
	}
	return nil
}

// write writes a file compressed. The result is the same for the same data, whatever the time.
func write(path string, data []byte) error {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
