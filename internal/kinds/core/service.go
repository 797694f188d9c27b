package core

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/discovery"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Protocols of ports.
const (
	ProtocolTCP  = "TCP"
	ProtocolUDP  = "UDP"
	ProtocolSCTP = "SCTP"
)

// Types of service.
const (
	ServiceClusterIP    = "ClusterIP"
	ServiceNodePort     = "NodePort"
	ServiceLoadBalancer = "LoadBalancer"
	ServiceExternalName = "ExternalName"
)

// Values of service fields.
const (
	// ClusterIPNone as the cluster IP makes a service headless.
	ClusterIPNone = "None"

	AffinityNone     = "None"
	AffinityClientIP = "ClientIP"

	TrafficCluster = "Cluster"
	TrafficLocal   = "Local"

	FamilyIPv4 = "IPv4"
	FamilyIPv6 = "IPv6"

	SingleStack      = "SingleStack"
	PreferDualStack  = "PreferDualStack"
	RequireDualStack = "RequireDualStack"
)

// Bounds of the ports that nodes open for services.
const (
	MinNodePort = 30000
	MaxNodePort = 32767
)

const (
	defaultAffinitySeconds = 3 * 60 * 60
)

var (
	serviceRules = rules.For[*corev1.Service]{
		Name:        rules.NameIsLabel,
		Defaults:    defaultService,
		Check:       checkService,
		CheckUpdate: checkServiceUpdate,
		CheckStatus: checkServiceStatus,
		Update:      updateService,
		// Kubernetes' default too.
		PrepareStatus: func(new, _ *corev1.Service) {
			for _, x := range new.GetStatus().GetLoadBalancer().GetIngress() {
				if new.GetSpec().GetType() == ServiceLoadBalancer && x.GetIp() != "" && x.IpMode == nil {
					x.IpMode = proto.String(ipModeVIP)
				}
			}
		},
	}
	serviceColumns = []scheme.Column{
		column.At(".spec.type", column.New("TYPE", func(s *corev1.Service) string { return s.GetSpec().GetType() })),
		column.At(".spec.clusterIP", column.New("CLUSTER-IP", func(s *corev1.Service) string {
			return column.OrNone(s.GetSpec().GetClusterIp())
		})),
		column.New("EXTERNAL-IP", serviceExternalIP),
		column.New("PORT(S)", servicePorts),
		column.AgeColumn,
		column.Wide("SELECTOR", func(s *corev1.Service) string { return column.FormatLabels(s.GetSpec().GetSelector()) }),
	}
	serviceFields = map[string][]protowire.Number{
		"spec.clusterIP": {2, 3},
		"spec.type":      {2, 4},
	}
)

// IsHeadless reports whether a service has no cluster IP by its spec: its name resolves to its
// endpoints' addresses.
func IsHeadless(s *corev1.Service) bool { return s.GetSpec().GetClusterIp() == ClusterIPNone }

// NeedsNodePorts reports whether nodes open a port for each of the service's ports.
func NeedsNodePorts(s *corev1.Service) bool { return needsNodePorts(s.GetSpec()) }

func needsNodePorts(s *corev1.ServiceSpec) bool {
	return s.GetType() == ServiceNodePort ||
		s.GetType() == ServiceLoadBalancer && (s.AllocateLoadBalancerNodePorts == nil || s.GetAllocateLoadBalancerNodePorts())
}

// NeedsHealthCheckNodePort reports whether nodes report to load balancers, at a dedicated port,
// whether they have an endpoint of the service.
func NeedsHealthCheckNodePort(s *corev1.Service) bool { return needsHealthCheckNodePort(s.GetSpec()) }

func needsHealthCheckNodePort(s *corev1.ServiceSpec) bool {
	return s.GetType() == ServiceLoadBalancer && s.GetExternalTrafficPolicy() == TrafficLocal
}

func isExternal(s *corev1.ServiceSpec) bool {
	return s.GetType() == ServiceNodePort || s.GetType() == ServiceLoadBalancer
}

func serviceExternalIP(s *corev1.Service) string {
	switch s.GetSpec().GetType() {
	case ServiceExternalName:
		return s.GetSpec().GetExternalName()
	case ServiceLoadBalancer:
		var all []string
		for _, in := range s.GetStatus().GetLoadBalancer().GetIngress() {
			if in.GetIp() != "" {
				all = append(all, in.GetIp())
			} else {
				all = append(all, in.GetHostname())
			}
		}
		if all = append(all, s.GetSpec().GetExternalIps()...); len(all) == 0 {
			return "<pending>"
		}
		return column.OrNone(all...)
	}
	return column.OrNone(s.GetSpec().GetExternalIps()...)
}

