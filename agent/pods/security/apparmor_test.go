package security

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func TestAppArmor(t *testing.T) {
	profile := func(sort, name string) *corev1.AppArmorProfile {
		p := &corev1.AppArmorProfile{Type: sort}
		if name != "" {
			p.LocalhostProfile = proto.String(name)
		}
		return p
	}
	for _, tt := range []struct {
		name       string
		pod, own   *corev1.AppArmorProfile
		privileged bool
		want       runtime.AppArmor
		refused    bool
	}{
		{"no wish", nil, nil, false, runtime.AppArmor{Default: true}, false},
		{"the pod's", profile("Localhost", "strict"), nil, false, runtime.AppArmor{Profile: "strict"}, true},
		{"the container's goes first", profile("Localhost", "strict"), profile("Unconfined", ""), false, runtime.AppArmor{}, false},
		{"the default by name", nil, profile("RuntimeDefault", ""), false, runtime.AppArmor{Default: true}, true},
		{"privileged", nil, nil, true, runtime.AppArmor{}, false},
	} {
		c := &corev1.Container{Name: "main", SecurityContext: &corev1.SecurityContext{AppArmorProfile: tt.own, Privileged: proto.Bool(tt.privileged)}}
		pod := &corev1.Pod{Spec: &corev1.PodSpec{Containers: []*corev1.Container{c}, SecurityContext: &corev1.PodSecurityContext{AppArmorProfile: tt.pod}}}
		if got := appArmor(pod, c); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
		if got := withoutAppArmor(pod); (got.Reason == "AppArmor") != tt.refused {
			t.Errorf("%s: on a node without AppArmor %+v", tt.name, got)
		}
	}
}
