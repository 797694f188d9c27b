package networking

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// AnnotationIngressClass named the class of an Ingress before there was a field for it.
const AnnotationIngressClass = "kubernetes.io/ingress.class"

// pathImplementationSpecific is the type of path that the controller interprets.
const pathImplementationSpecific = "ImplementationSpecific"

var (
	ingressRules = rules.For[*networkingv1.Ingress]{
		Name:        rules.NameIsSubdomain,
		Check:       checkIngress,
		CheckNew:    checkNewIngress,
		CheckStatus: func(now, _ *networkingv1.Ingress, c *rules.Checker) { checkIngressStatus(now.GetStatus(), c) },
		Warn:        warnIngress,
	}
	ingressColumns = []scheme.Column{
		column.At(".spec.ingressClassName", column.New("CLASS", func(i *networkingv1.Ingress) string {
			return column.OrNone(i.GetSpec().GetIngressClassName())
		})),
		column.New("HOSTS", ingressHosts),
		column.New("ADDRESS", ingressAddress),
		column.New("PORTS", func(i *networkingv1.Ingress) string {
			if len(i.GetSpec().GetTls()) > 0 {
				return "80, 443"
			}
			return "80"
		}),
		column.AgeColumn,
	}
)

// ingressHosts are the first hosts, and how many further rules there are.
func ingressHosts(i *networkingv1.Ingress) string {
	const most = 3
	var hosts []string
	all := i.GetSpec().GetRules()
	for _, rule := range all {
		if len(hosts) == most {
			return fmt.Sprintf("%s + %d more...", strings.Join(hosts, ","), len(all)-most)
		}
		if rule.GetHost() != "" {
			hosts = append(hosts, rule.GetHost())
		}
	}
	if len(hosts) == 0 {
		return "*"
	}
	return strings.Join(hosts, ",")
}

// ingressAddress are the addresses of the load balancer, cut to the width of the column.
func ingressAddress(i *networkingv1.Ingress) string {
	const width = 16
	var addresses []string
	for _, in := range i.GetStatus().GetLoadBalancer().GetIngress() {
		if address := in.GetIp(); address != "" {
			addresses = append(addresses, address)
		} else if in.GetHostname() != "" {
			addresses = append(addresses, in.GetHostname())
		}
	}
	slices.Sort(addresses)
	text := strings.Join(slices.Compact(addresses), ",")
	if len(text) > width {
		return text[:width-len("...")] + "..."
	}
	return text
}

func checkIngress(i *networkingv1.Ingress, c *rules.Checker) {
	spec, p := i.GetSpec(), field.NewPath("spec")
	if len(spec.GetRules()) == 0 && spec.GetDefaultBackend() == nil {
		c.Invalid(p, field.OmitValueType{}, "either `defaultBackend` or `rules` must be specified")
	}
	if spec.GetDefaultBackend() != nil {
		checkIngressBackend(c, p.Child("defaultBackend"), spec.GetDefaultBackend())
	}
	for n, rule := range spec.GetRules() {
		at := p.Child("rules").Index(n)
		if rule.GetHost() != "" {
			checkIngressHost(c, at.Child("host"), rule.GetHost())
		}
		for j, path := range rule.GetIngressRuleValue().GetHttp().GetPaths() {
			checkIngressPath(c, at.Child("http", "paths").Index(j), path)
		}
	}
	for n, tls := range spec.GetTls() {
		for j, host := range tls.GetHosts() {
			checkHost(c, p.Child("tls").Index(n).Child("hosts").Index(j), host)
		}
	}
}

// checkNewIngress refuses a class by the annotation that is not the one of the field.
func checkNewIngress(i *networkingv1.Ingress, c *rules.Checker) {
	class, ok := i.GetMetadata().GetAnnotations()[AnnotationIngressClass]
	if ok && i.GetSpec().IngressClassName != nil && class != i.GetSpec().GetIngressClassName() {
		c.Invalid(field.NewPath("annotations").Child(AnnotationIngressClass), class,
			"must match `ingressClassName` when both are specified")
	}
}

func checkIngressHost(c *rules.Checker, p *field.Path, host string) {
	if isIP(host) {
		c.Invalid(p, host, "must be a DNS name, not an IP address")
	}
	checkHost(c, p, host)
}

