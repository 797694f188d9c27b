package core

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	// LabelEndpointsManagedBy names the controller of an Endpoints object.
	LabelEndpointsManagedBy = "endpoints.kubernetes.io/managed-by"
	// EndpointsController is the value of LabelEndpointsManagedBy on objects of the endpoints service.
	EndpointsController = "endpoint-controller"
	// AnnotationOverCapacity says that an Endpoints object lacks some addresses of its service.
	AnnotationOverCapacity = "endpoints.kubernetes.io/over-capacity"
)

var (
	endpointsRules = rules.For[*corev1.Endpoints]{
		Name:  rules.NameIsSubdomain,
		Check: checkEndpoints,
		Warn: func(e *corev1.Endpoints) []string {
			if e.GetMetadata().GetLabels()[LabelEndpointsManagedBy] == EndpointsController {
				return nil
			}
			return []string{"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"}
		},
	}
	endpointsColumns = []scheme.Column{
		column.New("ENDPOINTS", endpointsAddresses),
		column.AgeColumn,
	}
)

// endpointsAddresses are up to three of the addresses that take traffic, with their ports, and how
// many more there are.
func endpointsAddresses(e *corev1.Endpoints) string {
	const most = 3
	if len(e.GetSubsets()) == 0 {
		return column.None
	}
	var shown []string
	count := 0
	add := func(addresses []*corev1.EndpointAddress, text func(ip string) string) {
		count += len(addresses)
		for _, a := range addresses[:min(len(addresses), most-len(shown))] {
			shown = append(shown, text(a.GetIp()))
		}
	}
	for _, subset := range e.GetSubsets() {
		if len(subset.GetPorts()) == 0 {
			add(subset.GetAddresses(), func(ip string) string { return ip })
		}
		for _, port := range subset.GetPorts() {
			add(subset.GetAddresses(), func(ip string) string { return net.JoinHostPort(ip, strconv.Itoa(int(port.GetPort()))) })
		}
	}
	text := strings.Join(shown, ",")
	if count > most {
		return fmt.Sprintf("%s + %d more...", text, count-most)
	}
	return text
}

func checkEndpoints(e *corev1.Endpoints, c *rules.Checker) {
	for i, subset := range e.GetSubsets() {
		at := field.NewPath("subsets").Index(i)
		if len(subset.GetAddresses()) == 0 && len(subset.GetNotReadyAddresses()) == 0 {
			c.Required(at, "must specify `addresses` or `notReadyAddresses`")
		}
		for j, a := range subset.GetAddresses() {
			checkEndpointAddress(c, at.Child("addresses").Index(j).Child("ip"), a.GetIp())
		}
		for j, a := range subset.GetNotReadyAddresses() {
			checkEndpointAddress(c, at.Child("notReadyAddresses").Index(j).Child("ip"), a.GetIp())
		}
		for j, port := range subset.GetPorts() {
			if port.GetName() == "" && len(subset.GetPorts()) > 1 {
				c.Required(at.Child("ports").Index(j).Child("name"), "")
			}
		}
	}
}

// checkEndpointAddress refuses addresses that are local to a host. That it is an address at all is
// checked by its format.
func checkEndpointAddress(c *rules.Checker, p *field.Path, text string) {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return
	}
	switch {
	case ip.IsUnspecified():
		c.Invalid(p, text, fmt.Sprintf("may not be unspecified (%s)", text))
	case ip.IsLoopback():
		c.Invalid(p, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	case ip.IsLinkLocalUnicast():
		c.Invalid(p, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	case ip.IsLinkLocalMulticast():
		c.Invalid(p, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	}
}
