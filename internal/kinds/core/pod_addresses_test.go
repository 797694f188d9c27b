package core_test

import (
	"slices"
	"testing"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func TestPodAddresses(t *testing.T) {
	four, six := &corev1.PodIP{Ip: "10.244.0.7"}, &corev1.PodIP{Ip: "2001:db8::7"}
	for _, tt := range []struct {
		main string
		all  []*corev1.PodIP
		want []string
	}{
		{"", nil, nil},
		{"10.244.0.7", nil, []string{"10.244.0.7"}},
		{"10.244.0.7", []*corev1.PodIP{four, six}, []string{"10.244.0.7", "2001:db8::7"}},
		{"2001:db8::7", []*corev1.PodIP{four, six}, []string{"2001:db8::7", "10.244.0.7"}},
		{"", []*corev1.PodIP{{}, six}, []string{"2001:db8::7"}},
	} {
		got := core.PodAddresses(&corev1.Pod{Status: &corev1.PodStatus{PodIp: tt.main, PodIps: tt.all}})
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q and %v: %q, want %q", tt.main, tt.all, got, tt.want)
		}
	}
}
