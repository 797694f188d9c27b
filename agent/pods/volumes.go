package pods

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/dns"
	"github.com/xebec-project/xebec/agent/runtime"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// makeVolume makes what a volume stands for and returns its path on the node. It is idempotent. The error wraps errConfig
// when the volume refers to what does not exist, or is of a kind that the agent does not know.
func makeVolume(ctx context.Context, d dir, v *corev1.Volume, objs objects) (string, error) {
	src, path := v.GetVolumeSource(), d.volume(v.GetName())
	switch {
	case src.GetHostPath() != nil:
		return hostPath(src.GetHostPath())
	case src.GetConfigMap() != nil:
		s := src.GetConfigMap()
		data := map[string][]byte{}
		cm, err := objs.configMap(ctx, s.GetLocalObjectReference().GetName())
		if err = optional(err, s.GetOptional()); err != nil {
			return "", fmt.Errorf("volume %s: %w", v.GetName(), err)
		}
		for k, text := range cm.GetData() {
			data[k] = []byte(text)
		}
		maps.Copy(data, cm.GetBinaryData())
		return path, writeFiles(path, v.GetName(), data, s.GetItems(), s.GetDefaultMode(), s.GetOptional())
	case src.GetSecret() != nil:
		s := src.GetSecret()
		secret, err := objs.secret(ctx, s.GetSecretName())
		if err = optional(err, s.GetOptional()); err != nil {
			return "", fmt.Errorf("volume %s: %w", v.GetName(), err)
		}
		return path, writeFiles(path, v.GetName(), secret.GetData(), s.GetItems(), s.GetDefaultMode(), s.GetOptional())
	case src.GetEmptyDir() != nil:
		return path, emptyDir(path, src.GetEmptyDir())
	}
	return "", fmt.Errorf("%w: volume %s is of a kind that this agent does not support", errConfig, v.GetName())
}

func emptyDir(path string, e *corev1.EmptyDirVolumeSource) error {
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil {
		return err
	}
	if e.GetMedium() != "Memory" {
		return nil
	}
	var st unix.Stat_t
	var parent unix.Stat_t
	if err := errors.Join(unix.Stat(path, &st), unix.Stat(filepath.Dir(path), &parent)); err != nil {
		return err
	}
	if st.Dev != parent.Dev {
		return nil
	}
	options := "mode=1777"
	if q := quantity(e.GetSizeLimit()); !q.IsZero() {
		options += fmt.Sprintf(",size=%d", q.Value())
	}
	return unix.Mount("emptydir", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options)
}

func hostPath(h *corev1.HostPathVolumeSource) (string, error) {
	path := h.GetPath()
	switch h.GetType() {
	case "DirectoryOrCreate":
		if err := os.MkdirAll(path, 0o755); err != nil {
			return "", err
		}
	case "FileOrCreate":
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return "", err
		}
		f.Close()
	}
	st, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("%w: host path: %w", errConfig, err)
	}
	if want := h.GetType(); want == "Directory" && !st.IsDir() || want == "File" && !st.Mode().IsRegular() {
		return "", fmt.Errorf("%w: host path %s is no %s", errConfig, path, strings.ToLower(want))
	}
	return path, nil
}

func writeFiles(path, volume string, data map[string][]byte, items []*corev1.KeyToPath, mode int32, optional bool) error {
	mode = cmp.Or(mode, 0o644)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if len(items) == 0 {
		for key, content := range data {
			if err := writeVolumeFile(path, key, content, mode); err != nil {
				return err
			}
		}
		return nil
	}
	for _, item := range items {
		content, ok := data[item.GetKey()]
		if !ok {
			if optional {
				continue
			}
			return fmt.Errorf("%w: volume %s: there is no key %q", errConfig, volume, item.GetKey())
		}
		if err := writeVolumeFile(path, item.GetPath(), content, cmp.Or(item.GetMode(), mode)); err != nil {
			return err
		}
	}
	return nil
}

func writeVolumeFile(root, name string, content []byte, mode int32) error {
	if !filepath.IsLocal(name) {
		return fmt.Errorf("%w: path %q leaves the volume", errConfig, name)
	}
	target := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if err := writeFile(target, content, fs.FileMode(mode).Perm()); err != nil {
		return err
	}
	return os.Chmod(target, fs.FileMode(mode).Perm())
}

