package kind

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	// maxDNSServers, maxDNSSearches and maxDNSSearchLength are what resolvers can use.
	maxDNSServers      = 3
	maxDNSSearches     = 32
	maxDNSSearchLength = 2048

	// maxPriority is where the priorities of the system's own classes begin.
	maxPriority = 1_000_000_000
)

// podSpec checks the spec of a pod or of a template, after defaulting.
func (c *checker) podSpec(p *field.Path, s *corev1.PodSpec) {
	if s == nil {
		c.required(p, "")
		return
	}
	volumes := c.volumes(p.Child("volumes"), s.GetVolumes())
	c.containers(p, s, volumes)
	c.podResources(p, s)

	c.oneOf(p.Child("restartPolicy"), s.GetRestartPolicy(), RestartAlways, RestartOnFailure, RestartNever)
	c.notNegative(p.Child("terminationGracePeriodSeconds"), s.GetTerminationGracePeriodSeconds())
	if s.ActiveDeadlineSeconds != nil && (s.GetActiveDeadlineSeconds() < 1 || s.GetActiveDeadlineSeconds() > 1<<31-1) {
		c.invalid(p.Child("activeDeadlineSeconds"), s.GetActiveDeadlineSeconds(), validation.InclusiveRangeError(1, 1<<31-1))
	}
	c.podDNS(p, s)
	c.podHost(p, s)
	c.podScheduling(p, s)
	c.podSecurity(p.Child("securityContext"), s)

	if n := s.GetServiceAccountName(); n != "" {
		c.each(p.Child("serviceAccountName"), n, validation.IsDNS1123Subdomain(n))
	}
	for i, r := range s.GetImagePullSecrets() {
		c.objectName(p.Child("imagePullSecrets").Index(i).Child("name"), r.GetName())
	}
	for i, g := range s.GetReadinessGates() {
		c.each(p.Child("readinessGates").Index(i).Child("conditionType"), g.GetConditionType(), validation.IsQualifiedName(g.GetConditionType()))
	}
	if n := s.GetRuntimeClassName(); n != "" {
		c.each(p.Child("runtimeClassName"), n, validation.IsDNS1123Subdomain(n))
	}
	c.amounts(p.Child("overhead"), s.GetOverhead())
	if s.GetOs() != nil {
		switch name := s.GetOs().GetName(); name {
		case "windows":
			c.notYet(p.Child("os", "name"), name, "nodes run Linux")
		case "linux":
			c.noWindows(p, s)
		default:
			c.oneOf(p.Child("os", "name"), name, "linux", "windows")
		}
	}
	c.refused(p, s)
}

// noWindows checks a pod that says that it is for Linux. In one that does not say it, settings for Windows are accepted and
// have no effect.
func (c *checker) noWindows(p *field.Path, s *corev1.PodSpec) {
	const why = "cannot be set for a linux pod"
	if s.GetSecurityContext().GetWindowsOptions() != nil {
		c.forbidden(p.Child("securityContext", "windowsOptions"), why)
	}
	containers := func(p *field.Path, containers []*corev1.Container) {
		for i, container := range containers {
			if container.GetSecurityContext().GetWindowsOptions() != nil {
				c.forbidden(p.Index(i).Child("securityContext", "windowsOptions"), why)
			}
		}
	}
	containers(p.Child("initContainers"), s.GetInitContainers())
	containers(p.Child("containers"), s.GetContainers())
}

func (c *checker) podDNS(p *field.Path, s *corev1.PodSpec) {
	c.oneOf(p.Child("dnsPolicy"), s.GetDnsPolicy(), DNSClusterFirstWithHostNet, DNSClusterFirst, DNSDefault, DNSNone)
	config := p.Child("dnsConfig")
	d := s.GetDnsConfig()
	if s.GetDnsPolicy() == DNSNone && len(d.GetNameservers()) == 0 {
		c.required(config.Child("nameservers"), fmt.Sprintf("must provide at least one DNS nameserver when `dnsPolicy` is %s", DNSNone))
	}
	if n := len(d.GetNameservers()); n > maxDNSServers {
		c.add(field.TooMany(config.Child("nameservers"), n, maxDNSServers))
	}
	for i, ip := range d.GetNameservers() {
		c.ip(config.Child("nameservers").Index(i), ip)
	}
	if n := len(d.GetSearches()); n > maxDNSSearches {
		c.add(field.TooMany(config.Child("searches"), n, maxDNSSearches))
	}
	if len(strings.Join(d.GetSearches(), " ")) > maxDNSSearchLength {
		c.invalid(config.Child("searches"), d.GetSearches(), fmt.Sprintf("must not have more than %d characters (including spaces) in the search list", maxDNSSearchLength))
	}
	for i, domain := range d.GetSearches() {
		// A lone dot is the root, which some use to switch the search off.
		if name := strings.TrimSuffix(domain, "."); domain != "." {
			c.each(config.Child("searches").Index(i), domain, validation.IsDNS1123SubdomainWithUnderscore(name))
		}
	}
	for i, o := range d.GetOptions() {
		if o.GetName() == "" {
			c.required(config.Child("options").Index(i).Child("name"), "must not be empty")
		}
	}
}

