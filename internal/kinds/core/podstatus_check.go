package core

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// checkPodStatus checks what a write changes in the status, as Kubernetes does. It also refuses a
// change of the phase of a pod that has ended, which would run its work twice.
func checkPodStatus(new, old *corev1.Pod, c *rules.Checker) {
	p, now, was := field.NewPath("status"), new.GetStatus(), old.GetStatus()
	c.OneOf(p.Child("phase"), now.GetPhase(), PodPending, PodRunning, PodSucceeded, PodFailed, PodUnknown)
	if IsPodFinished(old) && now.GetPhase() != was.GetPhase() {
		c.Forbidden(p.Child("phase"), fmt.Sprintf("may not change once it is %s", was.GetPhase()))
	}
	for i, condition := range now.GetConditions() {
		c.Each(p.Child("conditions").Index(i).Child("type"), condition.GetType(), validation.IsQualifiedName(condition.GetType()))
	}
	checkNominatedNode(c, p.Child("nominatedNodeName"), new, old)
	rules.Unchanged(c, p.Child("qosClass"), now.GetQosClass(), was.GetQosClass())
	checkAddressPair(c, p.Child("podIPs"), podIPs(now), podIPs(was))
	hosts := ips(now.GetHostIps())
	if len(hosts) > 0 && hosts[0] != now.GetHostIp() {
		c.Invalid(p.Child("hostIPs").Index(0).Child("ip"), hosts[0], "must be equal to `hostIP`")
	}
	checkAddressPair(c, p.Child("hostIPs"), hosts, ips(was.GetHostIps()))

	spec := old.GetSpec()
	containers, initContainers := p.Child("containerStatuses"), p.Child("initContainerStatuses")
	ephemeral := p.Child("ephemeralContainerStatuses")
	if !allCouldRestart(spec) {
		checkEnded(c, containers, spec, spec.GetContainers(), now.GetContainerStatuses(), was.GetContainerStatuses())
		checkEnded(c, initContainers, spec, spec.GetInitContainers(), now.GetInitContainerStatuses(), was.GetInitContainerStatuses())
	}
	checkEnded(c, ephemeral, spec, nil, now.GetEphemeralContainerStatuses(), was.GetEphemeralContainerStatuses())
	checkDeviceHealth(c, containers, now.GetContainerStatuses(), spec.GetContainers())
	checkDeviceHealth(c, initContainers, now.GetInitContainerStatuses(), spec.GetInitContainers())
	for i, s := range now.GetEphemeralContainerStatuses() {
		if len(s.GetAllocatedResourcesStatus()) > 0 {
			c.Forbidden(ephemeral.Index(i).Child("allocatedResourcesStatus"), "must not be specified in container status")
		}
	}
	checkClaimStatuses(c, p, now, spec)
}

func checkNominatedNode(c *rules.Checker, p *field.Path, new, old *corev1.Pod) {
	name := new.GetStatus().GetNominatedNodeName()
	if name == "" || name == old.GetStatus().GetNominatedNodeName() {
		return
	}
	c.Each(p, name, validation.IsDNS1123Subdomain(name))
	if old.GetSpec().GetNodeName() != "" {
		c.Forbidden(p, "may not be set on pods that are already bound to a node")
	}
}

// podIPs are the addresses of a pod. Where podIP is not the first of them it stands alone, as in
// Kubernetes.
func podIPs(s *corev1.PodStatus) []string {
	list, first := ips(s.GetPodIps()), s.GetPodIp()
	if first != "" && (len(list) == 0 || list[0] != first) {
		return []string{first}
	}
	return list
}

func ips[T interface{ GetIp() string }](list []T) []string {
	var out []string
	for _, x := range list {
		out = append(out, x.GetIp())
	}
	return out
}

// checkAddressPair checks that there is at most one address of each family. Invalid addresses that
// were there before may stay.
func checkAddressPair(c *rules.Checker, p *field.Path, list, known []string) {
	families := map[bool]bool{}
	for i, text := range list {
		c.List = append(c.List, validation.IsValidIPForLegacyField(p.Index(i), text, true, known)...)
		if a, err := netip.ParseAddr(text); err == nil {
			families[a.Is4()] = true
		}
	}
	if len(list) > 1 && (len(list) > 2 || len(families) < 2) {
		c.Invalid(p, list, "may specify no more than one IP for each IP family")
	}
}

