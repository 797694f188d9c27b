package agent

import (
	"fmt"
	"slices"
	"testing"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// What an informer says follows on from what was kept, whatever became of it meanwhile.
func TestResumedObjects(t *testing.T) {
	service := func(name, ip string) *corev1.Service {
		return &corev1.Service{Metadata: &metav1.ObjectMeta{Namespace: "n", Name: name}, Spec: &corev1.ServiceSpec{ClusterIp: ip}}
	}
	var got []string
	s := newResumed(slices.Values([]*corev1.Service{service("stays", "1"), service("goes", "1"), service("deleted", "1")}), func(old, now *corev1.Service) {
		got = append(got, fmt.Sprintf("%s%s: %s -> %s", old.GetMetadata().GetName(), now.GetMetadata().GetName(), old.GetSpec().GetClusterIp(), now.GetSpec().GetClusterIp()))
	})
	expect := func(what string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
		got = nil
	}
	expect("at the start", "stays:  -> 1", "goes:  -> 1", "deleted:  -> 1")
	s.onChange(nil, service("stays", "2"))
	s.onChange(nil, service("comes", "1"))
	s.onChange(nil, service("deleted", "1"))
	s.onChange(service("deleted", "1"), nil)
	expect("the informer's state", "staysstays: 1 -> 2", "comes:  -> 1", "deleteddeleted: 1 -> 1", "deleted: 1 -> ")
	s.forget()
	expect("when it has synced", "goes: 1 -> ")
	s.forget()
	again := newResumed(slices.Values([]*corev1.Service{service("replaced", "1")}), s.on)
	got = nil
	other := service("replaced", "2")
	other.Metadata.Uid = "another"
	again.onChange(nil, other)
	expect("another object of the name", "replaced: 1 -> ", "replaced:  -> 2")
	s.onChange(nil, service("goes", "3"))
	s.onChange(service("stays", "2"), service("stays", "3"))
	expect("later", "goes:  -> 3", "staysstays: 2 -> 3")
}
