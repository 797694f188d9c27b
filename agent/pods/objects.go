package pods

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// errConfig wraps what a pod refers to and does not exist. The worker shows it as CreateContainerConfigError.
var errConfig = errors.New("invalid container config")

// objects reads what a pod's spec refers to.
type objects interface {
	ConfigMap(ctx context.Context, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, name string) (*corev1.Secret, error)
}

// reader reads config maps and secrets from the control plane. Its errors are those of package apierr.
type reader interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// podObjects reads config maps and secrets for a pod. It stores a copy of each for times without a control plane, of secrets in
// memory only.
type podObjects struct {
	cluster   reader
	dir       dir
	namespace string
}

// ConfigMap implements objects.
func (o podObjects) ConfigMap(ctx context.Context, name string) (*corev1.ConfigMap, error) {
	cm := &corev1.ConfigMap{}
	err := o.read(ctx, configMapObject, name, cm, func(ctx context.Context) (proto.Message, error) {
		return o.cluster.ConfigMap(ctx, o.namespace, name)
	})
	return cm, err
}

// Secret implements objects.
func (o podObjects) Secret(ctx context.Context, name string) (*corev1.Secret, error) {
	s := &corev1.Secret{}
	err := o.read(ctx, "secret", name, s, func(ctx context.Context) (proto.Message, error) {
		return o.cluster.Secret(ctx, o.namespace, name)
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
		return saveMessage(o.dir.object(kind, name), m)
	case apierr.IsNotFound(err):
		return fmt.Errorf("%w: %s %q not found: create it in namespace %s, or mark the reference optional", errConfig, kind, name, o.namespace)
	}
	if loadMessage(o.dir.object(kind, name), into) == nil {
		return nil
	}
	return fmt.Errorf("reading %s %s: %w", kind, name, err)
}

// optional forgets that an object does not exist when it need not.
func optional(err error, may bool) error {
	if may && errors.Is(err, errConfig) {
		return nil
	}
	return err
}
