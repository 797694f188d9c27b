// Package build makes OpenAPI documents of version 2 and 3 from the kinds of a scheme: definitions
// from the descriptors of messages and the options of their fields (xebec.meta.v1.FieldRules),
// paths from the verbs and subresources of kinds. Names, paths, parameters and extensions are
// those of Kubernetes' documents, which kubectl and other clients read.
package build

import (
	"encoding/json"

	"github.com/xebec-project/xebec/internal/scheme"
)

// v3 and v2 are the documents of the two versions of OpenAPI. What they have in common, such as
// operations, are the same types with members that only one version sets.
type v3 struct {
	OpenAPI    string               `json:"openapi"`
	Info       info                 `json:"info"`
	Paths      map[string]*pathItem `json:"paths"`
	Components components           `json:"components"`
}

type v2 struct {
	Swagger     string                    `json:"swagger"`
	Info        info                      `json:"info"`
	Paths       map[string]*pathItem      `json:"paths"`
	Definitions map[string]*definition    `json:"definitions"`
	Security    []map[string][]string     `json:"security"`
	Schemes     map[string]securityScheme `json:"securityDefinitions"`
}

type info struct {
	Title   string `json:"title"`
	Version string `json:"version"`
}

type components struct {
	Schemas map[string]*definition    `json:"schemas"`
	Schemes map[string]securityScheme `json:"securitySchemes"`
}

type securityScheme struct {
	Description string `json:"description"`
	Type        string `json:"type"`
	Name        string `json:"name"`
	In          string `json:"in"`
}

var bearer = map[string]securityScheme{
	"BearerToken": {Description: "Token of a service account", Type: "apiKey", Name: "authorization", In: "header"},
}

// definition is the type of a value, with Kubernetes' extensions.
type definition struct {
	Ref         string                 `json:"$ref,omitempty"`
	Description string                 `json:"description,omitempty"`
	Type        string                 `json:"type,omitempty"`
	Format      string                 `json:"format,omitempty"`
	Default     json.RawMessage        `json:"default,omitempty"`
	Enum        []string               `json:"enum,omitempty"`
	Items       *definition            `json:"items,omitempty"`
	Values      *definition            `json:"additionalProperties,omitempty"`
	Properties  map[string]*definition `json:"properties,omitempty"`
	Required    []string               `json:"required,omitempty"`
	AllOf       []*definition          `json:"allOf,omitempty"`
	OneOf       []*definition          `json:"oneOf,omitempty"`
	UniqueItems bool                   `json:"uniqueItems,omitempty"`

	Kinds         []gvk    `json:"x-kubernetes-group-version-kind,omitempty"`
	ListType      string   `json:"x-kubernetes-list-type,omitempty"`
	ListMapKeys   []string `json:"x-kubernetes-list-map-keys,omitempty"`
	MapType       string   `json:"x-kubernetes-map-type,omitempty"`
	PatchStrategy string   `json:"x-kubernetes-patch-strategy,omitempty"`
	PatchMergeKey string   `json:"x-kubernetes-patch-merge-key,omitempty"`
	Unions        []union  `json:"x-kubernetes-unions,omitempty"`
}

// union states that at most one of some fields is set: the one that the discriminator names, if
// any.
type union struct {
	Discriminator string            `json:"discriminator,omitempty"`
	Fields        map[string]string `json:"fields-to-discriminateBy"`
}

// gvk is the extension that names a kind.
type gvk struct {
	Group   string `json:"group"`
	Kind    string `json:"kind"`
	Version string `json:"version"`
}

func gvkOf(k scheme.GVK) gvk { return gvk{Group: k.Group, Kind: k.Kind, Version: k.Version} }

type pathItem struct {
	Parameters []parameter `json:"parameters,omitempty"`
	Get        *operation  `json:"get,omitempty"`
	Put        *operation  `json:"put,omitempty"`
	Post       *operation  `json:"post,omitempty"`
	Delete     *operation  `json:"delete,omitempty"`
	Patch      *operation  `json:"patch,omitempty"`
}

type operation struct {
	Tags        []string            `json:"tags"`
	Description string              `json:"description"`
	ID          string              `json:"operationId"`
	Consumes    []string            `json:"consumes,omitempty"` // version 2
	Produces    []string            `json:"produces,omitempty"` // version 2
	Schemes     []string            `json:"schemes,omitempty"`  // version 2
	Parameters  []parameter         `json:"parameters,omitempty"`
	Body        *requestBody        `json:"requestBody,omitempty"` // version 3
	Responses   map[string]response `json:"responses"`
	Action      string              `json:"x-kubernetes-action,omitempty"`
	Kind        *gvk                `json:"x-kubernetes-group-version-kind,omitempty"`
}

type parameter struct {
	Name        string      `json:"name"`
	In          string      `json:"in"`
	Description string      `json:"description,omitempty"`
	Required    bool        `json:"required,omitempty"`
	Schema      *definition `json:"schema,omitempty"`      // version 3, and bodies in version 2
	Type        string      `json:"type,omitempty"`        // version 2
	UniqueItems bool        `json:"uniqueItems,omitempty"` // version 2
}

type requestBody struct {
	Content  map[string]mediaType `json:"content"`
	Required bool                 `json:"required,omitempty"`
}

type response struct {
	Description string               `json:"description"`
	Content     map[string]mediaType `json:"content,omitempty"` // version 3
	Schema      *definition          `json:"schema,omitempty"`  // version 2
}

type mediaType struct {
	Schema *definition `json:"schema"`
}
