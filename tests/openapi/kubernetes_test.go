package openapi_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/xebec-project/xebec/internal/schema"
	"github.com/xebec-project/xebec/internal/schema/openapi"
)

// fieldsPage has the table of differences.
const fieldsPage = "../../docs/fields.md"

// kubernetesDocuments returns the directory of the documents that Kubernetes publishes with its
// sources, of the version that tests/validation compares with.
func kubernetesDocuments(t *testing.T) string {
	t.Helper()
	if os.Getenv("XEBEC_VALIDATION") == "" {
		t.Skip("make test-validation runs it")
	}
	download := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "k8s.io/kubernetes")
	download.Dir = "../validation/kubernetes"
	out, err := download.Output()
	if err != nil {
		t.Fatalf("download k8s.io/kubernetes: %v", err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(module.Dir, "api", "openapi-spec")
}

func readFile(t *testing.T, path string) document {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, path, data)
}

// comparison collects differences that docs/fields.md does not name.
type comparison struct {
	t *testing.T
	// allowed has the differences of the page: Definition.property, or method and path. Those found
	// are in used.
	allowed, used map[string]bool
	compared      int
}

var row = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ")

func newComparison(t *testing.T) *comparison {
	t.Helper()
	page, err := os.ReadFile(fieldsPage)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## OpenAPI\n")
	if !ok {
		t.Fatalf("%s has no section OpenAPI", fieldsPage)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	c := &comparison{t: t, allowed: map[string]bool{}, used: map[string]bool{}}
	for _, m := range row.FindAllStringSubmatch(section, -1) {
		c.allowed[m[1]] = true
	}
	return c
}

func (c *comparison) differ(at, format string, args ...any) {
	c.t.Helper()
	if c.allowed[at] {
		c.used[at] = true
		return
	}
	c.t.Errorf("%s: %s, and docs/fields.md does not say so", at, fmt.Sprintf(format, args...))
}

func (c *comparison) equal(at, what string, ours, theirs any) {
	c.t.Helper()
	if o, k := fmt.Sprint(ours), fmt.Sprint(theirs); o != k {
		c.differ(at, "%s is %s, Kubernetes has %s", what, o, k)
	}
}

// finish fails for differences of the page that do not exist.
func (c *comparison) finish(least int, part func(at string) bool) {
	c.t.Helper()
	for _, at := range slices.Sorted(maps.Keys(c.allowed)) {
		if part(at) && !c.used[at] {
			c.t.Errorf("%s: docs/fields.md names a difference, and there is none", at)
		}
	}
	if c.compared < least {
		c.t.Errorf("%d compared, want at least %d", c.compared, least)
	}
	c.t.Logf("%d compared, %d differences", c.compared, len(c.used))
}

// TestDefinitionsOfKubernetes compares every definition that Kubernetes has, in both versions, with
// its own.
func TestDefinitionsOfKubernetes(t *testing.T) {
	dir := kubernetesDocuments(t)
	c := newComparison(t)
	c.definitions(read(t, openapi.V2JSON).Definitions, readFile(t, filepath.Join(dir, "swagger.json")).Definitions)
	for _, gv := range groupVersions(t) {
		if strings.Contains(gv, ".xebec.io") {
			continue
		}
		file := filepath.Join(dir, "v3", strings.ReplaceAll(gv, "/", "__")+"_openapi.json")
		c.definitions(read(t, openapi.V3(gv)).Components.Schemas, readFile(t, file).Components.Schemas)
	}
	c.finish(1500, func(at string) bool { return !strings.Contains(at, "/") })
}

func (c *comparison) definitions(ours, theirs map[string]definition) {
	c.t.Helper()
	for id, o := range ours {
		name := id[strings.LastIndexByte(id, '.')+1:]
		k, ok := theirs[id]
		if !ok {
			continue // References to it are compared where they are.
		}
		c.value(name, o, k)
		c.equal(name, "x-kubernetes-unions", o.Unions, k.Unions)
		if len(o.Kinds) > 0 && !slices.Contains(k.Kinds, o.Kinds[0]) {
			c.differ(name, "the kind is %v, Kubernetes has %v", o.Kinds, k.Kinds)
		}
		for property := range k.Properties {
			if _, ok := o.Properties[property]; !ok {
				c.differ(name+"."+property, "the property is missing")
			}
		}
		for property, p := range o.Properties {
			at := name + "." + property
			if p2, ok := k.Properties[property]; ok {
				c.property(at, p, p2)
				c.required(at, id, property, o, k)
			} else if f := fieldOf(id, property); f == nil || schema.RulesOf(f).GetSince() == "" {
				c.differ(at, "Kubernetes has no such property")
			}
		}
	}
}

// required allows fields to be required that only validation demands in Kubernetes.
func (c *comparison) required(at, id, property string, ours, theirs definition) {
	c.t.Helper()
	o, k := slices.Contains(ours.Required, property), slices.Contains(theirs.Required, property)
	if o && !k {
		if f := fieldOf(id, property); f != nil && schema.RulesOf(f).GetRequired() {
			return
		}
	}
	c.equal(at, "required", o, k)
}

func (c *comparison) property(at string, ours, theirs definition) {
	c.t.Helper()
	c.compared++
	c.value(at, ours, theirs)
	c.equal(at, "x-kubernetes-patch-strategy", ours.PatchStrategy, theirs.PatchStrategy)
	c.equal(at, "x-kubernetes-patch-merge-key", ours.PatchMergeKey, theirs.PatchMergeKey)
	if ours.Type == "array" {
		// A list without a type is atomic.
		c.equal(at, "x-kubernetes-list-type", cmp.Or(ours.ListType, "atomic"), cmp.Or(theirs.ListType, "atomic"))
		c.equal(at, "x-kubernetes-list-map-keys", ours.ListMapKeys, theirs.ListMapKeys)
	}
	// Kubernetes' documents state zero values too, and only some of the defaults that it applies.
	if k := string(theirs.Default); k != "" && !slices.Contains([]string{`""`, "0", "false", "{}"}, k) {
		c.equal(at, "default", string(ours.Default), k)
	}
}

// value compares types.
func (c *comparison) value(at string, ours, theirs definition) {
	c.t.Helper()
	c.equal(at, "type", ours.Type, theirs.Type)
	c.equal(at, "format", ours.Format, theirs.Format)
	c.equal(at, "x-kubernetes-map-type", ours.MapType, theirs.MapType)
	c.equal(at, "reference", reference(ours), reference(theirs))
	c.equal(at, "number of forms", len(ours.OneOf), len(theirs.OneOf))
	for _, inner := range [][2]*definition{{ours.Items, theirs.Items}, {ours.Values, theirs.Values}} {
		if inner[0] != nil && inner[1] != nil {
			c.value(at, *inner[0], *inner[1])
		} else {
			c.equal(at, "has elements", inner[0] != nil, inner[1] != nil)
		}
	}
}

// reference is what a definition refers to, in either of the two forms of version 3.
func reference(d definition) string {
	if len(d.AllOf) == 1 {
		return d.AllOf[0].Ref
	}
	return d.Ref
}

// fieldOf finds the field of a property of Kubernetes' definitions.
func fieldOf(id, property string) protoreflect.FieldDescriptor {
	name := strings.NewReplacer("io.k8s.api.", "xebec.", "io.k8s.apimachinery.pkg.apis.", "xebec.").Replace(id)
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil
	}
	return memberOf(d.(protoreflect.MessageDescriptor), property)
}

