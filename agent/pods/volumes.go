package pods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/volumes"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// defaultFileMode is the mode of projected files that name none.
const defaultFileMode = 0o644

// projected tells whether a volume shows objects of the control plane as files.
func projected(s *corev1.VolumeSource) bool {
	return s.GetConfigMap() != nil || s.GetSecret() != nil || s.GetDownwardApi() != nil || s.GetProjected() != nil
}

// fsGroup returns the group that owns the pod's volumes, nil for none.
func fsGroup(pod *corev1.Pod) *int64 {
	if sc := pod.GetSpec().GetSecurityContext(); sc != nil {
		return sc.FsGroup
	}
	return nil
}

// tellsOfPod tells whether a volume shows fields of the pod.
func tellsOfPod(s *corev1.VolumeSource) bool {
	return s.GetDownwardApi() != nil || slices.ContainsFunc(s.GetProjected().GetSources(), func(p *corev1.VolumeProjection) bool {
		return p.GetDownwardApi() != nil
	})
}

// makeVolumes makes what the pod's volumes stand for. The error wraps errConfig when one refers to what does not exist, or
// is of a kind that the agent does not know.
func (w *worker) makeVolumes(ctx context.Context, pod *corev1.Pod) error {
	for _, v := range pod.GetSpec().GetVolumes() {
		if _, ok := w.volumes[v.GetName()]; ok {
			continue
		}
		path, err := w.makeVolume(ctx, pod, v)
		if err != nil {
			return volumeError(v.GetName(), err)
		}
		w.volumes[v.GetName()] = path
	}
	w.cfg.followers.follow(w, references(pod))
	return nil
}

