package core

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/schema"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	// maxDNSSearchLength is how long the search list of resolvers can be.
	maxDNSSearchLength = 2048

	// maxPriority is the limit above which priorities are reserved for system classes.
	maxPriority = 1_000_000_000
)

// checkPodSpec checks the spec of a pod or of a template, after defaulting.
func checkPodSpec(c *rules.Checker, p *field.Path, s *corev1.PodSpec) {
	if s == nil {
		c.Required(p, "")
		return
	}
	volumes := checkVolumes(c, p.Child("volumes"), s.GetVolumes())
	checkContainers(c, p, s, volumes)
	checkPodResources(c, p, s)

	checkPodDNS(c, p, s)
	checkPodHost(c, p, s)
	checkPodScheduling(c, p, s)
	checkPodSecurity(c, p.Child("securityContext"), s)

	for i, r := range s.GetImagePullSecrets() {
		c.ObjectName(p.Child("imagePullSecrets").Index(i).Child("name"), r.GetName())
	}
	if g := s.GetSchedulingGroup(); g != nil && g.PodGroupName == nil {
		c.Invalid(p.Child("schedulingGroup", "podGroupName"), nil, "must specify one of: `podGroupName`")
	}
	if len(s.GetOverhead()) > 0 {
		CheckResources(c, p.Child("overhead"), &corev1.ResourceRequirements{Limits: s.GetOverhead()})
	}
	if s.GetOs().GetName() == "linux" {
		checkNoWindows(c, p, s)
	}
}

// checkNoWindows refuses settings for Windows in a pod whose os is linux. In other pods they are
// accepted and have no effect.
func checkNoWindows(c *rules.Checker, p *field.Path, s *corev1.PodSpec) {
	const why = "cannot be set for a linux pod"
	if s.GetSecurityContext().GetWindowsOptions() != nil {
		c.Forbidden(p.Child("securityContext", "windowsOptions"), why)
	}
	containers := func(p *field.Path, containers []*corev1.Container) {
		for i, container := range containers {
			if container.GetSecurityContext().GetWindowsOptions() != nil {
				c.Forbidden(p.Index(i).Child("securityContext", "windowsOptions"), why)
			}
		}
	}
	containers(p.Child("initContainers"), s.GetInitContainers())
	containers(p.Child("containers"), s.GetContainers())
}

func checkPodDNS(c *rules.Checker, p *field.Path, s *corev1.PodSpec) {
	config := p.Child("dnsConfig")
	d := s.GetDnsConfig()
	if s.GetDnsPolicy() == DNSNone && len(d.GetNameservers()) == 0 {
		c.Required(config.Child("nameservers"), fmt.Sprintf("must provide at least one DNS nameserver when `dnsPolicy` is %s", DNSNone))
	}
	if len(strings.Join(d.GetSearches(), " ")) > maxDNSSearchLength {
		c.Invalid(config.Child("searches"), d.GetSearches(),
			fmt.Sprintf("must not have more than %d characters (including spaces) in the search list", maxDNSSearchLength))
	}
	for i, domain := range d.GetSearches() {
		// A single dot is the root domain, which disables the search.
		if name := strings.TrimSuffix(domain, "."); domain != "." {
			c.Each(config.Child("searches").Index(i), domain, validation.IsDNS1123SubdomainWithUnderscore(name))
		}
	}
}