func servicePorts(s *corev1.Service) string {
	var out []string
	for _, p := range s.GetSpec().GetPorts() {
		text := strconv.Itoa(int(p.GetPort()))
		if p.GetNodePort() > 0 {
			text += ":" + strconv.Itoa(int(p.GetNodePort()))
		}
		out = append(out, text+"/"+p.GetProtocol())
	}
	return column.OrNone(out...)
}

func defaultService(o *corev1.Service) {
	s := o.Spec
	switch s.GetSessionAffinity() {
	case AffinityNone:
		s.SessionAffinityConfig = nil
	case AffinityClientIP:
		if s.GetSessionAffinityConfig().GetClientIp() == nil || s.SessionAffinityConfig.ClientIp.TimeoutSeconds == nil {
			s.SessionAffinityConfig = &corev1.SessionAffinityConfig{
				ClientIp: &corev1.ClientIPConfig{TimeoutSeconds: proto.Int32(defaultAffinitySeconds)},
			}
		}
	}
	for _, p := range s.GetPorts() {
		if t := p.GetTargetPort(); t == nil || t.GetType() == 0 && t.GetIntVal() == 0 || t.GetType() == 1 && t.GetStrVal() == "" {
			p.TargetPort = &metav1.IntOrString{IntVal: p.GetPort()}
		}
	}
	if isExternal(s) && s.GetExternalTrafficPolicy() == "" {
		s.ExternalTrafficPolicy = TrafficCluster
	}
	if s.GetType() == ServiceLoadBalancer && s.AllocateLoadBalancerNodePorts == nil {
		s.AllocateLoadBalancerNodePorts = proto.Bool(true)
	}
	if s.GetType() == ServiceExternalName {
		return
	}
	if s.InternalTrafficPolicy == nil {
		s.InternalTrafficPolicy = proto.String(TrafficCluster)
	}
	// Families and their policy depend on what the cluster has: see SettleFamilies.
	if s.GetClusterIp() != "" && len(s.GetClusterIps()) == 0 {
		s.ClusterIps = []string{s.GetClusterIp()}
	}
}

// updateService keeps allocated addresses and ports that an update leaves out, as a manifest that
// is applied again does, and releases the cluster IP when the type changes to ExternalName.
func updateService(new, old *corev1.Service) {
	if new.GetSpec() == nil || old.GetSpec() == nil {
		return
	}
	s, was := new.Spec, old.Spec
	dropForType(s, was)
	if s.GetType() != ServiceExternalName && was.GetType() != ServiceExternalName {
		if s.GetClusterIp() == "" && len(s.GetClusterIps()) == 0 {
			s.ClusterIp, s.ClusterIps = was.GetClusterIp(), slices.Clone(was.GetClusterIps())
		}
	}
	if needsHealthCheckNodePort(s) && s.GetHealthCheckNodePort() == 0 {
		s.HealthCheckNodePort = was.GetHealthCheckNodePort()
	}
	if !needsNodePorts(s) {
		return
	}
	for _, p := range s.GetPorts() {
		for _, q := range was.GetPorts() {
			free := p.GetNodePort() == 0 && !hasNodePort(s, q.GetNodePort())
			if free && p.GetPort() == q.GetPort() && OrTCP(p.GetProtocol()) == OrTCP(q.GetProtocol()) {
				p.NodePort = q.GetNodePort()
			}
		}
	}
}

// dropForType clears fields that belong to the former type of a service and are unchanged by the
// update.
func dropForType(s, was *corev1.ServiceSpec) {
	if s.GetType() == ServiceExternalName && was.GetType() != ServiceExternalName {
		if s.GetClusterIp() == was.GetClusterIp() {
			s.ClusterIp, s.ClusterIps = "", nil
		}
		s.IpFamilies, s.IpFamilyPolicy = nil, nil
	}
	if isExternal(was) && !isExternal(s) && s.GetExternalTrafficPolicy() == was.GetExternalTrafficPolicy() {
		s.ExternalTrafficPolicy = ""
	}
	if was.GetType() == ServiceLoadBalancer && s.GetType() != ServiceLoadBalancer {
		s.AllocateLoadBalancerNodePorts, s.LoadBalancerClass = nil, nil
	}
	if needsHealthCheckNodePort(was) && !needsHealthCheckNodePort(s) && s.GetHealthCheckNodePort() == was.GetHealthCheckNodePort() {
		s.HealthCheckNodePort = 0
	}
	if needsNodePorts(was) && !needsNodePorts(s) {
		for _, p := range s.GetPorts() {
			if hasNodePort(was, p.GetNodePort()) {
				p.NodePort = 0
			}
		}
	}
}