// removeVolumes removes the pod's own volumes with all that is in them.
func removeVolumes(d dir) error {
	root := d.volume("")
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		// A volume in memory is a mount. For the others this fails, and need not work.
		_ = unix.Unmount(filepath.Join(root, e.Name()), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	return os.RemoveAll(root)
}

// mounts returns a container's mounts in terms of paths on the node.
func mounts(pod *corev1.Pod, c *corev1.Container, d dir, volumes map[string]string, messageFile string) ([]runtime.Mount, error) {
	out := []runtime.Mount{
		{Source: d.etc("hosts"), Target: "/etc/hosts"},
		{Source: d.etc("resolv.conf"), Target: "/etc/resolv.conf"},
		{Source: d.etc("hostname"), Target: "/etc/hostname"},
		{Source: messageFile, Target: cmp.Or(c.GetTerminationMessagePath(), "/dev/termination-log")},
	}
	for _, m := range c.GetVolumeMounts() {
		source, ok := volumes[m.GetName()]
		if !ok {
			return nil, fmt.Errorf("%w: the pod has no volume %q", errConfig, m.GetName())
		}
		if sub := m.GetSubPath(); sub != "" {
			if !filepath.IsLocal(sub) {
				return nil, fmt.Errorf("%w: subPath %q leaves the volume", errConfig, sub)
			}
			source = filepath.Join(source, sub)
			if _, err := os.Lstat(source); errors.Is(err, fs.ErrNotExist) {
				if err := os.MkdirAll(source, 0o755); err != nil {
					return nil, err
				}
			}
			// A link in the volume, made by a container, must not lead elsewhere on the node.
			real, err := filepath.EvalSymlinks(source)
			if err != nil {
				return nil, err
			}
			if base, err := filepath.EvalSymlinks(volumes[m.GetName()]); err != nil || !strings.HasPrefix(real+"/", base+"/") {
				return nil, fmt.Errorf("%w: subPath %q leaves the volume", errConfig, sub)
			}
			source = real
		}
		target := m.GetMountPath()
		if !filepath.IsAbs(target) {
			target = "/" + target
		}
		out = slices.DeleteFunc(out, func(o runtime.Mount) bool { return o.Target == target })
		out = append(out, runtime.Mount{Source: source, Target: target, ReadOnly: m.GetReadOnly() || readOnlyVolume(pod, m.GetName())})
	}
	return out, nil
}

// readOnlyVolume tells whether a volume's content is not the container's to change.
func readOnlyVolume(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.GetSpec().GetVolumes(), func(v *corev1.Volume) bool {
		s := v.GetVolumeSource()
		return v.GetName() == name && (s.GetConfigMap() != nil || s.GetSecret() != nil)
	})
}

// hostname returns what the pod's containers are called.
func hostname(pod *corev1.Pod) string {
	name := cmp.Or(pod.GetSpec().GetHostname(), pod.GetMetadata().GetName())
	if len(name) > 63 {
		name = strings.TrimRight(name[:63], "-.")
	}
	return name
}

// writeEtc writes the files below /etc that all containers of the pod share.
func writeEtc(d dir, pod *corev1.Pod, ip, server netip.Addr, domain string) error {
	resolv, err := resolvConf(pod, server, domain)
	if err != nil {
		return err
	}
	host := hostname(pod)
	hosts, err := hostsFile(pod, ip, host, domain)
	if err != nil {
		return err
	}
	if pod.GetSpec().GetHostNetwork() {
		if host, err = os.Hostname(); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{"hosts": hosts, "resolv.conf": resolv, "hostname": host + "\n"} {
		// Containers have the file itself mounted, so that it is never replaced, only written anew when it differs.
		path := d.etc(name)
		if have, err := os.ReadFile(path); err == nil && string(have) == content {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func hostsFile(pod *corev1.Pod, ip netip.Addr, host, domain string) (string, error) {
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
			if sub := pod.GetSpec().GetSubdomain(); sub != "" {
				names = fmt.Sprintf("%s.%s.%s.svc.%s\t%s", host, sub, pod.GetMetadata().GetNamespace(), domain, host)
			}
			fmt.Fprintf(&b, "%s\t%s\n", ip, names)
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
		return "", fmt.Errorf("%w: %w", errConfig, err)
	}
	return conf.String(), nil
}
