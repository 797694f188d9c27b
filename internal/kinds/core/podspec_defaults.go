package core

import (
	"github.com/distribution/reference"
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

// defaultPodSpec fills in the spec of a pod or of a template. The tolerations of unreachable nodes
// are not added here: the nodes service knows how long pods that name none are to wait.
func defaultPodSpec(s *corev1.PodSpec) {
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
}

func defaultContainer(c *corev1.Container, hostNetwork bool) {
	if c.GetImagePullPolicy() == "" {
		c.ImagePullPolicy = defaultPullPolicy(c.GetImage())
	}
	for _, p := range c.GetPorts() {
		if hostNetwork && p.GetHostPort() == 0 {
			p.HostPort = p.GetContainerPort()
		}
	}
	for _, e := range c.GetEnv() {
		defaultDivisor(e.GetValueFrom().GetResourceFieldRef())
	}
	defaultRequests(c.GetResources())
}

// defaultDivisor sets a divisor that is not set to 0, which stands for 1. ref may be nil.
func defaultDivisor(ref *corev1.ResourceFieldSelector) {
	if ref != nil && ref.GetDivisor() == nil {
		ref.Divisor = &metav1.Quantity{String_: "0"}
	}
}

func defaultPullPolicy(image string) string {
	if imageTag(image) == "latest" {
		return PullAlways
	}
	return PullIfNotPresent
}

// imageTag returns the tag of an image's name: latest when it has neither tag nor digest, and an
// empty one when it has only a digest or is invalid.
func imageTag(image string) string {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return ""
	}
	if tagged, ok := named.(reference.Tagged); ok {
		return tagged.Tag()
	}
	if _, pinned := named.(reference.Digested); pinned {
		return ""
	}
	return "latest"
}

// defaultRequests sets requests that are not set to the limits.
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

func defaultVolume(v *corev1.Volume) {
	s := v.GetVolumeSource()
	if s == nil || proto.Size(s) == 0 && !hasSource(s) {
		// A volume without a source is an empty directory.
		v.VolumeSource = &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	}
	if image := s.GetImage(); image != nil && image.GetPullPolicy() == "" {
		image.PullPolicy = defaultPullPolicy(image.GetReference())
	}
	for _, item := range s.GetDownwardApi().GetItems() {
		defaultDivisor(item.GetResourceFieldRef())
	}
	for _, source := range s.GetProjected().GetSources() {
		for _, item := range source.GetDownwardApi().GetItems() {
			defaultDivisor(item.GetResourceFieldRef())
		}
	}
}
