package kind

import (
	"strings"

	"google.golang.org/protobuf/proto"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Values of container fields.
const (
	PullAlways       = "Always"
	PullIfNotPresent = "IfNotPresent"
	PullNever        = "Never"

	MessageReadFile              = "File"
	MessageFallbackToLogsOnError = "FallbackToLogsOnError"
	DefaultMessagePath           = "/dev/termination-log"

	SchemeHTTP  = "HTTP"
	SchemeHTTPS = "HTTPS"

	// What a mount's recursiveReadOnly says of the mounts below it.
	ReadOnlyBelowDisabled   = "Disabled"
	ReadOnlyBelowIfPossible = "IfPossible"
	ReadOnlyBelowEnabled    = "Enabled"
)

// DNS policies of pods.
const (
	DNSClusterFirst            = "ClusterFirst"
	DNSClusterFirstWithHostNet = "ClusterFirstWithHostNet"
	DNSDefault                 = "Default"
	DNSNone                    = "None"
)

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

// defaultPodSpec fills in the spec of a pod or of a template. The tolerations of unreachable nodes are not added here:
// the nodes service knows how long pods that name none are to wait.
func defaultPodSpec(at **corev1.PodSpec) {
	if *at == nil {
		*at = &corev1.PodSpec{}
	}
	s := *at
	setDefault(&s.RestartPolicy, RestartAlways)
	setDefault(&s.DnsPolicy, DNSClusterFirst)
	setDefault(&s.SchedulerName, DefaultSchedulerName)
	if s.TerminationGracePeriodSeconds == nil {
		s.TerminationGracePeriodSeconds = proto.Int64(DefaultGracePeriod)
	}
	if s.EnableServiceLinks == nil {
		s.EnableServiceLinks = proto.Bool(true)
	}
	if s.SecurityContext == nil {
		s.SecurityContext = &corev1.PodSecurityContext{}
	}
	// Kubernetes keeps the account's name in its old field as well.
	switch {
	case s.GetServiceAccountName() == "":
		s.ServiceAccountName = s.GetServiceAccount()
	default:
		s.ServiceAccount = s.GetServiceAccountName()
	}

	for _, c := range s.GetInitContainers() {
		defaultContainer(c, s.GetHostNetwork())
	}
	for _, c := range s.GetContainers() {
		defaultContainer(c, s.GetHostNetwork())
	}
	defaultPodResources(s)
	for _, e := range s.GetEphemeralContainers() {
		defaultEphemeral(e)
	}
	for _, v := range s.GetVolumes() {
		defaultVolume(v)
	}
	for _, c := range s.GetTopologySpreadConstraints() {
		if c.NodeAffinityPolicy == nil {
			c.NodeAffinityPolicy = proto.String("Honor")
		}
		if c.NodeTaintsPolicy == nil {
			c.NodeTaintsPolicy = proto.String("Ignore")
		}
	}
}

func defaultContainer(c *corev1.Container, hostNetwork bool) {
	if c.GetImagePullPolicy() == "" {
		c.ImagePullPolicy = PullIfNotPresent
		if imageTag(c.GetImage()) == "latest" {
			c.ImagePullPolicy = PullAlways
		}
	}
	setDefault(&c.TerminationMessagePath, DefaultMessagePath)
	setDefault(&c.TerminationMessagePolicy, MessageReadFile)
	for _, p := range c.GetPorts() {
		setDefault(&p.Protocol, ProtocolTCP)
		if hostNetwork && p.GetHostPort() == 0 {
			p.HostPort = p.GetContainerPort()
		}
	}
	for _, e := range c.GetEnv() {
		if ref := e.GetValueFrom().GetFieldRef(); ref != nil {
			setDefault(&ref.ApiVersion, "v1")
		}
		if ref := e.GetValueFrom().GetResourceFieldRef(); ref != nil && ref.GetDivisor() == nil {
			ref.Divisor = &metav1.Quantity{String_: "0"}
		}
	}
	for _, p := range []*corev1.Probe{c.GetLivenessProbe(), c.GetReadinessProbe(), c.GetStartupProbe()} {
		if p != nil {
			defaultProbe(p)
		}
	}
	for _, h := range []*corev1.LifecycleHandler{c.GetLifecycle().GetPostStart(), c.GetLifecycle().GetPreStop()} {
		if h.GetHttpGet() != nil {
			defaultHTTPGet(h.GetHttpGet())
		}
	}
	defaultRequests(c.GetResources())
}

// imageTag is the tag of an image's name: latest when it has neither tag nor digest, empty when only a digest.
func imageTag(image string) string {
	name, _, pinned := strings.Cut(image, "@")
	last := name[strings.LastIndexByte(name, '/')+1:]
	_, tag, tagged := strings.Cut(last, ":")
	if !tagged && !pinned {
		return "latest"
	}
	return tag
}

func defaultProbe(p *corev1.Probe) {
	setNumber := func(n *int32, value int32) {
		if *n == 0 {
			*n = value
		}
	}
	setNumber(&p.TimeoutSeconds, 1)
	setNumber(&p.PeriodSeconds, 10)
	setNumber(&p.SuccessThreshold, 1)
	setNumber(&p.FailureThreshold, 3)
	if h := p.GetHandler().GetHttpGet(); h != nil {
		defaultHTTPGet(h)
	}
	if g := p.GetHandler().GetGrpc(); g != nil && g.Service == nil {
		g.Service = proto.String("")
	}
}

func defaultHTTPGet(h *corev1.HTTPGetAction) {
	setDefault(&h.Path, "/")
	setDefault(&h.Scheme, SchemeHTTP)
}

// defaultRequests lets a container ask for what it is limited to, where it does not say.
func defaultRequests(r *corev1.ResourceRequirements) {
	for name, limit := range r.GetLimits() {
		if _, ok := r.GetRequests()[name]; ok {
			continue
		}
		if r.Requests == nil {
			r.Requests = map[string]*metav1.Quantity{}
		}
		r.Requests[name] = proto.CloneOf(limit)
	}
}

const defaultFileMode = 0o644

func defaultVolume(v *corev1.Volume) {
	s := v.GetVolumeSource()
	if s == nil || proto.Size(s) == 0 && !hasSource(s) {
		// A volume that names no source is an empty directory.
		v.VolumeSource = &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
		return
	}
	mode := func(m **int32) {
		if *m == nil {
			*m = proto.Int32(defaultFileMode)
		}
	}
	switch {
	case s.GetSecret() != nil:
		mode(&s.Secret.DefaultMode)
	case s.GetConfigMap() != nil:
		mode(&s.ConfigMap.DefaultMode)
	case s.GetDownwardApi() != nil:
		mode(&s.DownwardApi.DefaultMode)
		for _, i := range s.GetDownwardApi().GetItems() {
			if i.GetFieldRef() != nil {
				setDefault(&i.FieldRef.ApiVersion, "v1")
			}
		}
	case s.GetProjected() != nil:
		mode(&s.Projected.DefaultMode)
		for _, source := range s.Projected.GetSources() {
			if t := source.GetServiceAccountToken(); t != nil && t.ExpirationSeconds == nil {
				t.ExpirationSeconds = proto.Int64(3600)
			}
		}
	case s.GetHostPath() != nil && s.HostPath.Type == nil:
		s.HostPath.Type = proto.String("")
	}
}
