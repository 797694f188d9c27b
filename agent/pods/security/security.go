// Package security computes the security context of a container, and which pods the node does not
// run for theirs.
package security

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/agent/runtime"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Of joins the pod's and the container's wishes; the container's go first. Without a wish system
// calls are filtered by the runtime's default. Profiles is the directory of the node's own filters.
func Of(pod *corev1.Pod, c *corev1.Container, profiles string) runtime.Security {
	var out runtime.Security
	seccomp := pod.GetSpec().GetSecurityContext().GetSeccompProfile()
	if p := pod.GetSpec().GetSecurityContext(); p != nil {
		out = runtime.Security{
			User: p.RunAsUser, Group: p.RunAsGroup, Groups: p.GetSupplementalGroups(), NonRoot: p.GetRunAsNonRoot(),
			StrictGroups: p.GetSupplementalGroupsPolicy() == "Strict",
		}
		if p.FsGroup != nil {
			out.Groups = append(slices.Clone(out.Groups), p.GetFsGroup())
		}
		for _, y := range p.GetSysctls() {
			if out.Sysctls == nil {
				out.Sysctls = map[string]string{}
			}
			out.Sysctls[sysctlName(y)] = y.GetValue()
		}
	}
	if s := c.GetSecurityContext(); s != nil {
		if s.RunAsUser != nil {
			out.User = s.RunAsUser
		}
		if s.RunAsGroup != nil {
			out.Group = s.RunAsGroup
		}
		if s.RunAsNonRoot != nil {
			out.NonRoot = s.GetRunAsNonRoot()
		}
		if s.GetSeccompProfile() != nil {
			seccomp = s.GetSeccompProfile()
		}
		out.AddCapabilities, out.DropCapabilities = s.GetCapabilities().GetAdd(), s.GetCapabilities().GetDrop()
		out.Privileged, out.ReadOnlyRoot = s.GetPrivileged(), s.GetReadOnlyRootFilesystem()
		out.NoNewPrivileges = s.AllowPrivilegeEscalation != nil && !s.GetAllowPrivilegeEscalation()
		out.UnmaskedProc = s.GetProcMount() == "Unmasked"
	}
	switch seccomp.GetType() {
	case "Unconfined":
	case "Localhost":
		out.SeccompProfile = filepath.Join(profiles, filepath.Clean("/"+seccomp.GetLocalhostProfile()))
	default:
		out.DefaultSeccomp = true
	}
	out.AppArmor = appArmor(pod, c)
	return out
}

// sysctlName returns the name of a kernel parameter with dots between its parts, as the runtime
// wants it. As in sysctl(8) the separator that comes first decides how the name is written: with
// slashes, a dot belongs to a part, and becomes a slash.
func sysctlName(y *corev1.Sysctl) string {
	name := y.GetName()
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '.' {
		return name
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(name)
}

// safeSysctls are the kernel parameters that a pod may set: they belong to its namespaces and do
// not affect others. The list is Kubernetes' list of safe sysctls.
var safeSysctls = []string{
	"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_unprivileged_port_start",
	"net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
	"net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_rmem", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem",
}

// Forbidden returns why the node does not take a pod at all. Its reason is empty when it does.
func Forbidden(pod *corev1.Pod) status.Cause {
	spec := pod.GetSpec()
	for _, y := range spec.GetSecurityContext().GetSysctls() {
		name := sysctlName(y)
		shared := spec.GetHostNetwork() && strings.HasPrefix(name, "net.") || spec.GetHostIpc() && strings.HasPrefix(name, "kernel.")
		if !slices.Contains(safeSysctls, name) || shared {
			return status.Cause{
				Reason:  "SysctlForbidden",
				Message: fmt.Sprintf("forbidden sysctl: %q is not a safe sysctl, or is in a namespace of the node", y.GetName()),
			}
		}
	}
	if !runtime.HasAppArmor() {
		return withoutAppArmor(pod)
	}
	return status.Cause{}
}
