package core

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// What taints do to pods that do not tolerate them.
const (
	TaintNoSchedule       = "NoSchedule"
	TaintPreferNoSchedule = "PreferNoSchedule"
	TaintNoExecute        = "NoExecute"
)

// Taints of nodes that run short of a resource, as in Kubernetes.
const (
	TaintMemoryPressure = "node.kubernetes.io/memory-pressure"
	TaintDiskPressure   = "node.kubernetes.io/disk-pressure"
	TaintPIDPressure    = "node.kubernetes.io/pid-pressure"
)

// Taints of nodes in other conditions, as in Kubernetes.
const (
	TaintNotReady           = "node.kubernetes.io/not-ready"
	TaintUnreachable        = "node.kubernetes.io/unreachable"
	TaintUnschedulable      = "node.kubernetes.io/unschedulable"
	TaintNetworkUnavailable = "node.kubernetes.io/network-unavailable"
)

// Types of node condition and address, and the labels that name a node's roles.
const (
	NodeReady = "Ready"

	NodeInternalIP = "InternalIP"
	NodeExternalIP = "ExternalIP"
	NodeHostname   = "Hostname"

	LabelNodeRolePrefix = "node-role.kubernetes.io/"
	LabelNodeRole       = "kubernetes.io/role"
)

// Labels that say what a node is and which failure domain it is in.
const (
	LabelHostname = "kubernetes.io/hostname"
	LabelArch     = "kubernetes.io/arch"
	LabelOS       = "kubernetes.io/os"
	LabelZone     = "topology.kubernetes.io/zone"
	LabelRegion   = "topology.kubernetes.io/region"
)

// AnnotationPodCIDRs has, on a node that registers again, the pod ranges that it had before its
// object was deleted, separated by commas: its pods have addresses in them. The nodes service
// assigns those that are free.
const AnnotationPodCIDRs = "xebec.io/pod-cidrs"

// The labels of Kubernetes' own domains that a node may set on itself, and the domains of which it
// may set any.
var (
	nodeOwnLabels = []string{
		LabelHostname, LabelArch, LabelOS, "beta.kubernetes.io/arch", "beta.kubernetes.io/os",
		"node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type",
		LabelZone, LabelRegion,
		"failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
	}
	nodeOwnDomains = []string{"kubelet.kubernetes.io", "node.kubernetes.io"}
)

// NodeMaySetLabel reports whether a node may set a label on itself, as Kubernetes' NodeRestriction
// has it: any but those under kubernetes.io and k8s.io, node-restriction.kubernetes.io among them,
// and of those the ones that kubelets set. Administrators set the others, such as
// node-role.kubernetes.io/worker.
func NodeMaySetLabel(key string) bool {
	domain, _, prefixed := strings.Cut(key, "/")
	within := func(parent string) bool { return domain == parent || strings.HasSuffix(domain, "."+parent) }
	switch {
	case !prefixed || !within("kubernetes.io") && !within("k8s.io"):
		return true
	case within("node-restriction.kubernetes.io"):
		return false
	}
	return slices.Contains(nodeOwnLabels, key) || slices.ContainsFunc(nodeOwnDomains, within)
}

