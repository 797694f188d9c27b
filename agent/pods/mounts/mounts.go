// Package mounts computes what a container has mounted, from the volumes of its pod.
package mounts

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	"github.com/xebec-project/xebec/agent/pods/environment"
	"github.com/xebec-project/xebec/agent/pods/objects"
	"github.com/xebec-project/xebec/agent/pods/projection"
	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/volumes"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// ErrImageVolume wraps why the files of an image can't be mounted. Kubernetes' container runtimes
// use the same name.
var ErrImageVolume = errors.New("ImageVolumeMountFailed")

// VolumeError is the error of a volume that can't be made or mounted.
type VolumeError struct {
	Name string
	Err  error
}

// Error implements error.
func (e *VolumeError) Error() string { return fmt.Sprintf("volume %s: %v", e.Name, e.Err) }

// Unwrap returns the cause.
func (e *VolumeError) Unwrap() error { return e.Err }

// Mounter says what a pod's containers have mounted.
type Mounter struct {
	Dir checkpoint.Dir
	// Volumes are the paths of the pod's volumes, by name.
	Volumes map[string]string
	// ReadOnlyBelow reports whether the node can make mounts read-only recursively.
	ReadOnlyBelow func() bool
}

// Mounts returns a container's mounts; values are the container's variables. The caller closes the
// mounts' files (closeFiles) once the container is created, also after an error.
func (r Mounter) Mounts(
	pod *corev1.Pod,
	c *corev1.Container,
	values map[string]string,
	messageFile string,
) (out []runtime.Mount, err error) {
	out = []runtime.Mount{
		{Source: r.Dir.Etc("hosts"), Target: "/etc/hosts"},
		{Source: r.Dir.Etc("resolv.conf"), Target: "/etc/resolv.conf"},
		{Source: r.Dir.Etc("hostname"), Target: "/etc/hostname"},
		{Source: messageFile, Target: messageTarget(c)},
	}
	for _, m := range c.GetVolumeMounts() {
		below, err := readOnlyBelow(m, r.ReadOnlyBelow)
		if err != nil {
			return out, err
		}
		one := runtime.Mount{
			Target: target(m.GetMountPath()), Propagation: runtime.Propagation(m.GetMountPropagation()),
			ReadOnly: m.GetReadOnly() || readOnlyVolume(pod, m.GetName()), ReadOnlyBelow: below, Options: m.GetBindMountOptions(),
		}
		if one.Source, one.File, err = r.source(pod, m, values); err != nil {
			return out, err
		}
		if isImage(pod, m.GetName()) && !slices.Contains(one.Options, noexec) {
			one.Options = append(slices.Clone(one.Options), noexec)
		}
		out = slices.DeleteFunc(out, func(o runtime.Mount) bool { return o.Target == one.Target })
		out = append(out, one)
	}
	return out, makePoints(pod, c, out)
}

// Close closes what mounts have open.
func Close(mounts []runtime.Mount) {
	for _, m := range mounts {
		if m.File != nil {
			m.File.Close()
		}
	}
}

// source returns what a container is to have mounted: the path of a volume that the agent made,
// which no container can change, or else what is open.
func (r Mounter) source(pod *corev1.Pod, m *corev1.VolumeMount, values map[string]string) (string, *os.File, error) {
	path, ok := r.Volumes[m.GetName()]
	if !ok {
		return "", nil, fmt.Errorf("%w: volume %q not found in the pod", objects.ErrConfig, m.GetName())
	}
	sub, err := subPath(m, values)
	if err != nil {
		return "", nil, err
	}
	var volume *os.File
	switch host := hostPath(pod, m.GetName()); {
	case host != nil:
		volume, err = OpenHostPath(host)
	case sub == "":
		return path, nil, nil
	default:
		volume, err = volumes.Open(path)
	}
	if err != nil {
		return "", nil, &VolumeError{m.GetName(), err}
	}
	if sub == "" {
		return path, volume, nil
	}
	defer volume.Close()
	if isImage(pod, m.GetName()) {
		f, err := volumes.InRoot(volume, sub)
		if err != nil {
			err = fmt.Errorf("%w: volume %s: subPath %q: %w", ErrImageVolume, m.GetName(), sub, err)
		}
		return path, f, err
	}
	f, err := volumes.Within(volume, sub)
	if errors.Is(err, volumes.ErrUnfit) {
		err = fmt.Errorf("%w: subPath of volume %s: %w", objects.ErrConfig, m.GetName(), err)
	}
	return path, f, err
}