func hasNodePort(s *corev1.ServiceSpec, port int32) bool {
	return port != 0 && slices.ContainsFunc(s.GetPorts(), func(p *corev1.ServicePort) bool { return p.GetNodePort() == port })
}

// OrTCP returns a protocol, TCP when it is not set.
func OrTCP(protocol string) string {
	if protocol == "" {
		return ProtocolTCP
	}
	return protocol
}

func checkService(o *corev1.Service, c *rules.Checker) {
	p, s := field.NewPath("spec"), o.GetSpec()
	if s == nil {
		c.Required(p, "")
		return
	}
	if len(s.GetPorts()) == 0 && !IsHeadless(o) && s.GetType() != ServiceExternalName {
		c.Required(p.Child("ports"), "")
	}
	checkServicePorts(c, p.Child("ports"), s)
	checkServiceAffinity(c, p, s)
	checkServiceAddresses(c, p, s)
	checkServicePolicies(c, p, s)

	if s.GetType() == ServiceExternalName {
		// A name may end with a dot, which makes it absolute.
		name := strings.TrimSuffix(s.GetExternalName(), ".")
		if name == "" {
			c.Required(p.Child("externalName"), "")
		} else {
			c.Each(p.Child("externalName"), s.GetExternalName(), validation.IsDNS1123Subdomain(name))
		}
	}
}

func checkServicePorts(c *rules.Checker, p *field.Path, s *corev1.ServiceSpec) {
	ports, nodePorts := rules.Names{}, rules.Names{}
	for i, port := range s.GetPorts() {
		at := p.Index(i)
		if port.GetName() == "" && len(s.GetPorts()) > 1 {
			c.Required(at.Child("name"), "")
		}
		c.Unique(at, ports, fmt.Sprintf("%d/%s", port.GetPort(), port.GetProtocol()))

		switch n := port.GetNodePort(); {
		case n == 0:
		case !isExternal(s):
			c.Forbidden(at.Child("nodePort"), fmt.Sprintf("may not be used when `type` is '%s'", s.GetType()))
		case n < MinNodePort || n > MaxNodePort:
			c.Invalid(at.Child("nodePort"), n,
				fmt.Sprintf("provided port is not in the valid range. The range of valid ports is %d-%d", MinNodePort, MaxNodePort))
		default:
			c.Unique(at.Child("nodePort"), nodePorts, fmt.Sprintf("%d/%s", n, port.GetProtocol()))
		}
	}
}

// checkPortOrName checks a port that is given by number or by the name of a container's port.
func checkPortOrName(c *rules.Checker, p *field.Path, v *metav1.IntOrString) {
	if v.GetType() == 1 {
		c.Each(p, v.GetStrVal(), validation.IsValidPortName(v.GetStrVal()))
		return
	}
	c.PortNumber(p, v.GetIntVal())
}

func checkServiceAffinity(c *rules.Checker, p *field.Path, s *corev1.ServiceSpec) {
	if s.GetSessionAffinity() == AffinityNone && s.GetSessionAffinityConfig() != nil {
		c.Forbidden(p.Child("sessionAffinityConfig"), "must not be set when session affinity is None")
	}
}

func checkServiceAddresses(c *rules.Checker, p *field.Path, s *corev1.ServiceSpec) {
	if s.GetType() == ServiceExternalName {
		const why = "may not be set for ExternalName services"
		if s.GetClusterIp() != "" {
			c.Forbidden(p.Child("clusterIP"), why)
		}
		if len(s.GetClusterIps()) > 0 {
			c.Forbidden(p.Child("clusterIPs"), why)
		}
		if len(s.GetIpFamilies()) > 0 {
			c.Forbidden(p.Child("ipFamilies"), why)
		}
		if s.IpFamilyPolicy != nil {
			c.Forbidden(p.Child("ipFamilyPolicy"), why)
		}
	} else {
		checkClusterIPs(c, p, s)
	}
	for i, text := range s.GetExternalIps() {
		at := p.Child("externalIPs").Index(i)
		if ip, err := netip.ParseAddr(text); err == nil {
			discovery.CheckReachable(c, at, text, ip)
		}
	}
}

func checkClusterIPs(c *rules.Checker, p *field.Path, s *corev1.ServiceSpec) {
	checkFamilies(c, p, s)
	if s.GetClusterIp() == ClusterIPNone && isExternal(s) {
		c.Invalid(p.Child("clusterIP"), s.GetClusterIp(), fmt.Sprintf("may not be set to 'None' for %s services", s.GetType()))
	}
}