var (
	nodeRules = rules.For[*corev1.Node]{
		Name:        rules.NameIsSubdomain,
		KeepsStatus: true,
		Defaults:    defaultNode,
		Check:       checkNode,
		CheckUpdate: checkNodeUpdate,
		CheckStatus: func(new, _ *corev1.Node, c *rules.Checker) { checkNodeStatus(new.GetStatus(), c) },
	}
	nodeColumns = []scheme.Column{
		column.New("STATUS", nodeStatus),
		column.New("ROLES", nodeRoles),
		column.AgeColumn,
		column.At(".status.nodeInfo.kubeletVersion", column.New("VERSION", func(n *corev1.Node) string {
			return n.GetStatus().GetNodeInfo().GetKubeletVersion()
		})),
		column.Wide("INTERNAL-IP", func(n *corev1.Node) string { return column.OrNone(NodeAddress(n, NodeInternalIP)) }),
		column.Wide("EXTERNAL-IP", func(n *corev1.Node) string { return column.OrNone(NodeAddress(n, NodeExternalIP)) }),
		column.Wide("OS-IMAGE", func(n *corev1.Node) string { return orUnknown(n.GetStatus().GetNodeInfo().GetOsImage()) }),
		column.Wide("KERNEL-VERSION", func(n *corev1.Node) string { return orUnknown(n.GetStatus().GetNodeInfo().GetKernelVersion()) }),
		column.Wide("CONTAINER-RUNTIME", func(n *corev1.Node) string {
			return orUnknown(n.GetStatus().GetNodeInfo().GetContainerRuntimeVersion())
		}),
	}
	nodeFields = map[string][]protowire.Number{"spec.unschedulable": {2, 4}}
)

// NodeAddress is the node's first address of a type, empty when it has none.
func NodeAddress(n *corev1.Node, typ string) string {
	for _, a := range n.GetStatus().GetAddresses() {
		if a.GetType() == typ {
			return a.GetAddress()
		}
	}
	return ""
}

// LabelHollow marks nodes that are simulated: they have no agent to call and no service maps.
const LabelHollow = "xebec.io/hollow"

// defaultAgentPort is the port of an agent whose node's status has none.
const defaultAgentPort = 10250

// AgentAddress returns the address of a node's agent as host:port; false while the node has no
// internal address.
func AgentAddress(n *corev1.Node) (string, bool) {
	host := NodeAddress(n, "InternalIP")
	if host == "" {
		return "", false
	}
	port := int(n.GetStatus().GetDaemonEndpoints().GetKubeletEndpoint().GetPort())
	if port == 0 {
		port = defaultAgentPort
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), true
}

// NodeCondition is the node's condition of a type, nil when it has none.
func NodeCondition(n *corev1.Node, typ string) *corev1.NodeCondition {
	for _, c := range n.GetStatus().GetConditions() {
		if c.GetType() == typ {
			return c
		}
	}
	return nil
}

func nodeStatus(n *corev1.Node) string {
	s := "Unknown"
	if c := NodeCondition(n, NodeReady); c.GetStatus() == condition.True {
		s = "Ready"
	} else if c != nil {
		s = "NotReady"
	}
	if n.GetSpec().GetUnschedulable() {
		s += ",SchedulingDisabled"
	}
	return s
}

func nodeRoles(n *corev1.Node) string {
	var roles []string
	for key, value := range n.GetMetadata().GetLabels() {
		if role, ok := strings.CutPrefix(key, LabelNodeRolePrefix); ok && role != "" {
			roles = append(roles, role)
		} else if key == LabelNodeRole && value != "" {
			roles = append(roles, value)
		}
	}
	slices.Sort(roles)
	return column.OrNone(slices.Compact(roles)...)
}

func orUnknown(s string) string {
	if s == "" {
		return column.Unknown
	}
	return s
}

func defaultNode(n *corev1.Node) {
	if s := n.GetSpec(); s != nil {
		switch {
		case s.GetPodCidr() == "" && len(s.GetPodCidrs()) > 0:
			s.PodCidr = s.GetPodCidrs()[0]
		case s.GetPodCidr() != "" && len(s.GetPodCidrs()) == 0:
			s.PodCidrs = []string{s.GetPodCidr()}
		}
	}
	if s := n.GetStatus(); s != nil && s.Allocatable == nil && s.Capacity != nil {
		s.Allocatable = map[string]*metav1.Quantity{}
		for name, q := range s.GetCapacity() {
			s.Allocatable[name] = proto.CloneOf(q)
		}
	}
}

