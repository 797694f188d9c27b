package environment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/xebec-project/xebec/agent/pods/objects"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// known is a fixed set of objects.
type known struct {
	maps    map[string]map[string]string
	secrets map[string]map[string][]byte
}

func (k known) ConfigMap(_ context.Context, name string) (*corev1.ConfigMap, error) {
	if d, ok := k.maps[name]; ok {
		return &corev1.ConfigMap{Data: d}, nil
	}
	return nil, fmt.Errorf("%w: config map %q not found", objects.ErrConfig, name)
}

func (k known) Secret(_ context.Context, name string) (*corev1.Secret, error) {
	if d, ok := k.secrets[name]; ok {
		return &corev1.Secret{Data: d}, nil
	}
	return nil, fmt.Errorf("%w: secret %q not found", objects.ErrConfig, name)
}

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)"}
	for in, want := range map[string]string{
		"":         "",
		"$(A)":     "1",
		"x$(A)y":   "x1y",
		"$(B)":     "$(A)",
		"$$(A)":    "$(A)",
		"$(C)":     "$(C)",
		"$(A":      "$(A",
		"$A $":     "$A $",
		"$$$(A)$$": "$1$",
		"$($(A))":  "$($(A))",
	} {
		if got := expand(in, values); got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	ref := func(name string) *corev1.LocalObjectReference { return &corev1.LocalObjectReference{Name: name} }
	yes := true
	from := func(s *corev1.EnvVarSource) *corev1.Container {
		return &corev1.Container{Name: "c", Env: []*corev1.EnvVar{{Name: "V", ValueFrom: s}}, Resources: &corev1.ResourceRequirements{
			Limits:   map[string]*metav1.Quantity{"memory": {String_: "64Mi"}},
			Requests: map[string]*metav1.Quantity{"cpu": {String_: "250m"}},
		}}
	}
	field := func(path string) *corev1.Container {
		return from(&corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}})
	}
	res := func(name, divisor string) *corev1.Container {
		return from(&corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: name, Divisor: &metav1.Quantity{String_: divisor}}})
	}
	s := Surroundings{
		Pod: &corev1.Pod{
			Metadata: &metav1.ObjectMeta{Name: "web-0", Namespace: "shop", Uid: "u", Labels: map[string]string{"app": "web", "a/b": "c"}},
			Spec:     &corev1.PodSpec{ServiceAccountName: "default"},
		},
		PodIP: "10.244.1.7", HostIP: "10.0.0.1", NodeName: "node-1", MilliCPU: 2500, MemoryBytes: 1 << 30,
	}
	objs := known{
		maps:    map[string]map[string]string{"settings": {"COLOR": "blue"}, "keys": {"data-1": "a dash", "1st": "a digit", "..x": "two dots"}},
		secrets: map[string]map[string][]byte{"login": {"password": []byte("hush")}},
	}
	for name, c := range map[string]struct {
		container *corev1.Container
		want      []string
		err       bool
	}{
		"values in order, later ones refer to earlier ones": {
			container: &corev1.Container{Env: []*corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)2"}, {Name: "A", Value: "3"}}},
			want:      []string{"A=3", "B=12"},
		},
		"keys of any kind": {
			container: &corev1.Container{EnvFrom: []*corev1.EnvFromSource{
				{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("keys")}}, {Prefix: "p-", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("keys")}},
			}},
			want: []string{"..x=two dots", "1st=a digit", "data-1=a dash", "p-..x=two dots", "p-1st=a digit", "p-data-1=a dash"},
		},
		"from a config map with prefix, overridden": {
			container: &corev1.Container{
				EnvFrom: []*corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("settings")}}},
				Env:     []*corev1.EnvVar{{Name: "X", Value: "is $(P_COLOR)"}},
			},
			want: []string{"P_COLOR=blue", "X=is blue"},
		},
		"from a secret": {
			container: &corev1.Container{EnvFrom: []*corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("login")}}}},
			want:      []string{"password=hush"},
		},
		"from nothing": {
			container: &corev1.Container{EnvFrom: []*corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("none")}}}}, err: true,
		},
		"from nothing, optional": {
			container: &corev1.Container{EnvFrom: []*corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("none"), Optional: &yes}}}},
		},
		"key":         {container: from(&corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref("settings"), Key: "COLOR"}}), want: []string{"V=blue"}},
		"secret key":  {container: from(&corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("login"), Key: "password"}}), want: []string{"V=hush"}},
		"missing key": {container: from(&corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref("settings"), Key: "SIZE"}}), err: true},
		"missing key, optional": {
			container: from(&corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("login"), Key: "user", Optional: &yes}}),
		},
		"name":           {container: field("metadata.name"), want: []string{"V=web-0"}},
		"label":          {container: field("metadata.labels['a/b']"), want: []string{"V=c"}},
		"node":           {container: field("spec.nodeName"), want: []string{"V=node-1"}},
		"account":        {container: field("spec.serviceAccountName"), want: []string{"V=default"}},
		"pod IP":         {container: field("status.podIP"), want: []string{"V=10.244.1.7"}},
		"host IP":        {container: field("status.hostIP"), want: []string{"V=10.0.0.1"}},
		"unknown field":  {container: field("status.phase"), err: true},
		"memory limit":   {container: res("limits.memory", "1Mi"), want: []string{"V=64"}},
		"memory, bytes":  {container: res("limits.memory", ""), want: []string{"V=67108864"}},
		"cpu request":    {container: res("requests.cpu", "1m"), want: []string{"V=250"}},
		"cpu, rounded":   {container: res("requests.cpu", "1"), want: []string{"V=1"}},
		"cpu of node":    {container: res("limits.cpu", "1"), want: []string{"V=3"}},
		"other resource": {container: res("size", "1"), err: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := Build(t.Context(), c.container, s, nil, objs)
			if c.err != errors.Is(err, objects.ErrConfig) || (err != nil) != c.err || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestContainersWithoutLimitGetThePods(t *testing.T) {
	list := func(memory string) map[string]*metav1.Quantity {
		return map[string]*metav1.Quantity{"memory": {String_: memory}}
	}
	own := &corev1.Container{Name: "own", Resources: &corev1.ResourceRequirements{Limits: list("512Mi")}}
	none := &corev1.Container{Name: "none"}
	pod := &corev1.Pod{Spec: &corev1.PodSpec{Containers: []*corev1.Container{own, none}, Resources: &corev1.ResourceRequirements{Limits: list("1Gi")}}}
	for c, want := range map[*corev1.Container]string{own: "512", none: "1024"} {
		got, err := ResourceValue(&corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: &metav1.Quantity{String_: "1Mi"}}, c, Surroundings{Pod: pod, MemoryBytes: 4 << 30})
		if err != nil || got != want {
			t.Errorf("%s has a limit of %s Mi, %v", c.GetName(), got, err)
		}
	}
}