// subPath returns the path in the volume that is mounted, empty for all of the volume. The error
// wraps objects.ErrConfig when it refers to a variable that the container does not have: what is
// mounted then would be something else than was meant.
func subPath(m *corev1.VolumeMount, values map[string]string) (string, error) {
	if m.GetSubPathExpr() == "" {
		return m.GetSubPath(), nil
	}
	var missing []string
	sub := environment.ExpandBy(m.GetSubPathExpr(), func(name string) string {
		if values[name] == "" {
			missing = append(missing, name)
		}
		return values[name]
	})
	if len(missing) > 0 {
		return "", fmt.Errorf(
			"%w: subPathExpr %q of volume %s: the container has no environment variable %s",
			objects.ErrConfig,
			m.GetSubPathExpr(),
			m.GetName(),
			strings.Join(missing, ", "),
		)
	}
	return sub, nil
}

// noexec is the option of a mount from which no program is run.
const noexec = "noexec"

// ImageVolumes returns the volumes that a container mounts and that are files of images.
func ImageVolumes(pod *corev1.Pod, c *corev1.Container) []*corev1.Volume {
	var out []*corev1.Volume
	for _, v := range pod.GetSpec().GetVolumes() {
		named := func(m *corev1.VolumeMount) bool { return m.GetName() == v.GetName() }
		if v.GetVolumeSource().GetImage() != nil && slices.ContainsFunc(c.GetVolumeMounts(), named) {
			out = append(out, v)
		}
	}
	return out
}

// isImage reports whether a volume is the files of an image.
func isImage(pod *corev1.Pod, volume string) bool {
	return slices.ContainsFunc(pod.GetSpec().GetVolumes(), func(v *corev1.Volume) bool {
		return v.GetName() == volume && v.GetVolumeSource().GetImage() != nil
	})
}

// hostPath returns the path of the node that a volume stands for, nil for another volume.
func hostPath(pod *corev1.Pod, volume string) *corev1.HostPathVolumeSource {
	for _, v := range pod.GetSpec().GetVolumes() {
		if v.GetName() == volume {
			return v.GetVolumeSource().GetHostPath()
		}
	}
	return nil
}

// OpenHostPath opens a path of the node, which is made where its type says so. The error wraps
// objects.ErrConfig when it is not of its type.
func OpenHostPath(src *corev1.HostPathVolumeSource) (*os.File, error) {
	f, err := volumes.HostPath(src.GetPath(), src.GetType())
	if errors.Is(err, volumes.ErrUnfit) {
		err = fmt.Errorf("%w: %w", objects.ErrConfig, err)
	}
	return f, err
}

// target is where in a container something is mounted.
func target(path string) string { return filepath.Clean("/" + path) }

func messageTarget(c *corev1.Container) string {
	return target(cmp.Or(c.GetTerminationMessagePath(), "/dev/termination-log"))
}

// targets are all paths at which the agent mounts something in a container.
func targets(c *corev1.Container) []string {
	out := []string{"/etc/hosts", "/etc/resolv.conf", "/etc/hostname", messageTarget(c)}
	for _, m := range c.GetVolumeMounts() {
		out = append(out, target(m.GetMountPath()))
	}
	return out
}

// mountedIn returns at which of the targets a path is: the deepest one above it, empty for none.
func mountedIn(path string, targets []string) string {
	for above := filepath.Dir(path); above != "/"; above = filepath.Dir(above) {
		if slices.Contains(targets, above) {
			return above
		}
	}
	return ""
}

