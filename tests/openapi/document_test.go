// Package openapi_test checks the OpenAPI documents: that they are current, that a maintained
// library reads them, that every verb of every kind has a path, and that they agree with
// Kubernetes' own documents.
package openapi_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/schema/comments"
	"github.com/xebec-project/xebec/internal/schema/openapi"
	"github.com/xebec-project/xebec/internal/schema/openapi/build"
	"github.com/xebec-project/xebec/internal/scheme"
)

// gvk is a kind as documents name it.
type gvk struct{ Group, Version, Kind string }

// definition has what is compared of a definition or a property.
type definition struct {
	Ref           string                `json:"$ref"`
	Description   string                `json:"description"`
	Type          string                `json:"type"`
	Format        string                `json:"format"`
	Default       json.RawMessage       `json:"default"`
	Enum          []string              `json:"enum"`
	Items         *definition           `json:"items"`
	Values        *definition           `json:"additionalProperties"`
	Properties    map[string]definition `json:"properties"`
	Required      []string              `json:"required"`
	AllOf         []definition          `json:"allOf"`
	OneOf         []definition          `json:"oneOf"`
	Kinds         []gvk                 `json:"x-kubernetes-group-version-kind"`
	ListType      string                `json:"x-kubernetes-list-type"`
	ListMapKeys   []string              `json:"x-kubernetes-list-map-keys"`
	MapType       string                `json:"x-kubernetes-map-type"`
	PatchStrategy string                `json:"x-kubernetes-patch-strategy"`
	PatchMergeKey string                `json:"x-kubernetes-patch-merge-key"`
	Unions        []union               `json:"x-kubernetes-unions"`
}

type union struct {
	Discriminator string            `json:"discriminator"`
	Fields        map[string]string `json:"fields-to-discriminateBy"`
}

type parameter struct {
	Name, In string
	Required bool
	Type     string
	Schema   definition
}

type operation struct {
	ID         string `json:"operationId"`
	Tags       []string
	Action     string `json:"x-kubernetes-action"`
	Kind       gvk    `json:"x-kubernetes-group-version-kind"`
	Parameters []parameter
	Body       struct {
		Required bool
		Content  map[string]struct{ Schema definition }
	} `json:"requestBody"`
	Responses map[string]struct {
		Content map[string]struct{ Schema definition }
	}
}

// path has the operations of a path by method, and the parameters that they share.
type path struct {
	methods    map[string]operation
	parameters []parameter
}

func (p *path) UnmarshalJSON(data []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return err
	}
	p.methods = map[string]operation{}
	for name, text := range members {
		if name == "parameters" {
			if err := json.Unmarshal(text, &p.parameters); err != nil {
				return err
			}
			continue
		}
		var o operation
		if err := json.Unmarshal(text, &o); err != nil {
			return err
		}
		p.methods[name] = o
	}
	return nil
}

// document is a document of either version.
type document struct {
	Paths       map[string]path
	Definitions map[string]definition
	Components  struct{ Schemas map[string]definition }
}

func read(t *testing.T, name string) document {
	t.Helper()
	data, err := openapi.Document(name)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, name, data)
}

func parse(t *testing.T, name string, data []byte) document {
	t.Helper()
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return d
}

func groupVersions(t *testing.T) []string {
	t.Helper()
	gvs, err := openapi.GroupVersions()
	if err != nil || len(gvs) == 0 {
		t.Fatalf("group versions: %v, %v", gvs, err)
	}
	return gvs
}

// TestDocumentsAreCurrent builds the documents from the descriptors and compares them with those
// embedded.
func TestDocumentsAreCurrent(t *testing.T) {
	descriptions, err := comments.All()
	if err != nil {
		t.Fatal(err)
	}
	three, two, err := build.Documents(kinds.NewScheme(), descriptions)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{openapi.V2JSON: two.JSON}
	var gvs []string
	for _, d := range three {
		want[openapi.V3(d.Path)] = d.JSON
		gvs = append(gvs, d.Path)
	}
	for name, text := range want {
		if got, err := openapi.Document(name); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s is out of date (%v): make generate", name, err)
		}
	}
	slices.Sort(gvs)
	if got := groupVersions(t); !slices.Equal(slices.Sorted(slices.Values(got)), gvs) {
		t.Errorf("there are documents of %v, want %v", got, gvs)
	}
	if _, err := openapi.Document(openapi.V3("apis/none/v1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a document that does not exist: %v", err)
	}
}

// TestLibraryReadsDocuments parses all documents with a library, and compares the protobuf with the
// JSON.
func TestLibraryReadsDocuments(t *testing.T) {
	for _, gv := range groupVersions(t) {
		data, err := openapi.Document(openapi.V3(gv))
		if err != nil {
			t.Fatal(err)
		}
		d, err := openapiv3.ParseDocument(data)
		if err != nil {
			t.Errorf("%s: %v", gv, err)
		} else if len(d.GetPaths().GetPath()) == 0 {
			t.Errorf("%s has no paths", gv)
		}
	}
	text, err := openapi.Document(openapi.V2JSON)
	if err != nil {
		t.Fatal(err)
	}
	fromJSON, err := openapiv2.ParseDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := openapi.Document(openapi.V2Protobuf)
	if err != nil {
		t.Fatal(err)
	}
	var fromProtobuf openapiv2.Document
	if err := proto.Unmarshal(binary, &fromProtobuf); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(fromJSON, &fromProtobuf) {
		t.Error("the protobuf of version 2 says something else than the JSON")
	}
}

