package networking_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/kinds/networking"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

func backend(port *networkingv1.ServiceBackendPort) *networkingv1.IngressBackend {
	return &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: port}}
}

func ingress() *networkingv1.Ingress {
	return &networkingv1.Ingress{Metadata: kindtest.Meta("web"), Spec: &networkingv1.IngressSpec{
		IngressClassName: proto.String("public"),
		Rules: []*networkingv1.IngressRule{{Host: "web.example.com", IngressRuleValue: &networkingv1.IngressRuleValue{
			Http: &networkingv1.HTTPIngressRuleValue{Paths: []*networkingv1.HTTPIngressPath{
				{Path: "/", PathType: proto.String("Prefix"), Backend: backend(&networkingv1.ServiceBackendPort{Number: 80})},
			}},
		}}},
	}}
}

func TestIngress(t *testing.T) {
	type ing = *networkingv1.Ingress
	path := func(i ing) *networkingv1.HTTPIngressPath {
		return i.Spec.Rules[0].IngressRuleValue.Http.Paths[0]
	}
	const at = "spec.rules[0].http.paths[0]."
	kindtest.Validate(t, ingress, []kindtest.Bad[ing]{
		{Name: "nothing", Edit: func(i ing) { i.Spec = nil }, Want: []string{"spec: Invalid value: either `defaultBackend` or `rules` must be specified"}},
		{Name: "default backend alone", Edit: func(i ing) {
			i.Spec = &networkingv1.IngressSpec{DefaultBackend: backend(&networkingv1.ServiceBackendPort{Name: "http"})}
		}},
		{Name: "wildcard host", Edit: func(i ing) { i.Spec.Rules[0].Host = "*.example.com" }},
		{Name: "wildcard alone", Edit: func(i ing) { i.Spec.Rules[0].Host = "*" }, Want: []string{`spec.rules[0].host: Invalid value: "*": a wildcard DNS-1123 subdomain`}},
		{Name: "address as host", Edit: func(i ing) { i.Spec.Rules[0].Host = "010.0.0.1" },
			Want: []string{`spec.rules[0].host: Invalid value: "010.0.0.1": must be a DNS name, not an IP address`}},
		{Name: "no paths", Edit: func(i ing) { i.Spec.Rules[0].IngressRuleValue.Http.Paths = nil }, Want: []string{"spec.rules[0].http.paths: Required value"}},
		{Name: "no path type", Edit: func(i ing) { path(i).PathType = nil }, Want: []string{at + "pathType: Required value: pathType must be specified"}},
		{Name: "path type", Edit: func(i ing) { path(i).PathType = proto.String("Regex") },
			Want: []string{at + `pathType: Unsupported value: "Regex": supported values: "Exact", "ImplementationSpecific", "Prefix"`}},
		{Name: "relative path", Edit: func(i ing) { path(i).Path = "web" }, Want: []string{at + `path: Invalid value: "web": must be an absolute path`}},
		{Name: "path with dots", Edit: func(i ing) { path(i).Path = "/a//b/.." },
			Want: []string{at + `path: Invalid value: "/a//b/..": must not contain '//'`, at + `path: Invalid value: "/a//b/..": cannot end with '/..'`}},
		{Name: "path of the controller's own", Edit: func(i ing) { path(i).Path, path(i).PathType = "/a//b", proto.String("ImplementationSpecific") }},
		{Name: "no path of the controller's own", Edit: func(i ing) { path(i).Path, path(i).PathType = "", proto.String("ImplementationSpecific") }},
		{Name: "no backend", Edit: func(i ing) { path(i).Backend = nil }, Want: []string{at + "backend: Invalid value: \"\": resource or service backend is required"}},
		{Name: "no port", Edit: func(i ing) { path(i).Backend = backend(nil) }, Want: []string{at + "backend: Required value: port name or number is required"}},
		{Name: "two ports", Edit: func(i ing) { path(i).Backend = backend(&networkingv1.ServiceBackendPort{Name: "http", Number: 80}) },
			Want: []string{at + `backend: Invalid value: "": cannot set both port name & port number`}},
		{Name: "two backends", Edit: func(i ing) { path(i).Backend.Resource = &corev1.TypedLocalObjectReference{} },
			Want: []string{at + `backend: Invalid value: "": cannot set both resource and service backends`}},
		{Name: "empty resource", Edit: func(i ing) {
			path(i).Backend = &networkingv1.IngressBackend{Resource: &corev1.TypedLocalObjectReference{}}
		}, Want: []string{at + "backend.resource.kind: Required value", at + "backend.resource.name: Required value"}},
		{Name: "certificates", Edit: func(i ing) {
			i.Spec.Tls = []*networkingv1.IngressTLS{{Hosts: []string{"a.*.com", "Web"}, SecretName: "a_b"}}
		}, Want: []string{`spec.tls[0].hosts[0]: Invalid value: "a.*.com"`, `spec.tls[0].hosts[1]: Invalid value: "Web"`, `spec.tls[0].secretName: Invalid value: "a_b"`}},
	})
	i := ingress()
	i.Spec.Tls, i.Spec.Rules = []*networkingv1.IngressTLS{{}}, append(i.Spec.Rules, i.Spec.Rules[0], i.Spec.Rules[0], i.Spec.Rules[0], i.Spec.Rules[0])
	i.Status = &networkingv1.IngressStatus{LoadBalancer: &networkingv1.IngressLoadBalancerStatus{
		Ingress: []*networkingv1.IngressLoadBalancerIngress{{Hostname: "balancer.example.com"}, {Ip: "192.0.2.1"}},
	}}
	kindtest.ExpectCells(t, i, kindtest.Now, map[string]string{
		"CLASS": "public", "HOSTS": "web.example.com,web.example.com,web.example.com + 2 more...", "ADDRESS": "192.0.2.1,bal...", "PORTS": "80, 443",
	})
	kindtest.ExpectCells(t, new(networkingv1.Ingress), kindtest.Now, map[string]string{"CLASS": "<none>", "HOSTS": "*", "ADDRESS": "", "PORTS": "80"})
}