func (c *checker) podHost(p *field.Path, s *corev1.PodSpec) {
	if h := s.GetHostname(); h != "" {
		c.each(p.Child("hostname"), h, validation.IsDNS1123Label(h))
	}
	if d := s.GetSubdomain(); d != "" {
		c.each(p.Child("subdomain"), d, validation.IsDNS1123Label(d))
	}
	if s.HostnameOverride != nil && s.GetHostnameOverride() != "" {
		c.each(p.Child("hostnameOverride"), s.GetHostnameOverride(), validation.IsDNS1123Subdomain(s.GetHostnameOverride()))
	}
	for i, a := range s.GetHostAliases() {
		at := p.Child("hostAliases").Index(i)
		c.ip(at.Child("ip"), a.GetIp())
		for j, name := range a.GetHostnames() {
			c.each(at.Child("hostnames").Index(j), name, validation.IsDNS1123Subdomain(name))
		}
	}
	if s.GetShareProcessNamespace() && s.GetHostPid() {
		c.invalid(p.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled")
	}
	if s.GetHostNetwork() {
		for i, container := range s.GetContainers() {
			for j, port := range container.GetPorts() {
				if port.GetHostPort() != port.GetContainerPort() {
					c.invalid(p.Child("containers").Index(i).Child("ports").Index(j).Child("hostPort"), port.GetHostPort(),
						"must match `containerPort` when `hostNetwork` is true")
				}
			}
		}
	}
}

func (c *checker) podSecurity(p *field.Path, s *corev1.PodSpec) {
	sc := s.GetSecurityContext()
	id := func(name string, n *int64) {
		if n != nil {
			c.each(p.Child(name), *n, validation.IsValidUserID(*n))
		}
	}
	if sc == nil {
		return
	}
	id("runAsUser", sc.RunAsUser)
	id("runAsGroup", sc.RunAsGroup)
	id("fsGroup", sc.FsGroup)
	for i, g := range sc.GetSupplementalGroups() {
		c.each(p.Child("supplementalGroups").Index(i), g, validation.IsValidGroupID(g))
	}
	if sc.FsGroupChangePolicy != nil {
		c.oneOf(p.Child("fsGroupChangePolicy"), sc.GetFsGroupChangePolicy(), "Always", "OnRootMismatch")
	}
	c.sysctls(p.Child("sysctls"), s)
	if sc.SupplementalGroupsPolicy != nil {
		c.oneOf(p.Child("supplementalGroupsPolicy"), sc.GetSupplementalGroupsPolicy(), "Merge", "Strict")
	}
	c.seccomp(p.Child("seccompProfile"), sc.GetSeccompProfile())
	c.appArmor(p.Child("appArmorProfile"), sc.GetAppArmorProfile())
}

func (c *checker) seccomp(p *field.Path, s *corev1.SeccompProfile) {
	if s == nil {
		return
	}
	if !c.oneOf(p.Child("type"), s.GetType(), "Localhost", "RuntimeDefault", "Unconfined") {
		return
	}
	switch {
	case s.GetType() == "Localhost" && s.GetLocalhostProfile() == "":
		c.required(p.Child("localhostProfile"), "must be set when seccomp type is Localhost")
	case s.GetType() != "Localhost" && s.LocalhostProfile != nil:
		c.invalid(p.Child("localhostProfile"), s.GetLocalhostProfile(), "can only be set when seccomp type is Localhost")
	}
}

func (c *checker) podScheduling(p *field.Path, s *corev1.PodSpec) {
	c.labels(p.Child("nodeSelector"), s.GetNodeSelector())
	c.tolerations(p.Child("tolerations"), s.GetTolerations())
	c.affinity(p.Child("affinity"), s.GetAffinity())
	c.topologySpread(p.Child("topologySpreadConstraints"), s.GetTopologySpreadConstraints())
	if n := s.GetSchedulerName(); n != "" {
		c.each(p.Child("schedulerName"), n, validation.IsDNS1123Subdomain(n))
	}
	if n := s.GetNodeName(); n != "" {
		c.each(p.Child("nodeName"), n, validation.IsDNS1123Subdomain(n))
	}
	if n := s.GetPriorityClassName(); n != "" {
		c.each(p.Child("priorityClassName"), n, validation.IsDNS1123Subdomain(n))
		if !strings.HasPrefix(n, "system-") && s.GetPriority() > maxPriority {
			c.forbidden(p.Child("priority"), fmt.Sprintf("must not be greater than %d for classes that are not the system's", maxPriority))
		}
	}
	if s.PreemptionPolicy != nil {
		c.oneOf(p.Child("preemptionPolicy"), s.GetPreemptionPolicy(), "PreemptLowerPriority", "Never")
	}
	seen := names{}
	for i, g := range s.GetSchedulingGates() {
		at := p.Child("schedulingGates").Index(i).Child("name")
		c.each(at, g.GetName(), validation.IsQualifiedName(g.GetName()))
		c.unique(at, seen, g.GetName())
	}
}

func (c *checker) tolerations(p *field.Path, all []*corev1.Toleration) {
	for i, t := range all {
		at := p.Index(i)
		if t.GetKey() != "" {
			c.each(at.Child("key"), t.GetKey(), validation.IsQualifiedName(t.GetKey()))
		} else if t.GetOperator() != OpExists {
			c.invalid(at.Child("operator"), t.GetOperator(), "operator must be Exists when `key` is empty, which means \"match all values and all keys\"")
		}
		if t.TolerationSeconds != nil && t.GetEffect() != TaintNoExecute {
			c.invalid(at.Child("effect"), t.GetEffect(), "effect must be 'NoExecute' when `tolerationSeconds` is set")
		}
		switch t.GetOperator() {
		case "", "Equal":
			c.each(at.Child("value"), t.GetValue(), validation.IsValidLabelValue(t.GetValue()))
		case OpExists:
			if t.GetValue() != "" {
				c.invalid(at.Child("operator"), t.GetValue(), "value must be empty when `operator` is 'Exists'")
			}
		default:
			c.add(field.NotSupported(at.Child("operator"), t.GetOperator(), []string{"Equal", OpExists}))
		}
		c.optionalOneOf(at.Child("effect"), t.GetEffect(), TaintNoSchedule, TaintPreferNoSchedule, TaintNoExecute)
	}
}

func (c *checker) affinity(p *field.Path, a *corev1.Affinity) {
	const required, preferred = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"

	node := p.Child("nodeAffinity")
	if s := a.GetNodeAffinity().GetRequiredDuringSchedulingIgnoredDuringExecution(); s != nil {
		terms := node.Child(required, "nodeSelectorTerms")
		if len(s.GetNodeSelectorTerms()) == 0 {
			c.required(terms, "must have at least one node selector term")
		}
		for i, t := range s.GetNodeSelectorTerms() {
			c.nodeTerm(terms.Index(i), t)
		}
	}
	for i, t := range a.GetNodeAffinity().GetPreferredDuringSchedulingIgnoredDuringExecution() {
		at := node.Child(preferred).Index(i)
		c.weight(at, t.GetWeight())
		c.nodeTerm(at.Child("preference"), t.GetPreference())
	}
	pods := func(p *field.Path, musts []*corev1.PodAffinityTerm, wishes []*corev1.WeightedPodAffinityTerm) {
		for i, t := range musts {
			c.podTerm(p.Child(required).Index(i), t)
		}
		for i, t := range wishes {
			at := p.Child(preferred).Index(i)
			c.weight(at, t.GetWeight())
			c.podTerm(at.Child("podAffinityTerm"), t.GetPodAffinityTerm())
		}
	}
	pods(p.Child("podAffinity"), a.GetPodAffinity().GetRequiredDuringSchedulingIgnoredDuringExecution(),
		a.GetPodAffinity().GetPreferredDuringSchedulingIgnoredDuringExecution())
	pods(p.Child("podAntiAffinity"), a.GetPodAntiAffinity().GetRequiredDuringSchedulingIgnoredDuringExecution(),
		a.GetPodAntiAffinity().GetPreferredDuringSchedulingIgnoredDuringExecution())
}

func (c *checker) weight(p *field.Path, n int32) {
	if n < 1 || n > 100 {
		c.invalid(p.Child("weight"), n, "must be in the range 1-100")
	}
}

func (c *checker) nodeTerm(p *field.Path, t *corev1.NodeSelectorTerm) {
	requirement := func(p *field.Path, r *corev1.NodeSelectorRequirement) {
		values := p.Child("values")
		switch r.GetOperator() {
		case OpIn, OpNotIn:
			if len(r.GetValues()) == 0 {
				c.required(values, "must be specified when `operator` is 'In' or 'NotIn'")
			}
		case OpExists, OpDoesNotExist:
			if len(r.GetValues()) > 0 {
				c.forbidden(values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
			}
		case OpGt, OpLt:
			if len(r.GetValues()) != 1 {
				c.required(values, "must be specified single value when `operator` is 'Lt' or 'Gt'")
			}
		default:
			c.invalid(p.Child("operator"), r.GetOperator(), "not a valid selector operator")
		}
	}
	for i, r := range t.GetMatchExpressions() {
		at := p.Child("matchExpressions").Index(i)
		c.each(at.Child("key"), r.GetKey(), validation.IsQualifiedName(r.GetKey()))
		requirement(at, r)
	}
	for i, r := range t.GetMatchFields() {
		at := p.Child("matchFields").Index(i)
		if r.GetKey() != "metadata.name" {
			c.invalid(at.Child("key"), r.GetKey(), "not a valid field selector key")
		}
		if r.GetOperator() != OpIn && r.GetOperator() != OpNotIn {
			c.invalid(at.Child("operator"), r.GetOperator(), "not a valid selector operator")
		} else if len(r.GetValues()) != 1 {
			c.required(at.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector")
		}
	}
}

func (c *checker) podTerm(p *field.Path, t *corev1.PodAffinityTerm) {
	if t.GetTopologyKey() == "" {
		c.required(p.Child("topologyKey"), "can not be empty")
	}
	if k := t.GetTopologyKey(); k != "" {
		c.each(p.Child("topologyKey"), k, validation.IsQualifiedName(k))
	}
	c.labelSelector(p.Child("labelSelector"), t.GetLabelSelector())
	c.labelSelector(p.Child("namespaceSelector"), t.GetNamespaceSelector())
	for i, n := range t.GetNamespaces() {
		c.each(p.Child("namespaces").Index(i), n, validation.IsDNS1123Label(n))
	}
}

func (c *checker) topologySpread(p *field.Path, all []*corev1.TopologySpreadConstraint) {
	seen := names{}
	for i, t := range all {
		at := p.Index(i)
		if t.GetMaxSkew() <= 0 {
			c.invalid(at.Child("maxSkew"), t.GetMaxSkew(), "must be greater than zero")
		}
		if k := t.GetTopologyKey(); k == "" {
			c.required(at.Child("topologyKey"), "can not be empty")
		} else {
			c.each(at.Child("topologyKey"), k, validation.IsQualifiedName(k))
		}
		c.oneOf(at.Child("whenUnsatisfiable"), t.GetWhenUnsatisfiable(), "DoNotSchedule", "ScheduleAnyway")
		c.unique(at.Child("{topologyKey, whenUnsatisfiable}"), seen, fmt.Sprintf("{%s, %s}", t.GetTopologyKey(), t.GetWhenUnsatisfiable()))
		if t.MinDomains != nil {
			if t.GetMinDomains() <= 0 {
				c.invalid(at.Child("minDomains"), t.GetMinDomains(), "must be greater than zero")
			}
			if t.GetWhenUnsatisfiable() != "DoNotSchedule" {
				c.invalid(at.Child("minDomains"), t.GetMinDomains(), fmt.Sprintf("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not %s", t.GetWhenUnsatisfiable()))
			}
		}
		c.oneOf(at.Child("nodeAffinityPolicy"), t.GetNodeAffinityPolicy(), "Honor", "Ignore")
		c.oneOf(at.Child("nodeTaintsPolicy"), t.GetNodeTaintsPolicy(), "Honor", "Ignore")
		c.labelSelector(at.Child("labelSelector"), t.GetLabelSelector())
	}
}

// differing names the first place where two messages of one type differ, as a path below p.
func differing(p *field.Path, a, b proto.Message) string {
	x, y := a.ProtoReflect(), b.ProtoReflect()
	for _, f := range fieldsOf(x) {
		if x.Has(f) == y.Has(f) && (!x.Has(f) || x.Get(f).Equal(y.Get(f))) {
			continue
		}
		at := p.Child(f.JSONName())
		switch {
		case f.IsMap() || f.Kind() != protoreflect.MessageKind || !x.Has(f) || !y.Has(f):
			return at.String()
		case !f.IsList():
			return differing(at, x.Get(f).Message().Interface(), y.Get(f).Message().Interface())
		}
		u, v := x.Get(f).List(), y.Get(f).List()
		if u.Len() != v.Len() {
			return at.String()
		}
		for i := range u.Len() {
			if !u.Get(i).Equal(v.Get(i)) {
				return differing(at.Index(i), u.Get(i).Message().Interface(), v.Get(i).Message().Interface())
			}
		}
	}
	return p.String()
}
