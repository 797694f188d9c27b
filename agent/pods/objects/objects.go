// Package objects reads the config maps and secrets that pods refer to, stores a copy of each for
// times without a control plane, and watches those that volumes show.
package objects

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	"github.com/xebec-project/xebec/internal/apierr"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// ErrConfig wraps what a pod refers to and does not exist. The worker shows it as
// CreateContainerConfigError.
var ErrConfig = errors.New("invalid container config")

// Reader reads what a pod's spec refers to.
type Reader interface {
	ConfigMap(ctx context.Context, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, name string) (*corev1.Secret, error)
}

// Source reads config maps and secrets from the control plane. Its errors are those of package
// apierr.
type Source interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Cache reads config maps and secrets for a pod. It stores a copy of each for times without a
// control plane, of secrets in memory only.
type Cache struct {
	Cluster   Source
	Dir       checkpoint.Dir
	Namespace string
}

// ConfigMap implements objects.
func (o Cache) ConfigMap(ctx context.Context, name string) (*corev1.ConfigMap, error) {
	cm := &corev1.ConfigMap{}
	err := o.read(ctx, checkpoint.ConfigMapObject, name, cm, func(ctx context.Context) (proto.Message, error) {
		return o.Cluster.ConfigMap(ctx, o.Namespace, name)
	})
	return cm, err
}

// Secret implements objects.
func (o Cache) Secret(ctx context.Context, name string) (*corev1.Secret, error) {
	s := &corev1.Secret{}
	err := o.read(ctx, "secret", name, s, func(ctx context.Context) (proto.Message, error) {
		return o.Cluster.Secret(ctx, o.Namespace, name)
	})
	return s, err
}

func (o Cache) read(ctx context.Context, kind, name string, into proto.Message, get func(context.Context) (proto.Message, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	m, err := get(ctx)
	switch {
	case err == nil:
		proto.Reset(into)
		proto.Merge(into, m)
		return checkpoint.SaveMessage(o.Dir.Object(kind, name), m)
	case apierr.IsNotFound(err):
		return fmt.Errorf("%w: %s %q not found: create it in namespace %s, or mark the reference optional", ErrConfig, kind, name, o.Namespace)
	}
	if checkpoint.LoadMessage(o.Dir.Object(kind, name), into) == nil {
		return nil
	}
	return fmt.Errorf("reading %s %s: %w", kind, name, err)
}

// Optional forgets that an object does not exist when it need not.
func Optional(err error, may bool) error {
	if may && errors.Is(err, ErrConfig) {
		return nil
	}
	return err
}
