// Package projection computes the files of volumes that show objects of the control plane: config
// maps, secrets, the downward API and service account tokens.
package projection

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/xebec-project/xebec/agent/pods/environment"
	"github.com/xebec-project/xebec/agent/pods/objects"
	"github.com/xebec-project/xebec/agent/pods/tokens"
	"github.com/xebec-project/xebec/agent/volumes"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// defaultFileMode is the mode of projected files that name none.
const defaultFileMode = 0o644

// IsProjected reports whether a volume shows objects of the control plane as files.
func IsProjected(s *corev1.VolumeSource) bool {
	return s.GetConfigMap() != nil || s.GetSecret() != nil || s.GetDownwardApi() != nil || s.GetProjected() != nil
}

// ShowsPod reports whether a volume shows fields of the pod.
func ShowsPod(s *corev1.VolumeSource) bool {
	return s.GetDownwardApi() != nil || slices.ContainsFunc(s.GetProjected().GetSources(), func(p *corev1.VolumeProjection) bool {
		return p.GetDownwardApi() != nil
	})
}

// Files computes the files of a projected volume. Token makes a token of the pod's service account.
// The error wraps objects.ErrConfig when the volume refers to what does not exist.
func Files(
	ctx context.Context,
	src *corev1.VolumeSource,
	reader objects.Reader,
	around environment.Surroundings,
	token func(tokens.Request) (string, error),
) (map[string]volumes.File, error) {
	p := projection{files: map[string]volumes.File{}, objects: reader, around: around}
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
			if text, err = token(tokens.RequestOf(s.GetServiceAccountToken())); err == nil {
				p.add(s.GetServiceAccountToken().GetPath(), []byte(text), nil)
			}
		default:
			err = fmt.Errorf("%w: unsupported source of a projected volume", objects.ErrConfig)
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
	objects objects.Reader
	around  environment.Surroundings
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
	cm, err := p.objects.ConfigMap(ctx, name)
	if err = objects.Optional(err, may); err != nil {
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
	s, err := p.objects.Secret(ctx, name)
	if err = objects.Optional(err, may); err != nil {
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
			return fmt.Errorf("%w: couldn't find key %[3]q in %[2]s", objects.ErrConfig, object, item.GetKey())
		}
	}
	return nil
}

func (p *projection) downward(items []*corev1.DownwardAPIVolumeFile) error {
	for _, item := range items {
		var text string
		var err error
		if ref := item.GetResourceFieldRef(); ref != nil {
			text, err = environment.ResourceValue(ref, nil, p.around)
		} else {
			text, err = environment.FieldValue(item.GetFieldRef().GetFieldPath(), p.around)
		}
		if err != nil {
			return fmt.Errorf("file %s: %w", item.GetPath(), err)
		}
		p.add(item.GetPath(), []byte(text), item.Mode)
	}
	return nil
}
