package core_test

import (
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func sysctls(list ...string) []*corev1.Sysctl {
	var out []*corev1.Sysctl
	for _, name := range list {
		out = append(out, &corev1.Sysctl{Name: name, Value: "1"})
	}
	return out
}

func TestPodSysctls(t *testing.T) {
	set := func(p *corev1.Pod, names ...string) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: sysctls(names...)}
	}
	kindtest.Validate(t, pod, []kindtest.Bad[*corev1.Pod]{
		{Name: "good", Edit: func(p *corev1.Pod) {
			set(p, "kernel.shm_rmid_forced", "net/ipv4/conf/eth0.1/forwarding", "net.ipv4.tcp_syncookies", "vm.swappiness")
		}, Want: nil},
		{Name: "names", Edit: func(p *corev1.Pod) { set(p, "", "Kernel.x", "a..b", strings.Repeat("a", 254)) }, Want: []string{
			"spec.securityContext.sysctls[0].name: Required value", `spec.securityContext.sysctls[1].name: Invalid value: "Kernel.x": must have at most 253 characters`,
			`spec.securityContext.sysctls[2].name: Invalid value: "a..b"`, `spec.securityContext.sysctls[3].name: Invalid value: "aaa`,
		}},
		{Name: "twice", Edit: func(p *corev1.Pod) { set(p, "net.ipv4.tcp_syncookies", "net/ipv4/tcp_syncookies") }, Want: []string{"spec.securityContext.sysctls[1].name: Duplicate value"}},
		{Name: "the node's network", Edit: func(p *corev1.Pod) {
			set(p, "net/ipv4/tcp_syncookies", "kernel.shm_rmid_forced")
			p.Spec.HostNetwork = true
		}, Want: []string{`spec.securityContext.sysctls[0].name: Invalid value: "net/ipv4/tcp_syncookies": may not be specified when 'hostNetwork' is true`}},
		{Name: "the node's IPC", Edit: func(p *corev1.Pod) {
			set(p, "net.ipv4.tcp_syncookies", "kernel.shm_rmid_forced", "fs.mqueue.msg_max")
			p.Spec.HostIpc = true
		}, Want: []string{
			`spec.securityContext.sysctls[1].name: Invalid value: "kernel.shm_rmid_forced": may not be specified when 'hostIPC' is true`,
			`spec.securityContext.sysctls[2].name: Invalid value: "fs.mqueue.msg_max": may not be specified when 'hostIPC' is true`,
		}},
	})
}

func TestProjectedPaths(t *testing.T) {
	kindtest.Validate(t, pod, []kindtest.Bad[*corev1.Pod]{
		{Name: "one path twice", Edit: func(p *corev1.Pod) {
			items := []*corev1.KeyToPath{{Key: "a", Path: "x"}}
			p.Spec.Volumes = []*corev1.Volume{{Name: "v", VolumeSource: &corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []*corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: &corev1.LocalObjectReference{Name: "m"}, Items: items}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: &corev1.LocalObjectReference{Name: "s"}, Items: items}},
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "x"}},
			}}}}}
		}, Want: []string{
			`spec.volumes[0].projected.sources[1].secret.items[0].path: Invalid value: "x": conflicting duplicate paths`,
			`spec.volumes[0].projected.sources[2].serviceAccountToken.path: Invalid value: "x": conflicting duplicate paths`,
		}},
	})
}
