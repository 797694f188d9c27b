// Package etc writes the files below /etc that the containers of a pod share: hosts, hostname and
// resolv.conf.
package etc

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/xebec-project/xebec/agent/dns"
	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	"github.com/xebec-project/xebec/agent/pods/objects"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Hostname returns what the pod's containers are called: by hostnameOverride, or by hostname or the
// pod's name, as a whole domain name when the pod asks for that and has one.
func Hostname(pod *corev1.Pod, domain string) string {
	spec := pod.GetSpec()
	if name := spec.GetHostnameOverride(); name != "" {
		return name
	}
	name := cmp.Or(spec.GetHostname(), pod.GetMetadata().GetName())
	if len(name) > 63 {
		name = strings.TrimRight(name[:63], "-.")
	}
	if spec.GetSetHostnameAsFqdn() && spec.GetSubdomain() != "" {
		return fqdn(pod, name, domain)
	}
	return name
}

func fqdn(pod *corev1.Pod, host, domain string) string {
	return fmt.Sprintf("%s.%s.%s.svc.%s", host, pod.GetSpec().GetSubdomain(), pod.GetMetadata().GetNamespace(), domain)
}

// Write writes the files below /etc that all containers of the pod share.
func Write(d checkpoint.Dir, pod *corev1.Pod, ip, ip6, server netip.Addr, domain string) error {
	resolv, err := resolvConf(pod, server, domain)
	if err != nil {
		return err
	}
	host := Hostname(pod, domain)
	hosts, err := hostsFile(pod, ip, ip6, host, domain)
	if err != nil {
		return err
	}
	if pod.GetSpec().GetHostNetwork() {
		if host, err = os.Hostname(); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{"hosts": hosts, "resolv.conf": resolv, "hostname": host + "\n"} {
		// The file itself is mounted into containers, so that it is never replaced, only rewritten when
		// it differs.
		path := d.Etc(name)
		if have, err := os.ReadFile(path); err == nil && string(have) == content {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
		// All users in the containers read it, whatever the agent was started with as its umask.
		if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), os.Chmod(path, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

func hostsFile(pod *corev1.Pod, ip, ip6 netip.Addr, host, domain string) (string, error) {
	var b strings.Builder
	if pod.GetSpec().GetHostNetwork() {
		own, err := os.ReadFile("/etc/hosts")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		b.Write(own)
	} else {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
		if ip.IsValid() {
			names := host
			if short, _, whole := strings.Cut(host, "."); pod.GetSpec().GetSubdomain() != "" && pod.GetSpec().GetHostnameOverride() == "" {
				if !whole {
					short = host
				}
				names = fqdn(pod, short, domain) + "\t" + short
			}
			fmt.Fprintf(&b, "%s\t%s\n", ip, names)
			if ip6.IsValid() {
				fmt.Fprintf(&b, "%s\t%s\n", ip6, names)
			}
		}
	}
	for _, a := range pod.GetSpec().GetHostAliases() {
		fmt.Fprintf(&b, "%s\t%s\n", a.GetIp(), strings.Join(a.GetHostnames(), "\t"))
	}
	return b.String(), nil
}

// resolvConf returns how the pod resolves names.
func resolvConf(pod *corev1.Pod, server netip.Addr, domain string) (string, error) {
	host, err := dns.ReadHostResolvConf("/etc/resolv.conf")
	if err != nil {
		return "", err
	}
	conf, err := dns.PodResolvConf{
		Namespace: pod.GetMetadata().GetNamespace(), Policy: pod.GetSpec().GetDnsPolicy(), HostNetwork: pod.GetSpec().GetHostNetwork(),
		Config: pod.GetSpec().GetDnsConfig(), ClusterDomain: domain, ClusterDNS: server, Host: host,
	}.Build()
	if err != nil {
		return "", fmt.Errorf("%w: %w", objects.ErrConfig, err)
	}
	return conf.String(), nil
}