func checkPodHost(c *rules.Checker, p *field.Path, s *corev1.PodSpec) {
	if s.HostnameOverride != nil {
		checkHostnameOverride(c, p.Child("hostnameOverride"), s)
	}
	if s.HostUsers != nil && !s.GetHostUsers() {
		for _, host := range []struct {
			name string
			set  bool
		}{{"hostNetwork", s.GetHostNetwork()}, {"HostPID", s.GetHostPid()}, {"HostIPC", s.GetHostIpc()}} {
			if host.set {
				c.Forbidden(p.Child(host.name), "when `hostUsers` is false")
			}
		}
	}
	checkSleepFits(c, p, s)
	if s.GetShareProcessNamespace() && s.GetHostPid() {
		c.Invalid(p.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled")
	}
	if s.GetHostNetwork() {
		for i, container := range s.GetContainers() {
			for j, port := range container.GetPorts() {
				if port.GetHostPort() != port.GetContainerPort() {
					c.Invalid(p.Child("containers").Index(i).Child("ports").Index(j).Child("hostPort"), port.GetHostPort(),
						"must match `containerPort` when `hostNetwork` is true")
				}
			}
		}
	}
}

// checkSleepFits refuses hooks that sleep longer than the termination grace period.
func checkSleepFits(c *rules.Checker, p *field.Path, s *corev1.PodSpec) {
	hook := func(p *field.Path, h *corev1.LifecycleHandler) {
		if n := h.GetSleep().GetSeconds(); h.GetSleep() != nil && (n < 0 || n > s.GetTerminationGracePeriodSeconds()) {
			c.Invalid(p.Child("sleep"), n,
				fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", s.GetTerminationGracePeriodSeconds()))
		}
	}
	for _, list := range []struct {
		name string
		of   []*corev1.Container
	}{{"initContainers", s.GetInitContainers()}, {"containers", s.GetContainers()}} {
		for i, x := range list.of {
			at := p.Child(list.name).Index(i).Child("lifecycle")
			hook(at.Child("postStart"), x.GetLifecycle().GetPostStart())
			hook(at.Child("preStop"), x.GetLifecycle().GetPreStop())
		}
	}
}

// maxHostname is how long a host name may be for the kernel.
const maxHostname = 64

func checkHostnameOverride(c *rules.Checker, p *field.Path, s *corev1.PodSpec) {
	name := s.GetHostnameOverride()
	c.Each(p, name, validation.IsDNS1123Subdomain(name))
	if len(name) > maxHostname {
		c.Add(field.TooLong(p, name, maxHostname))
	}
	if s.GetHostNetwork() {
		c.Invalid(p, name, "may not be specified when hostNetwork is true")
	}
	if s.GetSetHostnameAsFqdn() {
		c.Invalid(p, name, "may not be specified when setHostnameAsFQDN is true")
	}
}

func checkPodSecurity(c *rules.Checker, p *field.Path, s *corev1.PodSpec) {
	sc := s.GetSecurityContext()
	if sc == nil {
		return
	}
	checkSysctls(c, p.Child("sysctls"), s)
	checkSeccomp(c, p.Child("seccompProfile"), sc.GetSeccompProfile())
	checkAppArmor(c, p.Child("appArmorProfile"), sc.GetAppArmorProfile())
}

func checkSeccomp(c *rules.Checker, p *field.Path, s *corev1.SeccompProfile) {
	if s.GetType() == "" {
		return
	}
	switch {
	case s.GetType() == "Localhost" && s.GetLocalhostProfile() == "":
		c.Required(p.Child("localhostProfile"), "must be set when seccomp type is Localhost")
	case s.GetType() != "Localhost" && s.LocalhostProfile != nil:
		c.Invalid(p.Child("localhostProfile"), s.GetLocalhostProfile(), "can only be set when seccomp type is Localhost")
	}
}

func checkPodScheduling(c *rules.Checker, p *field.Path, s *corev1.PodSpec) {
	CheckTolerations(c, p.Child("tolerations"), s.GetTolerations())
	checkAffinity(c, p.Child("affinity"), s.GetAffinity())
	checkTopologySpread(c, p.Child("topologySpreadConstraints"), s.GetTopologySpreadConstraints())
	if n := s.GetPriorityClassName(); n != "" {
		if !strings.HasPrefix(n, "system-") && s.GetPriority() > maxPriority {
			c.Forbidden(p.Child("priority"), fmt.Sprintf("must not be greater than %d for classes that are not the system's", maxPriority))
		}
	}
}

// CheckTolerations checks the tolerations of a pod or of a runtime class.
func CheckTolerations(c *rules.Checker, p *field.Path, all []*corev1.Toleration) {
	for i, t := range all {
		at := p.Index(i)
		if t.GetKey() != "" {
			c.Each(at.Child("key"), t.GetKey(), validation.IsQualifiedName(t.GetKey()))
		} else if t.GetOperator() != object.OpExists {
			c.Invalid(at.Child("operator"), t.GetOperator(),
				"operator must be Exists when `key` is empty, which means \"match all values and all keys\"")
		}
		if t.TolerationSeconds != nil && t.GetEffect() != TaintNoExecute {
			c.Invalid(at.Child("effect"), t.GetEffect(), "effect must be 'NoExecute' when `tolerationSeconds` is set")
		}
		switch t.GetOperator() {
		case "", "Equal":
			c.Each(at.Child("value"), t.GetValue(), validation.IsValidLabelValue(t.GetValue()))
		case object.OpExists:
			if t.GetValue() != "" {
				c.Invalid(at.Child("operator"), t.GetValue(), "value must be empty when `operator` is 'Exists'")
			}
		default:
			c.Add(field.NotSupported(at.Child("operator"), t.GetOperator(), []string{"Equal", object.OpExists}))
		}
	}
}

func checkAffinity(c *rules.Checker, p *field.Path, a *corev1.Affinity) {
	const required, preferred = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"

	node := p.Child("nodeAffinity")
	CheckNodeSelector(c, node.Child(required), a.GetNodeAffinity().GetRequiredDuringSchedulingIgnoredDuringExecution())
	for i, t := range a.GetNodeAffinity().GetPreferredDuringSchedulingIgnoredDuringExecution() {
		at := node.Child(preferred).Index(i)
		checkNodeTerm(c, at.Child("preference"), t.GetPreference())
	}
	pods := func(p *field.Path, musts []*corev1.PodAffinityTerm, wishes []*corev1.WeightedPodAffinityTerm) {
		for i, t := range musts {
			checkPodTerm(c, p.Child(required).Index(i), t)
		}
		for i, t := range wishes {
			at := p.Child(preferred).Index(i)
			checkPodTerm(c, at.Child("podAffinityTerm"), t.GetPodAffinityTerm())
		}
	}
	pods(p.Child("podAffinity"), a.GetPodAffinity().GetRequiredDuringSchedulingIgnoredDuringExecution(),
		a.GetPodAffinity().GetPreferredDuringSchedulingIgnoredDuringExecution())
	pods(p.Child("podAntiAffinity"), a.GetPodAntiAffinity().GetRequiredDuringSchedulingIgnoredDuringExecution(),
		a.GetPodAntiAffinity().GetPreferredDuringSchedulingIgnoredDuringExecution())
}

// CheckNodeSelector checks the terms of a selector of nodes that must hold.
func CheckNodeSelector(c *rules.Checker, p *field.Path, s *corev1.NodeSelector) {
	terms := p.Child("nodeSelectorTerms")
	for i, t := range s.GetNodeSelectorTerms() {
		checkNodeTerm(c, terms.Index(i), t)
		checkLabelValues(c, terms.Index(i), t)
	}
}

// checkLabelValues checks that labels can have the values of a required term. Kubernetes does not
// check those of preferred terms; such a term matches no node.
func checkLabelValues(c *rules.Checker, p *field.Path, t *corev1.NodeSelectorTerm) {
	for i, r := range t.GetMatchExpressions() {
		for j, v := range r.GetValues() {
			c.Each(p.Child("matchExpressions").Index(i).Child("values").Index(j), v, validation.IsValidLabelValue(v))
		}
	}
}

func checkNodeTerm(c *rules.Checker, p *field.Path, t *corev1.NodeSelectorTerm) {
	requirement := func(p *field.Path, r *corev1.NodeSelectorRequirement) {
		values := p.Child("values")
		switch r.GetOperator() {
		case object.OpIn, object.OpNotIn:
			if len(r.GetValues()) == 0 {
				c.Required(values, "must be specified when `operator` is 'In' or 'NotIn'")
			}
		case object.OpExists, object.OpDoesNotExist:
			if len(r.GetValues()) > 0 {
				c.Forbidden(values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
			}
		case object.OpGt, object.OpLt:
			if len(r.GetValues()) != 1 {
				c.Required(values, "must be specified single value when `operator` is 'Lt' or 'Gt'")
			}
		default:
			c.Invalid(p.Child("operator"), r.GetOperator(), "not a valid selector operator")
		}
	}
	for i, r := range t.GetMatchExpressions() {
		at := p.Child("matchExpressions").Index(i)
		c.Each(at.Child("key"), r.GetKey(), validation.IsQualifiedName(r.GetKey()))
		requirement(at, r)
	}
	for i, r := range t.GetMatchFields() {
		at := p.Child("matchFields").Index(i)
		if r.GetKey() != "metadata.name" {
			c.Invalid(at.Child("key"), r.GetKey(), "not a valid field selector key")
		}
		if r.GetOperator() != object.OpIn && r.GetOperator() != object.OpNotIn {
			c.Invalid(at.Child("operator"), r.GetOperator(), "not a valid selector operator")
		} else if len(r.GetValues()) != 1 {
			c.Required(at.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector")
		}
		for j, v := range r.GetValues() {
			c.Each(at.Child("values").Index(j), v, validation.IsDNS1123Subdomain(v))
		}
	}
}

func checkPodTerm(c *rules.Checker, p *field.Path, t *corev1.PodAffinityTerm) {
	c.LabelSelector(p.Child("labelSelector"), t.GetLabelSelector())
	c.LabelSelector(p.Child("namespaceSelector"), t.GetNamespaceSelector())
	for _, n := range t.GetNamespaces() {
		c.Each(p.Child("namespace"), n, validation.IsDNS1123Label(n))
	}
	checkLabelKeys(c, p.Child("matchLabelKeys"), t.GetMatchLabelKeys(), t.GetLabelSelector())
	checkLabelKeys(c, p.Child("mismatchLabelKeys"), t.GetMismatchLabelKeys(), t.GetLabelSelector())
	checkKeysOnce(c, p, t.GetMatchLabelKeys(), t.GetLabelSelector())
	for i, key := range t.GetMatchLabelKeys() {
		if slices.Contains(t.GetMismatchLabelKeys(), key) {
			c.Invalid(p.Child("matchLabelKeys").Index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys")
		}
	}
}

// checkLabelKeys checks label keys whose values are taken from the pod.
func checkLabelKeys(c *rules.Checker, p *field.Path, keys []string, s *metav1.LabelSelector) {
	if len(keys) > 0 && s == nil {
		c.Forbidden(p, "must not be specified when labelSelector is not set")
		return
	}
	for i, key := range keys {
		c.Each(p.Index(i), key, validation.IsQualifiedName(key))
	}
}

func checkTopologySpread(c *rules.Checker, p *field.Path, all []*corev1.TopologySpreadConstraint) {
	seen := rules.Names{}
	for i, t := range all {
		at := p.Index(i)
		c.Unique(at.Child("{topologyKey, whenUnsatisfiable}"), seen, fmt.Sprintf("{%s, %s}", t.GetTopologyKey(), t.GetWhenUnsatisfiable()))
		if t.MinDomains != nil {
			if t.GetWhenUnsatisfiable() != "DoNotSchedule" {
				c.Invalid(at.Child("minDomains"), t.GetMinDomains(),
					fmt.Sprintf("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not %s", t.GetWhenUnsatisfiable()))
			}
		}
		checkLabelKeys(c, at.Child("matchLabelKeys"), t.GetMatchLabelKeys(), t.GetLabelSelector())
		checkKeysOnce(c, at, t.GetMatchLabelKeys(), t.GetLabelSelector())
		c.LabelSelector(at.Child("labelSelector"), t.GetLabelSelector())
	}
}

// differing names the first place where two messages of one type differ, as a path below p.
func differing(p *field.Path, a, b proto.Message) string {
	x, y := a.ProtoReflect(), b.ProtoReflect()
	for _, f := range rules.FieldsOf(x) {
		if x.Has(f) == y.Has(f) && (!x.Has(f) || x.Get(f).Equal(y.Get(f))) {
			continue
		}
		at := p
		if !schema.RulesOf(f).GetInline() {
			at = p.Child(f.JSONName())
		}
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
