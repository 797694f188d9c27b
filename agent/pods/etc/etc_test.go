package etc

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestHostsFileHasAddressesOfBothFamilies(t *testing.T) {
	pod := &corev1.Pod{Metadata: &metav1.ObjectMeta{Name: "p"}, Spec: &corev1.PodSpec{}}
	hosts, err := hostsFile(pod, netip.MustParseAddr("10.244.1.7"), netip.MustParseAddr("fd00:10:244:1::7"), "p", "cluster.local")
	if err != nil || !strings.Contains(hosts, "10.244.1.7\tp\n") || !strings.Contains(hosts, "fd00:10:244:1::7\tp\n") {
		t.Errorf("hosts: %q, %v", hosts, err)
	}
}
