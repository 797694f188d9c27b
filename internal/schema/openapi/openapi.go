// Package openapi has the OpenAPI documents of the compiled-in kinds, which are made at build time
// and embedded: a document of version 3 for each group version and one of version 2 for all of
// them, as JSON and as protobuf. Package build makes them. Their descriptions are those of package
// comments, which "go generate ./..." writes before them, since it goes by directory.
package openapi

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

//go:generate go run ./generate documents

//go:embed documents
var documents embed.FS

// Names of the documents of version 2: as JSON, and as the protobuf message of that document
// (openapi.v2.Document of github.com/google/gnostic-models) that kubectl asks for.
const (
	V2JSON     = "v2.json"
	V2Protobuf = "v2.pb"
)

const suffix = ".gz"

// GroupVersions returns the group versions that have a document of version 3, such as api/v1 and
// apis/apps/v1. The HTTP API serves their documents below /openapi/v3/.
func GroupVersions() ([]string, error) {
	var out []string
	err := fs.WalkDir(documents, "documents/v3", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, strings.TrimSuffix(strings.TrimPrefix(path, "documents/v3/"), ".json"+suffix))
		}
		return err
	})
	return out, err
}

// V3 returns the name of the document of a group version.
func V3(groupVersion string) string { return "v3/" + groupVersion + ".json" }

// Compressed returns a document in the gzip format, as HTTP bodies may be. The error is
// fs.ErrNotExist for a name that no document has.
func Compressed(name string) ([]byte, error) {
	return documents.ReadFile("documents/" + name + suffix)
}

// Document returns a document: JSON, or the bytes of a protobuf message.
func Document(name string) ([]byte, error) {
	data, err := Compressed(name)
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err == nil {
		data, err = io.ReadAll(r)
	}
	if err != nil {
		return nil, fmt.Errorf("embedded OpenAPI document %s: %w", name, err)
	}
	return data, nil
}
