package pods

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/volumes"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// mounts returns a container's mounts in terms of paths on the node; values are the container's variables.
func mounts(pod *corev1.Pod, c *corev1.Container, d dir, paths, values map[string]string, messageFile string) ([]runtime.Mount, error) {
	out := []runtime.Mount{
		{Source: d.etc("hosts"), Target: "/etc/hosts"},
		{Source: d.etc("resolv.conf"), Target: "/etc/resolv.conf"},
		{Source: d.etc("hostname"), Target: "/etc/hostname"},
		{Source: messageFile, Target: cmp.Or(c.GetTerminationMessagePath(), "/dev/termination-log")},
	}
	for _, m := range c.GetVolumeMounts() {
		source, ok := paths[m.GetName()]
		if !ok {
			return nil, fmt.Errorf("%w: the pod has no volume %q", errConfig, m.GetName())
		}
		if sub := cmp.Or(m.GetSubPath(), expand(m.GetSubPathExpr(), values)); sub != "" {
			var err error
			if source, err = volumes.Within(source, sub); errors.Is(err, volumes.ErrUnfit) {
				return nil, fmt.Errorf("%w: subPath of volume %s: %w", errConfig, m.GetName(), err)
			} else if err != nil {
				return nil, err
			}
		}
		target := m.GetMountPath()
		if !filepath.IsAbs(target) {
			target = "/" + target
		}
		out = slices.DeleteFunc(out, func(o runtime.Mount) bool { return o.Target == target })
		out = append(out, runtime.Mount{
			Source: source, Target: target, Propagation: runtime.Propagation(m.GetMountPropagation()),
			ReadOnly: m.GetReadOnly() || readOnlyVolume(pod, m.GetName()),
		})
	}
	return out, nil
}

// readOnlyVolume tells whether a volume's content is not the container's to change.
func readOnlyVolume(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.GetSpec().GetVolumes(), func(v *corev1.Volume) bool {
		return v.GetName() == name && projected(v.GetVolumeSource())
	})
}
