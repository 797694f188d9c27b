package build

import (
	"slices"
	"strings"

	"github.com/xebec-project/xebec/internal/scheme"
)

// Media types of requests and responses.
var (
	objectTypes = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}
	listTypes   = append(slices.Clip(objectTypes), "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
	patchTypes  = []string{
		"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml",
	}
	anyType = []string{"*/*"}
)

// Verb and action of the operations on objects: the verb begins the operation's id, and clients
// find operations by the action.
const (
	actionList             = "list"
	actionPost             = "post"
	actionDeleteCollection = "deletecollection"
	actionGet              = "get"
	actionPut              = "put"
	actionPatch            = "patch"
	actionDelete           = "delete"
	actionConnect          = "connect"
)

// root is the path of a group version.
func root(k *scheme.Kind) string {
	if k.Group == "" {
		return "/api/" + k.Version
	}
	return "/apis/" + k.Group + "/" + k.Version
}

// addGroupVersion adds the paths of the kinds of one group version.
func (b *builder) addGroupVersion(kinds []*scheme.Kind) {
	if b.paths == nil {
		b.paths = map[string]*pathItem{}
	}
	resources := &operation{
		Tags: []string{tag(kinds[0])}, ID: "get" + title(kinds[0]) + "APIResources", Description: "list the resources of the group version",
	}
	b.respond(resources, objectTypes, b.message(httpMessage("APIResourceList")), "200")
	b.paths[root(kinds[0])+"/"] = &pathItem{Get: resources}
	for _, k := range kinds {
		b.addKind(k)
	}
}

// addKind adds the paths of objects of a kind, of their collections and of their subresources.
func (b *builder) addKind(k *scheme.Kind) {
	r := resource{builder: b, kind: k, object: b.kind(k), list: b.listOf(k)}
	collection, all := root(k)+"/"+k.Plural, ""
	if k.Namespaced {
		collection, all = root(k)+"/namespaces/{namespace}/"+k.Plural, collection
	}
	if all != "" {
		list := r.operation(actionList, "list"+title(k)+k.Name+"ForAllNamespaces", "list objects of kind "+k.Name+" of all namespaces")
		b.respond(list, listTypes, r.list, "200")
		b.paths[all] = &pathItem{Get: list, Parameters: b.parameters(append(slices.Clip(listParameters), pretty))}
	}
	b.paths[collection] = r.collection()
	b.paths[collection+"/{name}"] = r.item("")
	for _, sub := range k.Subresources {
		if item := r.subresource(sub.Name); item != nil {
			b.paths[collection+"/{name}/"+sub.Name] = item
		}
	}
}

// resource makes the paths of one kind.
type resource struct {
	*builder
	kind         *scheme.Kind
	object, list *definition
}

func (r resource) collection() *pathItem {
	list := r.operation(actionList, r.id("list", ""), "list or watch objects of kind "+r.kind.Name)
	r.respond(list, listTypes, r.list, "200")
	list.Parameters = r.parameters(listParameters)

	create := r.operation(actionPost, r.id("create", ""), "create an object of kind "+r.kind.Name)
	r.accept(create, anyType, r.object, true)
	r.respond(create, objectTypes, r.object, "200", "201", "202")
	create.Parameters = append(create.Parameters, r.parameters(writeParameters)...)

	clear := r.operation(actionDeleteCollection, r.id("delete", "Collection"),
		"delete the objects of kind "+r.kind.Name+" that a list with the same selectors returns")
	r.accept(clear, anyType, r.message(httpMessage("DeleteOptions")), false)
	r.respond(clear, objectTypes, r.message(httpMessage("Status")), "200")
	clear.Parameters = append(clear.Parameters, r.parameters(slices.Concat(deleteParameters, selectParameters))...)
	return &pathItem{Get: list, Post: create, Delete: clear, Parameters: r.scope(false, pretty)}
}

// item is the path of an object, or of a part of it that is read and written as the object is.
func (r resource) item(subresource string) *pathItem {
	of := "the object of kind " + r.kind.Name
	if subresource != "" {
		of = subresource + " of " + of
	}
	get := r.operation(actionGet, r.id("read", "")+capital(subresource), "read "+of)
	r.respond(get, objectTypes, r.object, "200")

	put := r.operation(actionPut, r.id("replace", "")+capital(subresource), "replace "+of)
	r.accept(put, anyType, r.object, true)
	r.respond(put, objectTypes, r.object, "200", "201")
	put.Parameters = append(put.Parameters, r.parameters(writeParameters)...)

	patch := r.operation(actionPatch, r.id("patch", "")+capital(subresource), "change parts of "+of)
	r.accept(patch, patchTypes, r.message(httpMessage("Patch")), true)
	r.respond(patch, objectTypes, r.object, "200", "201")
	patch.Parameters = append(patch.Parameters, r.parameters(append(slices.Clip(writeParameters), force))...)

	item := &pathItem{Get: get, Put: put, Patch: patch, Parameters: r.scope(true, pretty)}
	if subresource == "" {
		item.Delete = r.operation(actionDelete, r.id("delete", ""), "delete "+of)
		r.accept(item.Delete, anyType, r.message(httpMessage("DeleteOptions")), false)
		result := r.message(httpMessage("Status"))
		if r.kind.GracePeriod != nil {
			result = r.object // that is deleted later
		}
		r.respond(item.Delete, objectTypes, result, "200", "202")
		item.Delete.Parameters = append(item.Delete.Parameters, r.parameters(deleteParameters)...)
	}
	return item
}

