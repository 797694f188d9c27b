package build

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/scheme"
)

// Document is a document as JSON, for one path below which the HTTP API serves it.
type Document struct {
	// Path is the group version, such as api/v1 or apis/apps/v1. It is empty for a document of all.
	Path string
	JSON []byte
}

// Documents returns a document of OpenAPI 3 for each group version of a scheme, in the order of
// their names, and one of OpenAPI 2 for all. Comments are the descriptions, by full name of message
// or field.
func Documents(kinds *scheme.Scheme, comments map[protoreflect.FullName]string) (three []Document, two Document, err error) {
	served := kinds.Served()
	slices.SortStableFunc(served, func(a, b *scheme.Kind) int {
		return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.Version, b.Version))
	})
	names := definitionNames(served)
	var versions [][]*scheme.Kind
	for _, k := range served {
		if n := len(versions); n > 0 && versions[n-1][0].APIVersion() == k.APIVersion() {
			versions[n-1] = append(versions[n-1], k)
		} else {
			versions = append(versions, []*scheme.Kind{k})
		}
	}
	title := info{Title: "Xebec", Version: "unversioned"}
	all := &builder{dialect: version2, names: names, comments: comments}
	for _, group := range versions {
		b := &builder{dialect: version3, names: names, comments: comments}
		b.addGroupVersion(group)
		all.addGroupVersion(group)
		if b.err != nil {
			return nil, Document{}, fmt.Errorf("%s: %w", group[0].APIVersion(), b.err)
		}
		text, err := json.Marshal(v3{
			OpenAPI: "3.0.0", Info: title, Paths: b.paths, Components: components{Schemas: b.definitions, Schemes: bearer},
		})
		if err != nil {
			return nil, Document{}, err
		}
		three = append(three, Document{Path: strings.TrimPrefix(root(group[0]), "/"), JSON: text})
	}
	if all.err != nil {
		return nil, Document{}, all.err
	}
	text, err := json.Marshal(v2{
		Swagger: "2.0", Info: title, Paths: all.paths, Definitions: all.definitions,
		Security: []map[string][]string{{"BearerToken": {}}}, Schemes: bearer,
	})
	return three, Document{JSON: text}, err
}

// dialect is what differs between the versions of OpenAPI.
type dialect struct {
	three bool
	// refs precedes the name of a definition in references.
	refs string
}

var (
	version2 = dialect{refs: "#/definitions/"}
	version3 = dialect{three: true, refs: "#/components/schemas/"}
)

// builder makes one document.
type builder struct {
	dialect
	names       map[protoreflect.FullName]string
	comments    map[protoreflect.FullName]string
	paths       map[string]*pathItem
	definitions map[string]*definition
	// err is the first error.
	err error
}
