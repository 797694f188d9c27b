package status

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestStatusHasAddressesOfBothFamilies(t *testing.T) {
	object := &corev1.Pod{Metadata: &metav1.ObjectMeta{Name: "p"}, Spec: &corev1.PodSpec{}}
	st := Of(object, Observation{
		Network: true, IP: netip.MustParseAddr("10.244.1.7"), IP6: netip.MustParseAddr("fd00:10:244:1::7"),
		HostIP: netip.MustParseAddr("10.0.0.1"), HostIP6: netip.MustParseAddr("fd01::1"),
	})
	var ips []string
	for _, ip := range st.GetPodIps() {
		ips = append(ips, ip.GetIp())
	}
	for _, ip := range st.GetHostIps() {
		ips = append(ips, ip.GetIp())
	}
	if got := st.GetPodIp() + " " + strings.Join(ips, " "); got != "10.244.1.7 10.244.1.7 fd00:10:244:1::7 10.0.0.1 fd01::1" {
		t.Errorf("the status has %s", got)
	}
}
