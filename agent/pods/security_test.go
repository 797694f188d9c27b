package pods_test

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// tells makes a pod whose container says something and goes on, and returns what it said.
func (n *node) tells(name, script string, change func(*corev1.Pod)) string {
	n.Helper()
	uid := n.create(pod(name, script+"; echo end; sleep 3600", change))
	// Not as the last line: what the script says on stderr comes by a pipe of its own, and may be
	// written after it.
	p := n.until(uid, "it has spoken", func(p *corev1.Pod) bool { return core.IsPodReady(p) && strings.Contains(n.log(p, false), "end\n") })
	said := n.log(p, false)
	n.delete(uid)
	n.untilGone(uid)
	return said
}

func testSecurity(n *node) {
	if err := os.MkdirAll(filepath.Join(n.daemon.Dir, "seccomp"), 0o755); err != nil {
		n.Fatal(err)
	}
	profile := `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}`
	if err := os.WriteFile(filepath.Join(n.daemon.Dir, "seccomp", "no-mkdir.json"), []byte(profile), 0o600); err != nil {
		n.Fatal(err)
	}
	const filtered = "grep Seccomp: /proc/self/status; mkdir /tmp/x && echo made"
	for _, c := range []struct {
		name, script string
		change       func(*corev1.Pod)
		want, not    string
	}{
		{"filter-default", filtered, func(*corev1.Pod) {}, "Seccomp:\t2\nmade\n", "-"},
		{"filter-none", filtered, func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: "Unconfined"}}
		}, "Seccomp:\t0\nmade\n", "-"},
		{"filter-own", filtered, func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: "Localhost", LocalhostProfile: proto.String("no-mkdir.json")}}
		}, "Seccomp:\t2\n", "made\n"},
		{"sysctls", "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []*corev1.Sysctl{
				{Name: "net/ipv4/ip_local_port_range", Value: "4000 5000"}, {Name: "kernel.shm_rmid_forced", Value: "1"},
			}}
		}, "4000\t5000\n1\n", "-"},
		{"dropped", "grep CapEff /proc/self/status", func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []string{"all"}, Add: []string{"Cap_Net_Bind_Service"}}}
		}, "CapEff:\t0000000000000400\n", "-"},
		{"proc-masked", "mount | grep -c ' /proc/'", func(*corev1.Pod) {}, "", "0\n"},
		{"proc-unmasked", "mount | grep -c ' /proc/'", func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{ProcMount: proto.String("Unmasked")}
		}, "0\n", "-"},
		{"long-name", "hostname; cat /etc/hosts", func(p *corev1.Pod) {
			p.Spec.Hostname, p.Spec.Subdomain, p.Spec.SetHostnameAsFqdn = "db", "store", proto.Bool(true)
		}, "db.store.default.svc.cluster.local\n", "-"},
		{"overridden-name", "hostname", func(p *corev1.Pod) { p.Spec.HostnameOverride = proto.String("legacy.example.com") }, "legacy.example.com\n", "-"},
	} {
		if got := n.tells(c.name, c.script, c.change); !strings.Contains(got, c.want) || strings.Contains(got, c.not) && c.not != "-" {
			n.Errorf("%s said %q, want %q and not %q", c.name, got, c.want, c.not)
		}
	}

	uid := n.create(pod("unknown-capability", "sleep 3600", func(p *corev1.Pod) {
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []string{"NO_SUCH"}}}
	}))
	if p := n.until(uid, "it is not started", waitingFor("CreateContainerError")); !strings.Contains(status(p).State.Waiting.Message, `securityContext.capabilities.drop: unknown capability "NO_SUCH"`) {
		n.Errorf("status is %v", p.Status)
	}
	n.delete(uid)
	n.untilGone(uid)

	uid = n.create(pod("forbids", "sleep 1", func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []*corev1.Sysctl{{Name: "vm.swappiness", Value: "1"}}}
	}))
	p := n.until(uid, "it is refused", func(p *corev1.Pod) bool { return p.Status.Phase == "Failed" })
	if p.Status.Reason != "SysctlForbidden" || !strings.Contains(p.Status.Message, "vm.swappiness") {
		n.Errorf("status is %v", p.Status)
	}
	n.delete(uid)
	n.untilGone(uid)
}

// testMissingPullSecret shows that a missing secret is reported, and does not keep the pod from
// images it has.
func testMissingPullSecret(n *node) {
	uid := n.create(pod("keyless", "sleep 3600", func(p *corev1.Pod) {
		p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = "127.0.0.1:1/none:1", "IfNotPresent"
		p.Spec.ImagePullSecrets = []*corev1.LocalObjectReference{local("nokeys")}
	}))
	n.until(uid, "the pull fails", waitingFor("ImagePullBackOff"))
	containerdtest.Eventually(n.T, 60*time.Second, "the missing secret is reported", func() bool {
		n.cluster.mu.Lock()
		defer n.cluster.mu.Unlock()
		return strings.Contains(strings.Join(n.cluster.events, "\n"), `keyless Warning FailedToRetrieveImagePullSecret: Unable to retrieve some image pull secrets; pulling the image may fail: secret "nokeys" not found`)
	})
	n.delete(uid)
	n.untilGone(uid)
}
