package kind

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

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
	endpointSliceRules = rulesOf[*discoveryv1.EndpointSlice]{
		name:  nameIsSubdomain,
		check: checkEndpointSlice,
		checkUpdate: func(new, old *discoveryv1.EndpointSlice, c *checker) {
			unchanged(c, field.NewPath("addressType"), new.GetAddressType(), old.GetAddressType())
		},
	}
	endpointSliceColumns = []Column{
		at(".addressType", column("ADDRESSTYPE", (*discoveryv1.EndpointSlice).GetAddressType)),
		column("PORTS", endpointSlicePorts),
		column("ENDPOINTS", endpointSliceAddresses),
		AgeColumn,
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

func checkEndpointSlice(s *discoveryv1.EndpointSlice, c *checker) {
	for i, e := range s.GetEndpoints()[:min(len(s.GetEndpoints()), MaxEndpoints)] {
		c.endpointAddresses(field.NewPath("endpoints").Index(i).Child("addresses"), s.GetAddressType(), e.GetAddresses())
	}
	for i, port := range s.GetPorts()[:min(len(s.GetPorts()), MaxEndpointPorts)] {
		if port.GetName() != "" {
			c.each(field.NewPath("ports").Index(i).Child("name"), port.GetName(), validation.IsDNS1123Label(port.GetName()))
		}
	}
}

// endpointAddresses checks addresses against the type of their slice.
func (c *checker) endpointAddresses(p *field.Path, addressType string, addresses []string) {
	for i, a := range addresses {
		at := p.Index(i)
		if addressType == AddressFQDN {
			c.list = append(c.list, validation.IsFullyQualifiedDomainName(at, a)...)
			continue
		}
		ip := c.ip(at, a)
		switch {
		case !ip.IsValid():
		case addressType == AddressIPv4 && !ip.Is4():
			c.invalid(at, a, "must be an IPv4 address")
		case addressType == AddressIPv6 && !ip.Is6():
			c.invalid(at, a, "must be an IPv6 address")
		default:
			c.reachable(at, a, ip)
		}
	}
}

// reachable refuses addresses that are local to a host, to which traffic cannot be routed.
func (c *checker) reachable(p *field.Path, text string, ip netip.Addr) {
	switch {
	case ip.IsUnspecified():
		c.invalid(p, text, "may not be unspecified (0.0.0.0 or ::)")
	case ip.IsLoopback():
		c.invalid(p, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	case ip.IsLinkLocalUnicast():
		c.invalid(p, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	case ip.IsLinkLocalMulticast():
		c.invalid(p, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	}
}