// makeVolume makes what a volume stands for and returns its path on the node. It is idempotent.
func (w *worker) makeVolume(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (string, error) {
	src, path := v.GetVolumeSource(), w.dir.volume(v.GetName())
	group := volumes.Group(fsGroup(pod))
	always := pod.GetSpec().GetSecurityContext().GetFsGroupChangePolicy() == "Always"
	switch {
	case src.GetHostPath() != nil:
		f, err := openHostPath(src.GetHostPath())
		if err != nil {
			return "", err
		}
		// Each container's mount opens and checks it again: that may be much later.
		return src.GetHostPath().GetPath(), f.Close()
	case src.GetEmptyDir().GetMedium() == "Memory":
		size := quantity(src.GetEmptyDir().GetSizeLimit())
		return path, volumes.Memory(path, size.Value(), group, always)
	case src.GetEmptyDir() != nil:
		return path, volumes.Empty(path, group, always)
	case projected(src):
		_, err := w.project(ctx, pod, v)
		return path, err
	}
	return "", fmt.Errorf("%w: it is of a kind that this agent does not support", errConfig)
}

// project brings a volume's files up to what the objects say now.
func (w *worker) project(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (changed bool, err error) {
	files, err := w.projection(ctx, pod, v.GetVolumeSource())
	if err != nil {
		return false, err
	}
	group := volumes.Group(fsGroup(pod))
	// What may be secret never reaches a disk.
	inMemory := v.GetVolumeSource().GetConfigMap() == nil
	changed, err = volumes.Project(w.dir.volume(v.GetName()), files, pointsIn(pod, v.GetName()), group, inMemory)
	if errors.Is(err, volumes.ErrUnfit) {
		err = fmt.Errorf("%w: %w", errConfig, err)
	}
	return changed, err
}

// refreshVolumes brings the files of running containers up to date, when what they show may have changed. It returns after
// what time to try again, 0 when all is well.
func (w *worker) refreshVolumes(ctx context.Context, pod *corev1.Pod) time.Duration {
	runs := func(c *container) bool { return c.running }
	if len(w.volumes) < len(pod.GetSpec().GetVolumes()) && slices.ContainsFunc(w.containers, runs) {
		// An agent before this one made them. From now on this one follows what they show.
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
		if !made || !projected(v.GetVolumeSource()) {
			continue
		}
		if _, due := w.renewalDue(v); !stale && !due && (!renamed || !tellsOfPod(v.GetVolumeSource())) {
			continue
		}
		changed, err := w.project(ctx, pod, v)
		if err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", v.GetName(), err))
		} else if changed {
			w.log.Debug("Volume changed", zap.String("volume", v.GetName()))
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
		wait, due := w.renewalDue(v)
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

// outdated tells that the files of volumes may no longer be what the objects say.
func (w *worker) outdated() {
	w.mu.Lock()
	w.stale = true
	w.mu.Unlock()
}

// projection computes the files of a volume.
func (w *worker) projection(ctx context.Context, pod *corev1.Pod, src *corev1.VolumeSource) (map[string]volumes.File, error) {
	p := projection{files: map[string]volumes.File{}, objects: podObjects{w}, around: w.surroundings(pod)}
	switch {
	case src.GetConfigMap() != nil:
		s := src.GetConfigMap()
		p.setMode(s.DefaultMode)
		return p.files, p.configMap(ctx, s.GetLocalObjectReference().GetName(), s.GetItems(), s.GetOptional())
	case src.GetSecret() != nil:
		s := src.GetSecret()
		p.setMode(s.DefaultMode)
		return p.files, p.secret(ctx, s.GetSecretName(), s.GetItems(), s.GetOptional())
	case src.GetDownwardApi() != nil:
		p.setMode(src.GetDownwardApi().DefaultMode)
		return p.files, p.downward(src.GetDownwardApi().GetItems())
	}
	p.setMode(src.GetProjected().DefaultMode)
	for _, s := range src.GetProjected().GetSources() {
		var err error
		switch {
		case s.GetConfigMap() != nil:
			err = p.configMap(ctx, s.GetConfigMap().GetLocalObjectReference().GetName(), s.GetConfigMap().GetItems(), s.GetConfigMap().GetOptional())
		case s.GetSecret() != nil:
			err = p.secret(ctx, s.GetSecret().GetLocalObjectReference().GetName(), s.GetSecret().GetItems(), s.GetSecret().GetOptional())
		case s.GetDownwardApi() != nil:
			err = p.downward(s.GetDownwardApi().GetItems())
		case s.GetServiceAccountToken() != nil:
			var text string
			if text, err = w.token(ctx, pod, request(s.GetServiceAccountToken())); err == nil {
				p.add(s.GetServiceAccountToken().GetPath(), []byte(text), nil)
			}
		default:
			err = fmt.Errorf("%w: a source is of a kind that this agent does not support", errConfig)
		}
		if err != nil {
			return nil, err
		}
	}
	return p.files, nil
}

// projection gathers files from objects.
type projection struct {
	files   map[string]volumes.File
	mode    fs.FileMode
	objects objects
	around  surroundings
}

func (p *projection) setMode(mode *int32) {
	p.mode = defaultFileMode
	if mode != nil {
		p.mode = fs.FileMode(*mode)
	}
}

func (p *projection) add(path string, content []byte, mode *int32) {
	f := volumes.File{Content: content, Mode: p.mode}
	if mode != nil {
		f.Mode = fs.FileMode(*mode)
	}
	p.files[path] = f
}

func (p *projection) configMap(ctx context.Context, name string, items []*corev1.KeyToPath, may bool) error {
	cm, err := p.objects.configMap(ctx, name)
	if err = optional(err, may); err != nil {
		return err
	}
	data := maps.Clone(cm.GetBinaryData())
	if data == nil {
		data = map[string][]byte{}
	}
	for k, text := range cm.GetData() {
		data[k] = []byte(text)
	}
	return p.keys(fmt.Sprintf("config map %q", name), data, items, may)
}

func (p *projection) secret(ctx context.Context, name string, items []*corev1.KeyToPath, may bool) error {
	s, err := p.objects.secret(ctx, name)
	if err = optional(err, may); err != nil {
		return err
	}
	return p.keys(fmt.Sprintf("secret %q", name), s.GetData(), items, may)
}

func (p *projection) keys(object string, data map[string][]byte, items []*corev1.KeyToPath, may bool) error {
	if len(items) == 0 {
		for key, content := range data {
			p.add(key, content, nil)
		}
		return nil
	}
	for _, item := range items {
		content, ok := data[item.GetKey()]
		switch {
		case ok:
			p.add(item.GetPath(), content, item.Mode)
		case !may:
			return fmt.Errorf("%w: %s has no key %q", errConfig, object, item.GetKey())
		}
	}
	return nil
}

func (p *projection) downward(items []*corev1.DownwardAPIVolumeFile) error {
	for _, item := range items {
		var text string
		var err error
		if ref := item.GetResourceFieldRef(); ref != nil {
			text, err = resourceValue(ref, nil, p.around)
		} else {
			text, err = fieldValue(item.GetFieldRef().GetFieldPath(), p.around)
		}
		if err != nil {
			return fmt.Errorf("file %s: %w", item.GetPath(), err)
		}
		p.add(item.GetPath(), []byte(text), item.Mode)
	}
	return nil
}

// references returns the objects that the pod's volumes show.
func references(pod *corev1.Pod) []reference {
	var out []reference
	add := func(kind, name string) {
		if r := (reference{kind, pod.GetMetadata().GetNamespace(), name}); name != "" && !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	for _, v := range pod.GetSpec().GetVolumes() {
		src := v.GetVolumeSource()
		add(kindConfigMap, src.GetConfigMap().GetLocalObjectReference().GetName())
		add(kindSecret, src.GetSecret().GetSecretName())
		for _, s := range src.GetProjected().GetSources() {
			add(kindConfigMap, s.GetConfigMap().GetLocalObjectReference().GetName())
			add(kindSecret, s.GetSecret().GetLocalObjectReference().GetName())
		}
	}
	return out
}
