package build

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/scheme"
	authenticationv1 "github.com/xebec-project/xebec/proto/xebec/authentication/v1"
	autoscalingv1 "github.com/xebec-project/xebec/proto/xebec/autoscaling/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// httpMessages are bodies of requests and responses that are not objects of a kind.
var httpMessages = []proto.Message{
	&metav1.APIResourceList{}, &metav1.DeleteOptions{}, &metav1.ListMeta{}, &metav1.Patch{}, &metav1.Status{}, &metav1.WatchEvent{},
	&corev1.Binding{}, &policyv1.Eviction{}, &authenticationv1.TokenRequest{}, &autoscalingv1.Scale{},
}

// httpKinds are the kinds that such bodies name.
var httpKinds = map[protoreflect.FullName]scheme.GVK{
	"xebec.authentication.v1.TokenRequest": {Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest"},
	"xebec.autoscaling.v1.Scale":           {Group: "autoscaling", Version: "v1", Kind: "Scale"},
	"xebec.core.v1.Binding":                {Version: "v1", Kind: "Binding"},
	"xebec.policy.v1.Eviction":             {Group: "policy", Version: "v1", Kind: "Eviction"},
	"xebec.meta.v1.APIResourceList":        {Version: "v1", Kind: "APIResourceList"},
	"xebec.meta.v1.DeleteOptions":          {Version: "v1", Kind: "DeleteOptions"},
	"xebec.meta.v1.Status":                 {Version: "v1", Kind: "Status"},
	"xebec.meta.v1.WatchEvent":             {Version: "v1", Kind: "WatchEvent"},
}

// httpMessage returns the one of httpMessages that has a name.
func httpMessage(name protoreflect.Name) protoreflect.MessageDescriptor {
	for _, m := range httpMessages {
		if d := m.ProtoReflect().Descriptor(); d.Name() == name {
			return d
		}
	}
	panic("openapi: no message " + string(name))
}

// subresource returns the path of a subresource; nil for one that only the gRPC API has.
func (r resource) subresource(name string) *pathItem {
	switch name {
	case "approval", "ephemeralcontainers", "resize", "status":
		return r.item(name)
	case "scale":
		return r.view(name, httpMessage("Scale"))
	case "binding":
		return r.post(name, "assign the Pod to a node", httpMessage("Binding"))
	case "eviction":
		return r.post(name, "evict the Pod, if its disruption budget allows that", httpMessage("Eviction"))
	case "token":
		return r.post(name, "create a token for the ServiceAccount", httpMessage("TokenRequest"))
	case "log":
		get := r.operation(actionGet, r.id("read", "")+capital(name), "read the log of a container of the Pod")
		r.respond(get, append([]string{"text/plain"}, objectTypes...), &definition{Type: "string"}, "200")
		return &pathItem{Get: get, Parameters: r.scope(true, append(logParameters, pretty)...)}
	case "exec":
		return r.connect(name, "PodExecOptions", append([]param{
			query("command", "string", "Command and arguments, one parameter for each."),
		}, streamParameters...))
	case "attach":
		return r.connect(name, "PodAttachOptions", streamParameters)
	case "portforward":
		return r.connect(name, "PodPortForwardOptions", []param{query("ports", "integer", "Ports of the Pod. Required for WebSockets.")})
	}
	return nil
}

var (
	streamParameters = []param{
		query("container", "string", "Name of the container. The only one, or the default one, if empty."),
		query("stderr", "boolean", "Returns the standard error of the process."),
		query("stdin", "boolean", "Sends standard input to the process."),
		query("stdout", "boolean", "Returns the standard output of the process."),
		query("tty", "boolean", "Allocates a terminal."),
	}
	logParameters = []param{
		query("container", "string", "Name of the container. The only one, or the default one, if empty."),
		query("follow", "boolean", "Continues with new lines until the container ends."),
		query("insecureSkipTLSVerifyBackend", "boolean", "Has no effect: the node's certificate is always verified."),
		query("limitBytes", "integer", "Largest number of bytes to return."),
		query("previous", "boolean", "Reads the log of the previous instance of the container."),
		query("sinceSeconds", "integer", "Returns lines that are not older than this."),
		query("stream", "string", "All, Stdout or Stderr. All if empty."),
		query("tailLines", "integer", "Returns this number of lines at the end. All if absent."),
		query("timestamps", "boolean", "Precedes each line with its time."),
	}
)

// view is the path of a subresource that is read and written as the object is, in a form of its
// own.
func (r resource) view(name string, form protoreflect.MessageDescriptor) *pathItem {
	r.object = r.message(form)
	item := r.item(name)
	kind := gvkOf(httpKinds[form.FullName()])
	for _, o := range []*operation{item.Get, item.Put, item.Patch} {
		o.Kind = &kind
	}
	return item
}

// post is the path of a subresource that takes a body of its own kind.
func (r resource) post(name, description string, body protoreflect.MessageDescriptor) *pathItem {
	kind := gvkOf(httpKinds[body.FullName()])
	create := r.operation(actionPost, r.id("create", "")+capital(name), description)
	create.Kind = &kind
	r.accept(create, anyType, r.message(body), true)
	r.respond(create, objectTypes, r.message(body), "200", "201", "202")
	return &pathItem{Post: create, Parameters: r.scope(true, dryRun, fieldManager, fieldValidation, pretty)}
}

// connect is the path of a subresource that becomes a stream of bytes.
func (r resource) connect(name, options string, params []param) *pathItem {
	kind := gvk{Kind: options, Version: r.kind.Version}
	method := func(method string) *operation {
		o := r.operation(actionConnect, r.id("connect", method)+capital(name), "open a stream to "+name+" of the Pod")
		o.Kind = &kind
		r.respond(o, anyType, &definition{Type: "string"}, "200")
		return o
	}
	return &pathItem{Get: method("Get"), Post: method("Post"), Parameters: r.scope(true, params...)}
}
