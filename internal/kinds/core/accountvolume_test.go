package core

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func TestAutomounts(t *testing.T) {
	yes, no := proto.Bool(true), proto.Bool(false)
	for _, tt := range []struct {
		name         string
		pod, account *bool
		want         bool
	}{
		{"neither says", nil, nil, true},
		{"the account says no", nil, no, false},
		{"the pod says no", no, yes, false},
		{"the pod says yes", yes, no, true},
	} {
		got := Automounts(&corev1.PodSpec{AutomountServiceAccountToken: tt.pod}, &corev1.ServiceAccount{AutomountServiceAccountToken: tt.account})
		if got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	if !Automounts(&corev1.PodSpec{}, nil) {
		t.Error("an account that is not known says no")
	}
}

func TestMountAccountToken(t *testing.T) {
	own := func() *corev1.VolumeMount { return &corev1.VolumeMount{Name: "mine", MountPath: AccountMountPath} }
	mounts := func(c *corev1.Container) (names []string) {
		for _, m := range c.GetVolumeMounts() {
			names = append(names, m.GetName())
		}
		return names
	}
	for _, tt := range []struct {
		name       string
		spec       *corev1.PodSpec
		init, main []string
		volumes    int
	}{
		{"plain", &corev1.PodSpec{InitContainers: []*corev1.Container{{}}, Containers: []*corev1.Container{{}}},
			[]string{"kube-api-access-x"}, []string{"kube-api-access-x"}, 1},
		{"one container has its own", &corev1.PodSpec{InitContainers: []*corev1.Container{{}}, Containers: []*corev1.Container{{VolumeMounts: []*corev1.VolumeMount{own()}}}},
			[]string{"kube-api-access-x"}, []string{"mine"}, 1},
		{"all have their own", &corev1.PodSpec{InitContainers: []*corev1.Container{{VolumeMounts: []*corev1.VolumeMount{own()}}}, Containers: []*corev1.Container{{VolumeMounts: []*corev1.VolumeMount{own()}}}},
			[]string{"mine"}, []string{"mine"}, 0},
		{"the volume of a pod that was exported", &corev1.PodSpec{Volumes: []*corev1.Volume{{Name: "kube-api-access-old"}},
			InitContainers: []*corev1.Container{{}}, Containers: []*corev1.Container{{VolumeMounts: []*corev1.VolumeMount{{Name: "kube-api-access-old", MountPath: AccountMountPath}}}}},
			[]string{"kube-api-access-old"}, []string{"kube-api-access-old"}, 1},
	} {
		MountAccountToken(tt.spec, "x")
		if got := mounts(tt.spec.InitContainers[0]); !slices.Equal(got, tt.init) {
			t.Errorf("%s: the init container mounts %v", tt.name, got)
		}
		if got := mounts(tt.spec.Containers[0]); !slices.Equal(got, tt.main) {
			t.Errorf("%s: the container mounts %v", tt.name, got)
		}
		if len(tt.spec.Volumes) != tt.volumes {
			t.Errorf("%s: %d volumes", tt.name, len(tt.spec.Volumes))
		}
	}
}