func checkServicePolicies(c *rules.Checker, p *field.Path, s *corev1.ServiceSpec) {
	const onlyLoadBalancer = "may only be used when `type` is 'LoadBalancer'"
	if !isExternal(s) && s.GetExternalTrafficPolicy() != "" {
		c.Invalid(p.Child("externalTrafficPolicy"), s.GetExternalTrafficPolicy(), "may only be set for externally-accessible services")
	}
	if n := s.GetHealthCheckNodePort(); n != 0 {
		switch {
		case !needsHealthCheckNodePort(s):
			c.Invalid(p.Child("healthCheckNodePort"), n, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")
		case n < MinNodePort || n > MaxNodePort:
			c.Invalid(p.Child("healthCheckNodePort"), n,
				fmt.Sprintf("provided port is not in the valid range. The range of valid ports is %d-%d", MinNodePort, MaxNodePort))
		}
	}
	if s.GetType() != ServiceLoadBalancer {
		if len(s.GetLoadBalancerSourceRanges()) > 0 {
			c.Forbidden(p.Child("loadBalancerSourceRanges"), onlyLoadBalancer)
		}
		if s.LoadBalancerClass != nil {
			c.Forbidden(p.Child("loadBalancerClass"), onlyLoadBalancer)
		}
		if s.AllocateLoadBalancerNodePorts != nil {
			c.Forbidden(p.Child("allocateLoadBalancerNodePorts"), onlyLoadBalancer)
		}
		return
	}
	for i, r := range s.GetLoadBalancerSourceRanges() {
		c.CIDR(p.Child("loadBalancerSourceRanges").Index(i), strings.TrimSpace(r))
	}
}

func checkServiceUpdate(new, old *corev1.Service, c *rules.Checker) {
	s, was := new.GetSpec(), old.GetSpec()
	if s.GetType() == ServiceLoadBalancer && was.GetType() == ServiceLoadBalancer && !rules.Equal(s.LoadBalancerClass, was.LoadBalancerClass) {
		c.Invalid(field.NewPath("spec", "loadBalancerClass"), s.GetLoadBalancerClass(), "may not change once set")
	}
	if new.GetSpec().GetType() == ServiceExternalName || old.GetSpec().GetType() == ServiceExternalName {
		return
	}
	if needsHealthCheckNodePort(new.GetSpec()) && needsHealthCheckNodePort(old.GetSpec()) && old.GetSpec().GetHealthCheckNodePort() != 0 {
		rules.Unchanged(c, field.NewPath("spec", "healthCheckNodePort"),
			new.GetSpec().GetHealthCheckNodePort(), old.GetSpec().GetHealthCheckNodePort())
	}
	if was := old.GetSpec().GetClusterIp(); was != "" {
		rules.Unchanged(c, field.NewPath("spec", "clusterIP"), new.GetSpec().GetClusterIp(), was)
	}
	checkFamiliesUpdate(c, field.NewPath("spec"), new.GetSpec(), old.GetSpec())
}

// How traffic for an address of a load balancer arrives at nodes.
const (
	ipModeVIP   = "VIP"
	ipModeProxy = "Proxy"
)

// checkServiceStatus checks the addresses of a load balancer as Kubernetes does. Invalid ones that
// were there before may stay.
func checkServiceStatus(new, old *corev1.Service, c *rules.Checker) {
	p, ingress := field.NewPath("status", "loadBalancer", "ingress"), new.GetStatus().GetLoadBalancer().GetIngress()
	if new.GetSpec().GetType() != ServiceLoadBalancer && len(ingress) > 0 {
		c.Forbidden(p, "may only be used when `spec.type` is 'LoadBalancer'")
		return
	}
	known := ips(old.GetStatus().GetLoadBalancer().GetIngress())
	for i, x := range ingress {
		at := p.Index(i)
		if x.GetIp() != "" {
			c.List = append(c.List, validation.IsValidIPForLegacyField(at.Child("ip"), x.GetIp(), true, known)...)
		}
		switch mode := at.Child("ipMode"); {
		case x.IpMode == nil && x.GetIp() != "":
			c.Required(mode, "must be specified when `ip` is set")
		case x.IpMode != nil && x.GetIp() == "":
			c.Forbidden(mode, "may not be specified when `ip` is not set")
		case x.IpMode != nil && x.GetIpMode() != ipModeVIP && x.GetIpMode() != ipModeProxy:
			c.Add(field.NotSupported(mode, x.GetIpMode(), []string{ipModeProxy, ipModeVIP}))
		}
		if name := x.GetHostname(); name != "" {
			c.Each(at.Child("hostname"), name, validation.IsDNS1123Subdomain(name))
			if len(validation.IsValidIPForLegacyField(at, name, false, nil)) == 0 {
				c.Invalid(at.Child("hostname"), name, "must be a DNS name, not an IP address")
			}
		}
	}
}
