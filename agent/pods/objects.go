package pods

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// podObjects reads config maps and secrets for the pod; it keeps a copy of each for times without a control plane, of secrets in
// memory only.
type podObjects struct{ w *worker }

func (o podObjects) configMap(ctx context.Context, name string) (*corev1.ConfigMap, error) {
	cm := &corev1.ConfigMap{}
	err := o.read(ctx, configMapObject, name, cm, func(ctx context.Context) (proto.Message, error) {
		return o.w.cfg.Cluster.ConfigMap(ctx, o.w.namespace, name)
	})
	return cm, err
}

func (o podObjects) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	s := &corev1.Secret{}
	err := o.read(ctx, "secret", name, s, func(ctx context.Context) (proto.Message, error) {
		return o.w.cfg.Cluster.Secret(ctx, o.w.namespace, name)
	})
	return s, err
}

func (o podObjects) read(ctx context.Context, kind, name string, into proto.Message, get func(context.Context) (proto.Message, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	m, err := get(ctx)
	switch {
	case err == nil:
		proto.Reset(into)
		proto.Merge(into, m)
		return saveMessage(o.w.dir.object(kind, name), m)
	case apierr.IsNotFound(err):
		return fmt.Errorf("%w: %s %q not found: create it in namespace %s, or mark the reference optional", errConfig, kind, name, o.w.namespace)
	}
	if loadMessage(o.w.dir.object(kind, name), into) == nil {
		return nil
	}
	return fmt.Errorf("reading %s %s: %w", kind, name, err)
}