func checkNode(n *corev1.Node, c *rules.Checker) {
	spec := field.NewPath("spec")
	cidrs := n.GetSpec().GetPodCidrs()
	if len(cidrs) > 0 && n.GetSpec().GetPodCidr() != cidrs[0] {
		c.Invalid(spec.Child("podCIDRs").Index(0), cidrs[0], "must equal spec.podCIDR")
	}
	var parsed []netip.Prefix
	for _, cidr := range cidrs {
		if p, err := netip.ParsePrefix(cidr); err == nil {
			parsed = append(parsed, p)
		}
	}
	if len(parsed) == 2 && parsed[0].Addr().Is4() == parsed[1].Addr().Is4() {
		c.Invalid(spec.Child("podCIDRs"), cidrs, "may specify no more than one CIDR for each IP family")
	}
	checkNodeStatus(n.GetStatus(), c)
}

// maxFeatureName is how long the name of a feature that a node declares may be.
const maxFeatureName = 253

var featureName = regexp.MustCompile(`^[A-Z][a-zA-Z0-9]*(/[a-zA-Z][a-zA-Z0-9]*)*$`)

func checkNodeStatus(s *corev1.NodeStatus, c *rules.Checker) {
	status := field.NewPath("status")
	checkAmounts(c, status.Child("capacity"), s.GetCapacity())
	checkAmounts(c, status.Child("allocatable"), s.GetAllocatable())
	for i, name := range s.GetDeclaredFeatures() {
		if len(name) > maxFeatureName || !featureName.MatchString(name) {
			c.Invalid(status.Child("declaredFeatures").Index(i), name,
				fmt.Sprintf("invalid feature name %q: must start with an UpperCamelCase segment, with subsequent segments"+
					" separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes", name))
		}
	}
}

func checkNodeUpdate(new, old *corev1.Node, c *rules.Checker) {
	spec := field.NewPath("spec")
	// A second range may be added when the cluster becomes dual-stack.
	was, now := old.GetSpec().GetPodCidrs(), new.GetSpec().GetPodCidrs()
	if len(was) > 0 && !slices.Equal(was, now[:min(len(was), len(now))]) {
		c.Forbidden(spec.Child("podCIDRs"), `node updates may not change podCIDR except from "" to valid`)
	}
	if new.GetSpec().GetExternalId() != old.GetSpec().GetExternalId() {
		c.Forbidden(spec.Child("externalID"), "may not be updated")
	}
	if s := new.GetSpec().GetConfigSource(); s != nil {
		checkConfigSource(c, spec.Child("configSource"), s)
	}
	if was := old.GetSpec().GetProviderId(); was != "" && was != new.GetSpec().GetProviderId() {
		c.Forbidden(spec.Child("providerID"), `node updates may not change providerID except from "" to valid`)
	}
}

// checkConfigSource checks a source of configuration, which has no effect. Kubernetes checks it
// only in updates.
func checkConfigSource(c *rules.Checker, p *field.Path, s *corev1.NodeConfigSource) {
	m := s.GetConfigMap()
	if m == nil {
		c.Invalid(p, "", "exactly one reference subfield must be non-nil")
		return
	}
	p = p.Child("configMap")
	if m.GetUid() != "" {
		c.Forbidden(p.Child("uid"), "uid must not be set in spec")
	}
	if m.GetResourceVersion() != "" {
		c.Forbidden(p.Child("resourceVersion"), "resourceVersion must not be set in spec")
	}
	for _, required := range []struct {
		name, value string
		check       func(string) []string
	}{
		{"namespace", m.GetNamespace(), rules.NameIsLabel},
		{"name", m.GetName(), rules.NameIsSubdomain},
		{"kubeletConfigKey", m.GetKubeletConfigKey(), validation.IsConfigMapKey},
	} {
		if required.value == "" {
			c.Required(p.Child(required.name), required.name+" must be set in spec")
			continue
		}
		c.Each(p.Child(required.name), required.value, required.check(required.value))
	}
}