// operation returns an operation on objects of the kind.
func (r resource) operation(action, id, description string) *operation {
	kind := gvkOf(r.kind.GVK())
	return &operation{Tags: []string{tag(r.kind)}, ID: id, Description: description, Action: action, Kind: &kind}
}

// id is the id of an operation as Kubernetes forms it: deleteCoreV1CollectionNamespacedPod.
func (r resource) id(verb, infix string) string {
	if r.kind.Namespaced {
		infix += "Namespaced"
	}
	return verb + title(r.kind) + infix + r.kind.Name
}

// scope are the parameters of a path.
func (r resource) scope(named bool, further ...param) []parameter {
	if named {
		further = append(further, param{name: "name", in: "path", text: "name of the " + r.kind.Name, typ: "string"})
	}
	if r.kind.Namespaced {
		further = append(further, param{name: "namespace", in: "path", text: "namespace of the " + r.kind.Name, typ: "string"})
	}
	return r.parameters(further)
}

// accept states the body of an operation.
func (b *builder) accept(o *operation, types []string, body *definition, required bool) {
	if b.three {
		o.Body = &requestBody{Content: content(types, body), Required: required}
		return
	}
	o.Consumes = types
	o.Parameters = append(o.Parameters, parameter{Name: "body", In: "body", Required: required, Schema: body})
}

// respond states the responses of an operation.
func (b *builder) respond(o *operation, types []string, body *definition, codes ...string) {
	o.Responses = map[string]response{"401": {Description: "Unauthorized"}}
	if !b.three {
		if o.Consumes == nil {
			o.Consumes = anyType
		}
		o.Produces, o.Schemes = types, []string{"https"}
	}
	for _, code := range codes {
		r := response{Description: map[string]string{"200": "OK", "201": "Created", "202": "Accepted"}[code]}
		if b.three {
			r.Content = content(types, body)
		} else {
			r.Schema = body
		}
		o.Responses[code] = r
	}
}

func content(types []string, body *definition) map[string]mediaType {
	out := make(map[string]mediaType, len(types))
	for _, t := range types {
		out[t] = mediaType{Schema: body}
	}
	return out
}

// kind returns a reference to the definition of objects of a kind.
func (b *builder) kind(k *scheme.Kind) *definition {
	m := k.New().ProtoReflect().Descriptor()
	ref := b.message(m)
	b.addType(b.definitions[b.names[m.FullName()]], k.GVK())
	return ref
}

// listOf returns a reference to the definition of lists of a kind, which no message declares.
func (b *builder) listOf(k *scheme.Kind) *definition {
	m := k.New().ProtoReflect().Descriptor()
	return b.define(b.names[m.FullName()]+"List", func(d *definition) {
		d.Type, d.Description, d.Required = "object", k.Name+"List is a list of objects of kind "+k.Name+".", []string{"items"}
		meta := b.message(httpMessage("ListMeta"))
		if b.three {
			meta = &definition{AllOf: []*definition{meta}}
		}
		meta.Description = "Version of the list, and how to read its remaining part."
		d.Properties = map[string]*definition{
			"items":    {Type: "array", Items: &definition{Ref: b.refs + b.names[m.FullName()]}, Description: "The objects."},
			"metadata": meta,
		}
		gvk := k.GVK()
		gvk.Kind += "List"
		b.addType(d, gvk)
	})
}

// tag groups the operations of a group version: core_v1.
func tag(k *scheme.Kind) string {
	name := groupTitle(k)
	return strings.ToLower(name[:1]) + name[1:] + "_" + k.Version
}

// title is a group version within ids: CoreV1, NetworkingV1.
func title(k *scheme.Kind) string { return groupTitle(k) + capital(k.Version) }

func groupTitle(k *scheme.Kind) string {
	if k.Group == "" {
		return "Core"
	}
	var b strings.Builder
	for label := range strings.SplitSeq(strings.TrimSuffix(k.Group, ".k8s.io"), ".") {
		b.WriteString(capital(label))
	}
	return b.String()
}

func capital(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
