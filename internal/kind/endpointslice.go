package kind

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

// What the addresses of an EndpointSlice are, its limits, and the labels that tie it to its service.
const (
	AddressIPv4 = "IPv4"
	AddressIPv6 = "IPv6"
	AddressFQDN = "FQDN"

	MaxEndpoints         = 1000
	MaxEndpointPorts     = 100
	MaxEndpointAddresses = 100

	LabelServiceName            = "kubernetes.io/service-name"
	LabelEndpointSliceManagedBy = "endpointslice.kubernetes.io/managed-by"
	// EndpointSliceController is the value of LabelEndpointSliceManagedBy on slices that the endpoints service makes: that of
	// Kubernetes, by which tools tell them from slices that people or other controllers make.
	EndpointSliceController = "endpointslice-controller.k8s.io"
	// FormerEndpointSliceController is the value that v0.1.0 gave them. The endpoints service takes such slices over.
	FormerEndpointSliceController = "endpointslice-controller.xebec"
)

// IsServiceSlice reports whether the endpoints service makes a slice.
func IsServiceSlice(e *discoveryv1.EndpointSlice) bool {
	by := e.GetMetadata().GetLabels()[LabelEndpointSliceManagedBy]
	return by == EndpointSliceController || by == FormerEndpointSliceController
}

var (
	endpointSliceRules = rulesOf[*discoveryv1.EndpointSlice]{
		name:     nameIsSubdomain,
		defaults: defaultEndpointSlice,
		check:    checkEndpointSlice,
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

// AddressTypeOf returns the type that slices of an IP address have, empty for what is no IP address.
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

func defaultEndpointSlice(s *discoveryv1.EndpointSlice) {
	for _, p := range s.GetPorts() {
		if p.Name == nil {
			p.Name = proto.String("")
		}
		if p.Protocol == nil {
			p.Protocol = proto.String(ProtocolTCP)
		}
	}
}

func checkEndpointSlice(s *discoveryv1.EndpointSlice, c *checker) {
	c.oneOf(field.NewPath("addressType"), s.GetAddressType(), AddressIPv4, AddressIPv6, AddressFQDN)

	p := field.NewPath("endpoints")
	if n := len(s.GetEndpoints()); n > MaxEndpoints {
		c.add(field.TooMany(p, n, MaxEndpoints))
		return
	}
	for i, e := range s.GetEndpoints() {
		c.endpoint(p.Index(i), s.GetAddressType(), e)
	}
	p = field.NewPath("ports")
	if n := len(s.GetPorts()); n > MaxEndpointPorts {
		c.add(field.TooMany(p, n, MaxEndpointPorts))
		return
	}
	seen := names{}
	for i, port := range s.GetPorts() {
		at := p.Index(i)
		if port.GetName() != "" {
			c.each(at.Child("name"), port.GetName(), validation.IsDNS1123Label(port.GetName()))
		}
		c.unique(at.Child("name"), seen, port.GetName())
		c.oneOf(at.Child("protocol"), port.GetProtocol(), ProtocolTCP, ProtocolUDP, ProtocolSCTP)
		if port.Port != nil {
			c.portNumber(at.Child("port"), port.GetPort())
		}
		if port.AppProtocol != nil {
			c.each(at.Child("appProtocol"), port.GetAppProtocol(), validation.IsQualifiedName(port.GetAppProtocol()))
		}
	}
}

func (c *checker) endpoint(p *field.Path, addressType string, e *discoveryv1.Endpoint) {
	addresses := p.Child("addresses")
	switch n := len(e.GetAddresses()); {
	case n == 0:
		c.required(addresses, "must contain at least 1 address")
	case n > MaxEndpointAddresses:
		c.add(field.TooMany(addresses, n, MaxEndpointAddresses))
	}
	for i, a := range e.GetAddresses() {
		at := addresses.Index(i)
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
	if e.Hostname != nil {
		c.each(p.Child("hostname"), e.GetHostname(), validation.IsDNS1123Label(e.GetHostname()))
	}
	if e.NodeName != nil {
		c.each(p.Child("nodeName"), e.GetNodeName(), validation.IsDNS1123Subdomain(e.GetNodeName()))
	}
	c.labels(p.Child("deprecatedTopology"), e.GetDeprecatedTopology())
	zones, nodes := names{}, names{}
	for i, z := range e.GetHints().GetForZones() {
		at := p.Child("hints", "forZones").Index(i).Child("name")
		c.unique(at, zones, z.GetName())
		c.each(at, z.GetName(), validation.IsValidLabelValue(z.GetName()))
	}
	for i, n := range e.GetHints().GetForNodes() {
		at := p.Child("hints", "forNodes").Index(i).Child("name")
		c.unique(at, nodes, n.GetName())
		c.each(at, n.GetName(), validation.IsDNS1123Subdomain(n.GetName()))
	}
	if n := len(e.GetHints().GetForZones()); n > 8 {
		c.add(field.TooMany(p.Child("hints", "forZones"), n, 8))
	}
	if n := len(e.GetHints().GetForNodes()); n > 8 {
		c.add(field.TooMany(p.Child("hints", "forNodes"), n, 8))
	}
}

// reachable refuses addresses that mean something else on every host, and would lead traffic astray.
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