// allCouldRestart reports whether an exit code of one container restarts all of them.
func allCouldRestart(s *corev1.PodSpec) bool {
	return slices.ContainsFunc(slices.Concat(s.GetInitContainers(), s.GetContainers()), func(x *corev1.Container) bool {
		return slices.ContainsFunc(x.GetRestartPolicyRules(), func(r *corev1.ContainerRestartRule) bool {
			return r.GetAction() == RestartRuleRestartAll
		})
	})
}

// checkEnded refuses that a container which has ended and is not restarted leaves that state.
func checkEnded(c *rules.Checker, p *field.Path, spec *corev1.PodSpec, containers []*corev1.Container, now, was []*corev1.ContainerStatus) {
	for i, old := range was {
		end, new := old.GetState().GetTerminated(), containerStatus(now, old.GetName())
		if end == nil || new == nil || new.GetState().GetTerminated() != nil {
			continue
		}
		if !slices.ContainsFunc(containers, func(x *corev1.Container) bool {
			return x.GetName() == old.GetName() && restarts(spec, x, end.GetExitCode())
		}) {
			c.Forbidden(p.Index(i).Child("state"), "may not be transitioned to non-terminated state")
		}
	}
}

// restarts reports whether a container is restarted after it ended with a code.
func restarts(spec *corev1.PodSpec, x *corev1.Container, exitCode int32) bool {
	policy := spec.GetRestartPolicy()
	if x.RestartPolicy != nil {
		if RestartRule(x, exitCode) != nil {
			return true
		}
		policy = x.GetRestartPolicy()
	}
	return policy != RestartNever && (policy != RestartOnFailure || exitCode != 0)
}

// checkDeviceHealth checks the health of devices that containers have.
func checkDeviceHealth(c *rules.Checker, p *field.Path, statuses []*corev1.ContainerStatus, containers []*corev1.Container) {
	for i, s := range statuses {
		index := slices.IndexFunc(containers, func(x *corev1.Container) bool { return x.GetName() == s.GetName() })
		for j, r := range s.GetAllocatedResourcesStatus() {
			at := p.Index(i).Child("allocatedResourcesStatus").Index(j)
			if index >= 0 {
				checkDeviceOf(c, at.Child("name"), r.GetName(), containers[index].GetResources())
			}
			seen := rules.Names{}
			for n, h := range r.GetResources() {
				device := at.Child("resources").Index(n)
				if health := h.GetHealth(); !slices.Contains([]string{"Healthy", "Unhealthy", "Unknown"}, health) {
					c.Add(field.NotSupported(device.Child("health"), health, []string{"Healthy", "Unhealthy", "Unknown"}))
				}
				if m := h.GetMessage(); h.Message != nil && m == "" {
					c.Required(device.Child("message"), "must be non-empty if specified")
				} else if len(m) > maxHealthMessage {
					c.Add(field.TooLong(device.Child("message"), m, maxHealthMessage))
				}
				c.Unique(device.Child("resourceID"), seen, h.GetResourceId())
			}
		}
	}
}

// maxHealthMessage is how long the message about the health of a device may be.
const maxHealthMessage = 1024

// checkDeviceOf checks that a container has the resource, or the request of a claim, of a device.
func checkDeviceOf(c *rules.Checker, p *field.Path, name string, r *corev1.ResourceRequirements) {
	claim, ok := strings.CutPrefix(name, "claim:")
	switch {
	case !ok && r.GetRequests()[name] == nil:
		c.Invalid(p, name, "must match one of the container's resource requests")
	case ok && !slices.ContainsFunc(r.GetClaims(), func(x *corev1.ResourceClaim) bool {
		return claim == x.GetName() && x.GetRequest() == "" || claim == x.GetName()+"/"+x.GetRequest() && x.GetRequest() != ""
	}):
		c.Invalid(p, name, "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or"+
			" 'claim:<claimName>' if request is empty")
	}
}

// checkClaimStatuses checks what a status says of claims. Pods have none yet, so that no entry of
// the status matches one.
func checkClaimStatuses(c *rules.Checker, p *field.Path, s *corev1.PodStatus, spec *corev1.PodSpec) {
	for i, claim := range s.GetResourceClaimStatuses() {
		if !slices.ContainsFunc(spec.GetResourceClaims(), func(x *corev1.PodResourceClaim) bool { return x.GetName() == claim.GetName() }) {
			c.Invalid(p.Child("resourceClaimStatuses").Index(i).Child("name"), claim.GetName(),
				"must match the name of an entry in `spec.resourceClaims`")
		}
	}
	if s.GetExtendedResourceClaimStatus() != nil {
		c.Forbidden(p.Child("extendedResourceClaimStatus"), "dynamic resource allocation is not supported")
	}
}
