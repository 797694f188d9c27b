// Package environment computes the environment variables of a container: those of its spec, of
// config maps, secrets and files, of the downward API, and of services.
package environment

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/xebec-project/xebec/agent/pods/objects"
	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Surroundings is what the environment of a container may tell about the pod and the node.
type Surroundings struct {
	Pod    *corev1.Pod
	PodIP  string
	HostIP string
	// PodIPs and hostIPs are of both families, with a comma between.
	PodIPs, HostIPs string
	NodeName        string
	MilliCPU        int64
	MemoryBytes     int64
	// VolumeDir returns the directory of a volume of the pod.
	VolumeDir func(name string) string
}

// Build computes a container's variables, in order and each name once; what its spec says comes
// after the links to services and counts before them. The error wraps objects.ErrConfig when the
// spec asks for what does not exist; apart from that it is that of reading objects.
func Build(
	ctx context.Context,
	c *corev1.Container,
	s Surroundings,
	links []variable,
	objs objects.Reader,
) ([]string, map[string]string, error) {
	values := map[string]string{}
	var order []string
	set := func(name, value string) {
		if _, ok := values[name]; !ok {
			order = append(order, name)
		}
		values[name] = value
	}
	for _, v := range links {
		set(v.name, v.value)
	}
	for _, from := range c.GetEnvFrom() {
		data, err := envFrom(ctx, from, objs)
		if err != nil {
			return nil, nil, err
		}
		// Every key makes a name of printable characters without "=", which is all that a name has to be.
		for _, key := range slices.Sorted(maps.Keys(data)) {
			set(from.GetPrefix()+key, data[key])
		}
	}
	for _, e := range c.GetEnv() {
		if e.GetValueFrom() == nil {
			set(e.GetName(), expand(e.GetValue(), values))
			continue
		}
		value, ok, err := valueFrom(ctx, e.GetValueFrom(), c, s, objs)
		if err != nil {
			return nil, nil, fmt.Errorf("variable %s: %w", e.GetName(), err)
		}
		if ok {
			set(e.GetName(), value)
		}
	}
	out := make([]string, 0, len(order))
	for _, name := range order {
		out = append(out, name+"="+values[name])
	}
	return out, values, nil
}

func envFrom(ctx context.Context, from *corev1.EnvFromSource, objs objects.Reader) (map[string]string, error) {
	switch {
	case from.GetConfigMapRef() != nil:
		cm, err := objs.ConfigMap(ctx, from.GetConfigMapRef().GetLocalObjectReference().GetName())
		if err != nil {
			return nil, objects.Optional(err, from.GetConfigMapRef().GetOptional())
		}
		return cm.GetData(), nil
	case from.GetSecretRef() != nil:
		secret, err := objs.Secret(ctx, from.GetSecretRef().GetLocalObjectReference().GetName())
		if err != nil {
			return nil, objects.Optional(err, from.GetSecretRef().GetOptional())
		}
		data := map[string]string{}
		for k, v := range secret.GetData() {
			data[k] = string(v)
		}
		return data, nil
	}
	return nil, nil
}

func valueFrom(
	ctx context.Context,
	from *corev1.EnvVarSource,
	c *corev1.Container,
	s Surroundings,
	objs objects.Reader,
) (value string, ok bool, err error) {
	switch {
	case from.GetFieldRef() != nil:
		v, err := FieldValue(from.GetFieldRef().GetFieldPath(), s)
		return v, err == nil, err
	case from.GetResourceFieldRef() != nil:
		v, err := ResourceValue(from.GetResourceFieldRef(), c, s)
		return v, err == nil, err
	case from.GetConfigMapKeyRef() != nil:
		ref := from.GetConfigMapKeyRef()
		name := ref.GetLocalObjectReference().GetName()
		cm, err := objs.ConfigMap(ctx, name)
		if err != nil {
			return "", false, objects.Optional(err, ref.GetOptional())
		}
		if v, ok := cm.GetData()[ref.GetKey()]; ok || ref.GetOptional() {
			return v, ok, nil
		}
		return "", false, fmt.Errorf("%w: couldn't find key %[3]q in ConfigMap %[2]q", objects.ErrConfig, name, ref.GetKey())
	case from.GetSecretKeyRef() != nil:
		ref := from.GetSecretKeyRef()
		name := ref.GetLocalObjectReference().GetName()
		secret, err := objs.Secret(ctx, name)
		if err != nil {
			return "", false, objects.Optional(err, ref.GetOptional())
		}
		if v, ok := secret.GetData()[ref.GetKey()]; ok || ref.GetOptional() {
			return string(v), ok, nil
		}
		return "", false, fmt.Errorf("%w: couldn't find key %[3]q in Secret %[2]q", objects.ErrConfig, name, ref.GetKey())
	case from.GetFileKeyRef() != nil:
		return fileValue(from.GetFileKeyRef(), s.VolumeDir)
	}
	return "", false, fmt.Errorf("%w: unsupported source in valueFrom", objects.ErrConfig)
}