// TestReferencesResolve follows every reference within each document, and has a description of each
// definition.
func TestReferencesResolve(t *testing.T) {
	check := func(name, prefix string, definitions map[string]definition, text []byte) {
		refs := 0
		for part := range strings.SplitSeq(string(text), `"$ref":"`) {
			if refs++; refs == 1 {
				continue
			}
			ref, _, _ := strings.Cut(part, `"`)
			if _, ok := definitions[strings.TrimPrefix(ref, prefix)]; !ok || !strings.HasPrefix(ref, prefix) {
				t.Errorf("%s: %s leads nowhere", name, ref)
			}
		}
		for id, d := range definitions {
			if d.Description == "" {
				t.Errorf("%s: %s has no description", name, id)
			}
			for property, p := range d.Properties {
				if p.Description == "" {
					t.Errorf("%s: %s.%s has no description", name, id, property)
				}
			}
		}
	}
	for _, name := range append([]string{""}, groupVersions(t)...) {
		prefix, file := "#/components/schemas/", openapi.V3(name)
		if name == "" {
			prefix, file = "#/definitions/", openapi.V2JSON
		}
		text, err := openapi.Document(file)
		if err != nil {
			t.Fatal(err)
		}
		d := parse(t, file, text)
		definitions := d.Definitions
		if name != "" {
			definitions = d.Components.Schemas
		}
		check(file, prefix, definitions, text)
	}
}

// verbs are how the verbs of objects appear: at the path of the collection or of one object, by
// method and action. A watch is a list with a parameter.
var verbs = map[string]struct {
	item           bool
	method, action string
}{
	"create": {false, "post", "post"}, "list": {false, "get", "list"}, "watch": {false, "get", "list"},
	"deletecollection": {false, "delete", "deletecollection"}, "get": {true, "get", "get"}, "update": {true, "put", "put"},
	"patch": {true, "patch", "patch"}, "delete": {true, "delete", "delete"},
}

// grpcOnly are the subresources that the Kubernetes HTTP API does not have.
var grpcOnly = []string{
	"endpointslices/acknowledgement", "nodes/connections", "nodes/drops", "nodes/images", "nodes/reachability", "nodes/services",
	"nodes/stats", "pods/explain", "pods/summary",
}

// TestEveryVerbHasAPath looks for every verb of every served kind and for its subresources, in both
// versions.
func TestEveryVerbHasAPath(t *testing.T) {
	two := read(t, openapi.V2JSON)
	for _, k := range kinds.NewScheme().Served() {
		gv := "apis/" + k.APIVersion()
		if k.Group == "" {
			gv = "api/" + k.Version
		}
		collection := "/" + gv + "/" + k.Plural
		if k.Namespaced {
			collection = "/" + gv + "/namespaces/{namespace}/" + k.Plural
		}
		for name, d := range map[string]document{openapi.V3(gv): read(t, openapi.V3(gv)), openapi.V2JSON: two} {
			for verb, at := range verbs {
				p := collection
				if at.item {
					p += "/{name}"
				}
				o, ok := d.Paths[p].methods[at.method]
				if !ok || o.Action != at.action || o.Kind != (gvk{k.Group, k.Version, k.Name}) {
					t.Errorf("%s: %s of %s: %s %s is %+v", name, verb, k, at.method, p, o)
				}
				if verb == "watch" && !slices.ContainsFunc(o.Parameters, func(p parameter) bool { return p.Name == "watch" }) {
					t.Errorf("%s: %s of %s has no parameter watch", name, verb, k)
				}
			}
			checkSubresources(t, name, d, k, collection)
		}
	}
}

func checkSubresources(t *testing.T, name string, d document, k *scheme.Kind, collection string) {
	t.Helper()
	for _, sub := range k.Subresources {
		p, ok := d.Paths[collection+"/{name}/"+sub.Name]
		if want := !slices.Contains(grpcOnly, k.Plural+"/"+sub.Name); ok != want {
			t.Errorf("%s: a path for %s of %s: %v, want %v", name, sub.Name, k, ok, want)
		}
		for _, verb := range sub.Verbs {
			method := map[string]string{"create": "post", "get": "get", "patch": "patch", "update": "put"}[verb]
			if _, has := p.methods[method]; ok && !has {
				t.Errorf("%s: no method for %s of %s of %s", name, verb, sub.Name, k)
			}
		}
	}
}

// TestOperationsDiffer checks that each operation has an id of its own, as generators of clients
// require.
func TestOperationsDiffer(t *testing.T) {
	seen := map[string]string{}
	for p, item := range read(t, openapi.V2JSON).Paths {
		for method, o := range item.methods {
			if other := seen[o.ID]; other != "" || o.ID == "" {
				t.Errorf("%s %s and %s have the id %q", method, p, other, o.ID)
			}
			seen[o.ID] = method + " " + p
		}
	}
	if len(seen) < 100 {
		t.Errorf("%d operations, want at least 100: %v", len(seen), slices.Sorted(maps.Keys(seen)))
	}
}
