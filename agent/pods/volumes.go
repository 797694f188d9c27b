package pods

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/pods/mounts"
	"github.com/xebec-project/xebec/agent/pods/objects"
	"github.com/xebec-project/xebec/agent/pods/projection"
	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/agent/pods/tokens"
	"github.com/xebec-project/xebec/agent/volumes"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// fsGroup returns the group that owns the pod's volumes, nil for none.
func fsGroup(pod *corev1.Pod) *int64 {
	if sc := pod.GetSpec().GetSecurityContext(); sc != nil {
		return sc.FsGroup
	}
	return nil
}

// makeVolumes makes what the pod's volumes stand for. The error wraps objects.ErrConfig when one
// refers to what does not exist, or is of a kind that the agent does not know.
func (w *worker) makeVolumes(ctx context.Context, pod *corev1.Pod) error {
	for _, v := range pod.GetSpec().GetVolumes() {
		if _, ok := w.volumes[v.GetName()]; ok {
			continue
		}
		path, err := w.makeVolume(ctx, pod, v)
		if err != nil {
			if errors.Is(err, mounts.ErrImageVolume) {
				return err
			}
			return &mounts.VolumeError{Name: v.GetName(), Err: err}
		}
		if path != "" {
			w.volumes[v.GetName()] = path
		}
	}
	w.cfg.followers.Follow(w, objects.References(pod))
	return nil
}

// makeVolume makes what a volume stands for and returns its path on the node, empty for that of an
// image which no container needs yet. It is idempotent.
func (w *worker) makeVolume(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (string, error) {
	src, path := v.GetVolumeSource(), w.dir.Volume(v.GetName())
	group := volumes.Group(fsGroup(pod))
	always := pod.GetSpec().GetSecurityContext().GetFsGroupChangePolicy() == "Always"
	switch {
	case src.GetHostPath() != nil:
		f, err := mounts.OpenHostPath(src.GetHostPath())
		if err != nil {
			return "", err
		}
		// Each container's mount opens and checks it again: that may be much later.
		return src.GetHostPath().GetPath(), f.Close()
	case src.GetEmptyDir().GetMedium() == "Memory":
		size := resources.Quantity(src.GetEmptyDir().GetSizeLimit())
		return path, volumes.Memory(path, size.Value(), group, always)
	case src.GetEmptyDir() != nil:
		return path, volumes.Empty(path, group, always)
	case projection.IsProjected(src):
		_, err := w.project(ctx, pod, v)
		return path, err
	case src.GetImage() != nil:
		return w.mountImage(ctx, v.GetName())
	}
	if claim := src.GetPersistentVolumeClaim(); claim != nil {
		return "", fmt.Errorf("persistentVolumeClaim volumes are not mounted yet: claim %q", claim.GetClaimName())
	}
	return "", fmt.Errorf("%w: unsupported volume type", objects.ErrConfig)
}

// hasImageVolume reports whether the files of an image are mounted, or the image is there for that.
func (w *worker) hasImageVolume(name string) (bool, error) {
	if w.volumeImages[name] != "" {
		return true, nil
	}
	return volumes.Mounted(w.dir.Volume(name))
}

// mountImage mounts the files of a volume's image and returns where, an empty path while the image
// is not there. The error wraps mounts.ErrImageVolume.
func (w *worker) mountImage(ctx context.Context, name string) (string, error) {
	path, image := w.dir.Volume(name), w.volumeImages[name]
	switch mounted, err := volumes.Mounted(path); {
	case err != nil:
		return "", fmt.Errorf("%w: volume %s: %w", mounts.ErrImageVolume, name, err)
	case mounted:
		return path, nil
	case image == "":
		return "", nil
	}
	if err := w.cfg.Runtime.MountImage(ctx, w.uid, name, image, path); err != nil {
		// The image may have been removed meanwhile.
		delete(w.volumeImages, name)
		return "", fmt.Errorf("%w: volume %s: %w", mounts.ErrImageVolume, name, err)
	}
	return path, nil
}

// project brings a volume's files up to what the objects say now.
func (w *worker) project(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (changed bool, err error) {
	files, err := projection.Files(
		ctx,
		v.GetVolumeSource(),
		objects.Cache{Cluster: w.cfg.Cluster, Dir: w.dir, Namespace: w.namespace},
		w.surroundings(pod),
		func(r tokens.Request) (string, error) {
			return w.tokens.Get(ctx, pod, r)
		},
	)
	if err != nil {
		return false, err
	}
	group := volumes.Group(fsGroup(pod))
	// What may be secret never reaches a disk.
	inMemory := v.GetVolumeSource().GetConfigMap() == nil
	changed, err = volumes.Project(w.dir.Volume(v.GetName()), files, mounts.Points(pod, v.GetName()), group, inMemory)
	if errors.Is(err, volumes.ErrUnfit) {
		err = fmt.Errorf("%w: %w", objects.ErrConfig, err)
	}
	return changed, err
}

// refreshVolumes brings the files of running containers up to date, when what they show may have
// changed. It returns after what time to try again, 0 when all is well.
func (w *worker) refreshVolumes(ctx context.Context, pod *corev1.Pod) time.Duration {
	runs := func(c *container) bool { return c.running }
	if len(w.volumes) < len(pod.GetSpec().GetVolumes()) && slices.ContainsFunc(w.containers, runs) {
		// A previous agent made them. From now on this one follows what they show.
		if err := w.makeVolumes(ctx, pod); err != nil {
			w.cfg.Recorder.Event(pod, "Warning", "FailedMount", err.Error())
			return w.cfg.ConfigRetry
		}
	}
	w.mu.Lock()
	stale := w.stale
	w.stale = false
	w.mu.Unlock()
	m := pod.GetMetadata()
	renamed := !maps.Equal(w.shown.GetLabels(), m.GetLabels()) || !maps.Equal(w.shown.GetAnnotations(), m.GetAnnotations())
	w.shown = m
	var errs []error
	for _, v := range pod.GetSpec().GetVolumes() {
		_, made := w.volumes[v.GetName()]
		if !made || !projection.IsProjected(v.GetVolumeSource()) {
			continue
		}
		if _, due := w.tokens.Due(v); !stale && !due && (!renamed || !projection.ShowsPod(v.GetVolumeSource())) {
			continue
		}
		changed, err := w.project(ctx, pod, v)
		if err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", v.GetName(), err))
		} else if changed {
			w.log.Debug("Volume changed", zap.String(metrics.KeyVolume, v.GetName()))
		}
	}
	if err := errors.Join(errs...); err != nil {
		// The containers go on with the files as they were.
		w.cfg.Recorder.Event(pod, "Warning", "FailedMount", err.Error())
		w.outdated()
		return w.cfg.ConfigRetry
	}
	var next time.Duration
	for _, v := range pod.GetSpec().GetVolumes() {
		wait, due := w.tokens.Due(v)
		if _, made := w.volumes[v.GetName()]; !made {
			continue
		}
		if due {
			wait = w.cfg.ConfigRetry
		}
		if wait > 0 && (next == 0 || wait < next) {
			next = wait
		}
	}
	return next
}

// ObjectsChanged implements subscriber: files of volumes may no longer be what the objects say.
func (w *worker) ObjectsChanged() {
	w.outdated()
	w.nudge()
}

// outdated makes the next round compare the files of volumes with the objects.
func (w *worker) outdated() {
	w.mu.Lock()
	w.stale = true
	w.mu.Unlock()
}