// FieldValue returns a field of the pod, as the downward API names it. The error wraps
// objects.ErrConfig when there is no such field.
func FieldValue(path string, s Surroundings) (string, error) {
	m := s.Pod.GetMetadata()
	switch path {
	case "metadata.name":
		return m.GetName(), nil
	case "metadata.namespace":
		return m.GetNamespace(), nil
	case "metadata.uid":
		return m.GetUid(), nil
	case "spec.nodeName":
		return s.NodeName, nil
	case "spec.serviceAccountName":
		return s.Pod.GetSpec().GetServiceAccountName(), nil
	case "status.podIP":
		return s.PodIP, nil
	case "status.podIPs":
		return cmp.Or(s.PodIPs, s.PodIP), nil
	case "status.hostIP":
		return s.HostIP, nil
	case "status.hostIPs":
		return cmp.Or(s.HostIPs, s.HostIP), nil
	case "metadata.labels":
		return formatMap(m.GetLabels()), nil
	case "metadata.annotations":
		return formatMap(m.GetAnnotations()), nil
	}
	for prefix, values := range map[string]map[string]string{
		"metadata.labels['": m.GetLabels(), "metadata.annotations['": m.GetAnnotations(),
	} {
		if key, ok := strings.CutPrefix(path, prefix); ok && strings.HasSuffix(key, "']") {
			return values[strings.TrimSuffix(key, "']")], nil
		}
	}
	return "", fmt.Errorf("%w: unsupported fieldPath %q", objects.ErrConfig, path)
}

func formatMap(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s=%q\n", k, m[k])
	}
	return b.String()
}

// ResourceValue returns a limit or request of a container, c unless the reference names another
// one, in units of the divisor and rounded up. A container without a limit has the pod's, or else
// the node's. The error wraps objects.ErrConfig when the reference is invalid.
func ResourceValue(ref *corev1.ResourceFieldSelector, c *corev1.Container, s Surroundings) (string, error) {
	if name := ref.GetContainerName(); name != "" && name != c.GetName() {
		c = nil
		for _, other := range slices.Concat(s.Pod.GetSpec().GetContainers(), s.Pod.GetSpec().GetInitContainers()) {
			if other.GetName() == name {
				c = other
			}
		}
		if c == nil {
			return "", fmt.Errorf("%w: container %q not found in the pod", objects.ErrConfig, name)
		}
	}
	sort, name, _ := strings.Cut(ref.GetResource(), ".")
	var list map[string]*metav1.Quantity
	switch sort {
	case "limits":
		list = c.GetResources().GetLimits()
	case "requests":
		list = c.GetResources().GetRequests()
	default:
		return "", fmt.Errorf("%w: unsupported container resource %q", objects.ErrConfig, ref.GetResource())
	}
	divisor := resource.MustParse("1")
	if d := ref.GetDivisor().GetString_(); d != "" && d != "0" {
		var err error
		if divisor, err = object.ParseQuantity(d); err != nil {
			return "", fmt.Errorf("%w: invalid divisor %q: %w", objects.ErrConfig, d, err)
		}
	}
	q := resources.Quantity(list[name])
	if q.IsZero() && sort == "limits" {
		q = resources.Quantity(resources.Limit(s.Pod, c, name))
	}
	if q.IsZero() && sort == "limits" {
		switch name {
		case "cpu":
			q = *resource.NewMilliQuantity(s.MilliCPU, resource.DecimalSI)
		case "memory":
			q = *resource.NewQuantity(s.MemoryBytes, resource.BinarySI)
		}
	}
	v := float64(q.MilliValue()) / float64(divisor.MilliValue())
	if name == "memory" {
		v = float64(q.Value()) / float64(divisor.Value())
	}
	return strconv.FormatInt(int64(math.Ceil(v)), 10), nil
}

// expand replaces $(NAME) by the variable's value. What has no such variable stays as it is, and $$
// stands for one $.
func expand(s string, values map[string]string) string {
	return ExpandBy(s, func(name string) string {
		if v, ok := values[name]; ok {
			return v
		}
		return "$(" + name + ")"
	})
}

// ExpandBy is expand by what a function says of each variable.
func ExpandBy(s string, value func(name string) string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		switch {
		case strings.HasPrefix(after, "$"):
			b.WriteByte('$')
			s = after[1:]
		case strings.HasPrefix(after, "("):
			name, rest, closed := strings.Cut(after[1:], ")")
			if !closed {
				b.WriteString("$" + after)
				return b.String()
			}
			b.WriteString(value(name))
			s = rest
		default:
			b.WriteByte('$')
			s = after
		}
	}
}

// ExpandAll expands each string of a list.
func ExpandAll(list []string, values map[string]string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = expand(s, values)
	}
	return out
}