func TestIngressClassByAnnotation(t *testing.T) {
	i := ingress()
	k := kinds.Of(i)
	i.Metadata.Annotations = map[string]string{networking.AnnotationIngressClass: "internal"}
	kindtest.Expect(t, k.ValidateNew(i), []string{"annotations.kubernetes.io/ingress.class: Invalid value: \"internal\": must match `ingressClassName` when both are specified"})
	i.Spec.IngressClassName = nil
	kindtest.Expect(t, k.ValidateNew(i), nil)
	if n := len(k.Warnings(i)); n != 2 {
		t.Errorf("%d warnings: %q", n, k.Warnings(i))
	}
}

func TestIngressStatus(t *testing.T) {
	i := ingress()
	i.Status = &networkingv1.IngressStatus{LoadBalancer: &networkingv1.IngressLoadBalancerStatus{
		Ingress: []*networkingv1.IngressLoadBalancerIngress{{Ip: "10.0.0.256"}, {Hostname: "10.0.0.1"}},
	}}
	kindtest.Expect(t, kinds.Of(i).ValidateStatusUpdate(i, ingress()), []string{
		`status.loadBalancer.ingress[0].ip: Invalid value: "10.0.0.256"`,
		`status.loadBalancer.ingress[1].hostname: Invalid value: "10.0.0.1": must be a DNS name, not an IP address`,
	})
}

func TestIngressClass(t *testing.T) {
	type class = *networkingv1.IngressClass
	base := func() class {
		return &networkingv1.IngressClass{Metadata: &metav1.ObjectMeta{Name: "public"}, Spec: &networkingv1.IngressClassSpec{
			Controller: "example.com/ingress", Parameters: &networkingv1.IngressClassParametersReference{Kind: "Settings", Name: "public", ApiGroup: proto.String("example.com")},
		}}
	}
	kindtest.Validate(t, base, []kindtest.Bad[class]{
		{Name: "no controller", Edit: func(c class) { c.Spec = nil }, Want: []string{"spec.controller: Required value"}},
		{Name: "controller without a domain", Edit: func(c class) { c.Spec.Controller = "nginx" }, Want: []string{`spec.controller: Invalid value: "nginx": must be a domain-prefixed path`}},
		{Name: "empty parameters", Edit: func(c class) { c.Spec.Parameters = &networkingv1.IngressClassParametersReference{} },
			Want: []string{"spec.parameters.kind: Required value", "spec.parameters.name: Required value"}},
		{Name: "no namespace", Edit: func(c class) { c.Spec.Parameters.Scope = proto.String("Namespace") },
			Want: []string{"spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"}},
		{Name: "namespace in the cluster", Edit: func(c class) { c.Spec.Parameters.Namespace = proto.String("default") },
			Want: []string{"spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"}},
		{Name: "scope", Edit: func(c class) { c.Spec.Parameters.Scope = proto.String("Node") }, Want: []string{`spec.parameters.scope: Unsupported value: "Node"`}},
	})
	kindtest.Update(t, base, []kindtest.Edit[class]{
		{Name: "controller", Edit: func(c class) { c.Spec.Controller = "example.com/other" }, Want: []string{`spec.controller: Invalid value: "example.com/other": field is immutable`}},
		{Name: "parameters", Edit: func(c class) { c.Spec.Parameters = nil }},
	})
	kindtest.ExpectCells(t, base(), kindtest.Now, map[string]string{"CONTROLLER": "example.com/ingress", "PARAMETERS": "Settings.example.com/public"})
	kindtest.ExpectCells(t, new(networkingv1.IngressClass), kindtest.Now, map[string]string{"PARAMETERS": "<none>"})
}