// Points returns the paths in a volume at which containers of the pod have something else mounted.
func Points(pod *corev1.Pod, volume string) []string {
	var out []string
	for _, c := range resources.Containers(pod) {
		all := targets(c)
		for _, m := range c.GetVolumeMounts() {
			if m.GetName() != volume || m.GetSubPath() != "" || m.GetSubPathExpr() != "" {
				continue
			}
			at := target(m.GetMountPath())
			for _, t := range all {
				if point, err := filepath.Rel(at, t); err == nil && mountedIn(t, all) == at && !slices.Contains(out, point) {
					out = append(out, point)
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// makePoints makes the mount points that runc can't make, for they are in volumes that it has
// mounted read-only by then. Those in paths of the node are the node's affair. The error wraps
// objects.ErrConfig when one can't be made.
func makePoints(pod *corev1.Pod, c *corev1.Container, mounts []runtime.Mount) error {
	at, all := map[string]runtime.Mount{}, make([]string, 0, len(mounts))
	for _, m := range mounts {
		at[m.Target], all = m, append(all, m.Target)
	}
	volumeAt := map[string]string{}
	for _, m := range c.GetVolumeMounts() {
		volumeAt[target(m.GetMountPath())] = m.GetName()
	}
	for _, m := range mounts {
		in := mountedIn(m.Target, all)
		name := volumeAt[in]
		if name == "" || !at[in].ReadOnly || hostPath(pod, name) != nil {
			continue
		}
		if err := makePoint(at[in], m); errors.Is(err, volumes.ErrUnfit) {
			return &VolumeError{name, fmt.Errorf("%w: %w", objects.ErrConfig, err)}
		} else if err != nil {
			return &VolumeError{name, err}
		}
	}
	return nil
}

// makePoint makes the mount point for one mount in another.
func makePoint(in, m runtime.Mount) error {
	volume := in.File
	if volume == nil {
		var err error
		if volume, err = volumes.Open(in.Source); err != nil {
			return err
		}
		defer volume.Close()
	}
	stat := func() (os.FileInfo, error) { return os.Stat(m.Source) }
	if m.File != nil {
		stat = m.File.Stat
	}
	info, err := stat()
	if err != nil {
		return err
	}
	point, err := filepath.Rel(in.Target, m.Target)
	if err != nil {
		return err
	}
	return volumes.MountPoint(volume, point, info.IsDir())
}

// readOnlyBelow reports whether what is mounted below a volume is read-only to the container too.
// The error wraps objects.ErrConfig when that must be so and can't.
func readOnlyBelow(m *corev1.VolumeMount, can func() bool) (bool, error) {
	switch {
	case !m.GetReadOnly():
		return false, nil
	case m.GetRecursiveReadOnly() == core.ReadOnlyBelowIfPossible:
		return can(), nil
	case m.GetRecursiveReadOnly() != core.ReadOnlyBelowEnabled:
		return false, nil
	case !can():
		return false, fmt.Errorf(
			"%w: volume %s: recursiveReadOnly requires Linux 5.12 and runc 1.1 on the node: use IfPossible, or another node",
			objects.ErrConfig,
			m.GetName(),
		)
	}
	return true, nil
}

// Statuses tells how a container's volumes are mounted where that depends on the node; nil where it
// does not.
func Statuses(c *corev1.Container, deep func() bool) []*corev1.VolumeMountStatus {
	if !slices.ContainsFunc(c.GetVolumeMounts(), func(m *corev1.VolumeMount) bool { return m.RecursiveReadOnly != nil }) {
		return nil
	}
	var out []*corev1.VolumeMountStatus
	for _, m := range c.GetVolumeMounts() {
		s := &corev1.VolumeMountStatus{Name: m.GetName(), MountPath: m.GetMountPath(), ReadOnly: m.GetReadOnly()}
		if m.RecursiveReadOnly != nil {
			below, err := readOnlyBelow(m, deep)
			s.RecursiveReadOnly = proto.String(core.ReadOnlyBelowDisabled)
			if below && err == nil {
				s.RecursiveReadOnly = proto.String(core.ReadOnlyBelowEnabled)
			}
		}
		out = append(out, s)
	}
	return out
}

// readOnlyVolume reports whether a volume's content is not the container's to change.
func readOnlyVolume(pod *corev1.Pod, name string) bool {
	return isImage(pod, name) || slices.ContainsFunc(pod.GetSpec().GetVolumes(), func(v *corev1.Volume) bool {
		return v.GetName() == name && projection.IsProjected(v.GetVolumeSource())
	})
}
