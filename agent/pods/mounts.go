package pods

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/volumes"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// mounts returns a container's mounts in terms of paths on the node; values are the container's variables, and deep tells
// whether the node can make mounts below a read-only one read-only too.
func mounts(pod *corev1.Pod, c *corev1.Container, d dir, paths, values map[string]string, messageFile string, deep func() bool) ([]runtime.Mount, error) {
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
		below, err := readOnlyBelow(m, deep)
		if err != nil {
			return nil, err
		}
		out = slices.DeleteFunc(out, func(o runtime.Mount) bool { return o.Target == target })
		out = append(out, runtime.Mount{
			Source: source, Target: target, Propagation: runtime.Propagation(m.GetMountPropagation()),
			ReadOnly: m.GetReadOnly() || readOnlyVolume(pod, m.GetName()), ReadOnlyBelow: below, Options: m.GetBindMountOptions(),
		})
	}
	return out, nil
}

// readOnlyBelow tells whether what is mounted below a volume is read-only to the container too. The error wraps errConfig
// when that must be so and can't.
func readOnlyBelow(m *corev1.VolumeMount, can func() bool) (bool, error) {
	switch {
	case !m.GetReadOnly():
		return false, nil
	case m.GetRecursiveReadOnly() == kind.ReadOnlyBelowIfPossible:
		return can(), nil
	case m.GetRecursiveReadOnly() != kind.ReadOnlyBelowEnabled:
		return false, nil
	case !can():
		return false, fmt.Errorf("%w: volume %s: recursiveReadOnly takes Linux 5.12 and runc 1.1 on the node: use IfPossible, or another node", errConfig, m.GetName())
	}
	return true, nil
}

// mountStatuses tells how a container's volumes are mounted where that depends on the node; nil where it does not.
func mountStatuses(c *corev1.Container, deep func() bool) []*corev1.VolumeMountStatus {
	if !slices.ContainsFunc(c.GetVolumeMounts(), func(m *corev1.VolumeMount) bool { return m.RecursiveReadOnly != nil }) {
		return nil
	}
	var out []*corev1.VolumeMountStatus
	for _, m := range c.GetVolumeMounts() {
		s := &corev1.VolumeMountStatus{Name: m.GetName(), MountPath: m.GetMountPath(), ReadOnly: m.GetReadOnly()}
		if m.RecursiveReadOnly != nil {
			below, err := readOnlyBelow(m, deep)
			s.RecursiveReadOnly = proto.String(kind.ReadOnlyBelowDisabled)
			if below && err == nil {
				s.RecursiveReadOnly = proto.String(kind.ReadOnlyBelowEnabled)
			}
		}
		out = append(out, s)
	}
	return out
}

// readOnlyVolume tells whether a volume's content is not the container's to change.
func readOnlyVolume(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.GetSpec().GetVolumes(), func(v *corev1.Volume) bool {
		return v.GetName() == name && projected(v.GetVolumeSource())
	})
}