func memberOf(m protoreflect.MessageDescriptor, property string) protoreflect.FieldDescriptor {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if schema.RulesOf(f).GetInline() {
			if inner := memberOf(f.Message(), property); inner != nil {
				return inner
			}
		} else if f.JSONName() == property {
			return f
		}
	}
	return nil
}

// TestPathsOfKubernetes compares paths, parameters, bodies and responses with Kubernetes' own.
func TestPathsOfKubernetes(t *testing.T) {
	dir := kubernetesDocuments(t)
	c := newComparison(t)
	for _, gv := range groupVersions(t) {
		if strings.Contains(gv, ".xebec.io") {
			continue
		}
		theirs := readFile(t, filepath.Join(dir, "v3", strings.ReplaceAll(gv, "/", "__")+"_openapi.json"))
		for name, p := range read(t, openapi.V3(gv)).Paths {
			c.path(name, p, theirs.Paths[name])
		}
	}
	c.finish(100, func(at string) bool { return strings.Contains(at, "/") })
}

func (c *comparison) path(name string, ours, theirs path) {
	c.t.Helper()
	c.equal(name, "parameters", parameters(ours.parameters), parameters(theirs.parameters))
	for method := range theirs.methods {
		if _, ok := ours.methods[method]; !ok {
			c.differ(method+" "+name, "the method is missing")
		}
	}
	for method, o := range ours.methods {
		at := method + " " + name
		c.compared++
		k, ok := theirs.methods[method]
		if !ok {
			c.differ(at, "Kubernetes has no such operation")
			continue
		}
		c.equal(at, "operationId", o.ID, k.ID)
		c.equal(at, "tags", o.Tags, k.Tags)
		c.equal(at, "x-kubernetes-action", o.Action, k.Action)
		c.equal(at, "x-kubernetes-group-version-kind", o.Kind, k.Kind)
		c.equal(at, "parameters", parameters(o.Parameters), parameters(k.Parameters))
		c.equal(at, "required body", o.Body.Required, k.Body.Required)
		c.content(at, "body", o.Body.Content, k.Body.Content)
		c.equal(at, "responses", slices.Sorted(maps.Keys(o.Responses)), slices.Sorted(maps.Keys(k.Responses)))
		for code, r := range o.Responses {
			c.content(at, "response "+code, r.Content, k.Responses[code].Content)
		}
	}
}

// content compares bodies by media type. Kubernetes has CBOR besides, which is an alpha feature.
func (c *comparison) content(at, what string, ours, theirs map[string]struct{ Schema definition }) {
	c.t.Helper()
	for media, o := range ours {
		k, ok := theirs[media]
		if !ok {
			c.differ(at, "%s: Kubernetes has no %s", what, media)
		}
		c.equal(at, what, reference(o.Schema)+o.Schema.Type, reference(k.Schema)+k.Schema.Type)
	}
	for media := range theirs {
		if _, ok := ours[media]; !ok && !strings.Contains(media, "cbor") {
			c.differ(at, "%s lacks %s", what, media)
		}
	}
}

func parameters(list []parameter) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = fmt.Sprintf("%s %s %s %v", p.In, p.Name, p.Schema.Type, p.Required)
	}
	slices.Sort(out)
	return out
}
