// Package discovery has the kinds of the group discovery.k8s.io.
package discovery

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

// What the addresses of an EndpointSlice are, its limits, and the labels that tie it to its
// service.
const (
	AddressIPv4 = "IPv4"
	AddressIPv6 = "IPv6"
	AddressFQDN = "FQDN"

	MaxEndpoints         = 1000
	MaxEndpointPorts     = 100
	MaxEndpointAddresses = 100

	LabelServiceName            = "kubernetes.io/service-name"
	LabelEndpointSliceManagedBy = "endpointslice.kubernetes.io/managed-by"
	// EndpointSliceController is the value of LabelEndpointSliceManagedBy on slices of the endpoints
	// service. It is the value in Kubernetes, by which tools distinguish such slices from those of
	// users and other controllers.
	EndpointSliceController = "endpointslice-controller.k8s.io"
	// FormerEndpointSliceController is the value in v0.1.0. The endpoints service adopts slices with
	// it.
	FormerEndpointSliceController = "endpointslice-controller.xebec"
)

// IsServiceSlice reports whether the endpoints service manages a slice.
func IsServiceSlice(e *discoveryv1.EndpointSlice) bool {
	by := e.GetMetadata().GetLabels()[LabelEndpointSliceManagedBy]
	return by == EndpointSliceController || by == FormerEndpointSliceController
}

var (
	endpointSliceRules = rules.For[*discoveryv1.EndpointSlice]{
		Name:  rules.NameIsSubdomain,
		Check: checkEndpointSlice,
	}
	endpointSliceColumns = []scheme.Column{
		column.At(".addressType", column.New("ADDRESSTYPE", (*discoveryv1.EndpointSlice).GetAddressType)),
		column.New("PORTS", endpointSlicePorts),
		column.New("ENDPOINTS", endpointSliceAddresses),
		column.AgeColumn,
	}
)

// AddressTypeOf returns the type that slices of an IP address have, empty for what is no IP
// address.
func AddressTypeOf(address string) string {
	a, err := netip.ParseAddr(address)
	switch {
	case err != nil:
		return ""
	case a.Unmap().Is4():
		return AddressIPv4
	}
	return AddressIPv6
}

func endpointSlicePorts(s *discoveryv1.EndpointSlice) string {
	var ports []string
	for _, p := range s.GetPorts() {
		if p.Port == nil {
			ports = append(ports, "*")
		} else {
			ports = append(ports, strconv.Itoa(int(p.GetPort())))
		}
	}
	return firstFew(ports)
}

func endpointSliceAddresses(s *discoveryv1.EndpointSlice) string {
	var addresses []string
	for _, e := range s.GetEndpoints() {
		addresses = append(addresses, e.GetAddresses()...)
	}
	return firstFew(addresses)
}

// firstFew joins up to three values and says how many more there are.
func firstFew(values []string) string {
	const most = 3
	switch {
	case len(values) == 0:
		return "<unset>"
	case len(values) > most:
		return fmt.Sprintf("%s + %d more...", strings.Join(values[:most], ","), len(values)-most)
	}
	return strings.Join(values, ",")
}

func checkEndpointSlice(s *discoveryv1.EndpointSlice, c *rules.Checker) {
	for i, e := range s.GetEndpoints()[:min(len(s.GetEndpoints()), MaxEndpoints)] {
		checkEndpointAddresses(c, field.NewPath("endpoints").Index(i).Child("addresses"), s.GetAddressType(), e.GetAddresses())
	}
	for i, port := range s.GetPorts()[:min(len(s.GetPorts()), MaxEndpointPorts)] {
		if port.GetName() != "" {
			c.Each(field.NewPath("ports").Index(i).Child("name"), port.GetName(), validation.IsDNS1123Label(port.GetName()))
		}
	}
}

// checkEndpointAddresses checks addresses against the type of their slice.
func checkEndpointAddresses(c *rules.Checker, p *field.Path, addressType string, addresses []string) {
	for i, a := range addresses {
		at := p.Index(i)
		if addressType == AddressFQDN {
			c.List = append(c.List, validation.IsFullyQualifiedDomainName(at, a)...)
			continue
		}
		ip := c.IP(at, a)
		switch {
		case !ip.IsValid():
		case addressType == AddressIPv4 && !ip.Is4():
			c.Invalid(at, a, "must be an IPv4 address")
		case addressType == AddressIPv6 && !ip.Is6():
			c.Invalid(at, a, "must be an IPv6 address")
		default:
			CheckReachable(c, at, a, ip)
		}
	}
}

// CheckReachable refuses addresses that are local to a host, to which traffic cannot be routed.
func CheckReachable(c *rules.Checker, p *field.Path, text string, ip netip.Addr) {
	switch {
	case ip.IsUnspecified():
		c.Invalid(p, text, "may not be unspecified (0.0.0.0 or ::)")
	case ip.IsLoopback():
		c.Invalid(p, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	case ip.IsLinkLocalUnicast():
		c.Invalid(p, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	case ip.IsLinkLocalMulticast():
		c.Invalid(p, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	}
}