// isIP reports whether a text is an IP address, also one with leading zeros.
func isIP(text string) bool {
	return len(validation.IsValidIPForLegacyField(nil, text, false, nil)) == 0
}

// checkHost checks a name in DNS that may begin with the label "*".
func checkHost(c *rules.Checker, p *field.Path, host string) {
	if strings.Contains(host, "*") {
		c.Each(p, host, validation.IsWildcardDNS1123Subdomain(host))
		return
	}
	c.Each(p, host, validation.IsDNS1123Subdomain(host))
}

func checkIngressPath(c *rules.Checker, p *field.Path, path *networkingv1.HTTPIngressPath) {
	if path.PathType == nil {
		return // reported as missing
	}
	checkIngressBackend(c, p.Child("backend"), path.GetBackend())
	at, text := p.Child("path"), path.GetPath()
	switch path.GetPathType() {
	case "Exact", "Prefix":
	case pathImplementationSpecific:
		if text != "" && text[0] != '/' {
			c.Invalid(at, text, "must be an absolute path")
		}
		return
	default:
		return // reported as unsupported
	}
	if !strings.HasPrefix(text, "/") {
		c.Invalid(at, text, "must be an absolute path")
	}
	for _, part := range []string{"//", "/./", "/../", "%2f", "%2F"} {
		if strings.Contains(text, part) {
			c.Invalid(at, text, fmt.Sprintf("must not contain '%s'", part))
		}
	}
	for _, end := range []string{"/..", "/."} {
		if strings.HasSuffix(text, end) {
			c.Invalid(at, text, fmt.Sprintf("cannot end with '%s'", end))
		}
	}
}

func checkIngressBackend(c *rules.Checker, p *field.Path, b *networkingv1.IngressBackend) {
	switch {
	case b.GetResource() != nil && b.GetService() != nil:
		c.Invalid(p, "", "cannot set both resource and service backends")
	case b.GetResource() != nil:
		checkTypedReference(c, p.Child("resource"), b.GetResource())
	case b.GetService() != nil:
		checkServiceBackend(c, p, b.GetService())
	default:
		c.Invalid(p, "", "resource or service backend is required")
	}
}

// checkServiceBackend checks the service of the backend at p. Errors about the choice of the port
// are reported at the backend.
func checkServiceBackend(c *rules.Checker, p *field.Path, s *networkingv1.IngressServiceBackend) {
	name, port := s.GetPort().GetName(), s.GetPort().GetNumber()
	switch {
	case name != "" && port != 0:
		c.Invalid(p, "", "cannot set both port name & port number")
	case name != "":
		c.Each(p.Child("service", "port", "name"), name, validation.IsValidPortName(name))
	case port != 0:
		c.PortNumber(p.Child("service", "port", "number"), port)
	default:
		c.Required(p, "port name or number is required")
	}
}

func checkTypedReference(c *rules.Checker, p *field.Path, r *corev1.TypedLocalObjectReference) {
	if r.ApiGroup != nil {
		c.Each(p.Child("apiGroup"), r.GetApiGroup(), validation.IsDNS1123Subdomain(r.GetApiGroup()))
	}
	checkPathSegment(c, p.Child("kind"), r.GetKind())
	checkPathSegment(c, p.Child("name"), r.GetName())
}

// checkPathSegment checks a required text that can be a segment of a path.
func checkPathSegment(c *rules.Checker, p *field.Path, text string) {
	if text == "" {
		c.Required(p, "")
		return
	}
	c.Each(p, text, content.IsPathSegmentName(text))
}

func checkIngressStatus(s *networkingv1.IngressStatus, c *rules.Checker) {
	for n, in := range s.GetLoadBalancer().GetIngress() {
		if isIP(in.GetHostname()) {
			c.Invalid(field.NewPath("status", "loadBalancer", "ingress").Index(n).Child("hostname"), in.GetHostname(),
				"must be a DNS name, not an IP address")
		}
	}
}

func warnIngress(i *networkingv1.Ingress) []string {
	warnings := []string{"spec: Ingresses have no effect yet: no controller of the cluster serves them"}
	if _, ok := i.GetMetadata().GetAnnotations()[AnnotationIngressClass]; ok && i.GetSpec().IngressClassName == nil {
		warnings = append(warnings,
			fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", AnnotationIngressClass))
	}
	return warnings
}
