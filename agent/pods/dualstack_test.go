package pods

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestBothFamilies(t *testing.T) {
	pod, host := netip.MustParseAddr("10.244.1.7"), netip.MustParseAddr("10.0.0.1")
	pod6, host6 := netip.MustParseAddr("fd00:10:244:1::7"), netip.MustParseAddr("fd01::1")
	dual := &Config{HostIP: host, IPv6: func(ip netip.Addr) netip.Addr {
		return map[netip.Addr]netip.Addr{pod: pod6, host: host6}[ip]
	}}
	if got := dual.both(pod); got != "10.244.1.7,fd00:10:244:1::7" {
		t.Errorf("both addresses are %q", got)
	}
	if got := new(Config).both(pod); got != "10.244.1.7" {
		t.Errorf("without IPv6 they are %q", got)
	}
	if got := dual.ipv6(netip.Addr{}); got.IsValid() {
		t.Errorf("no address has the IPv6 address %v", got)
	}
	object := &corev1.Pod{Metadata: &metav1.ObjectMeta{Name: "p"}, Spec: &corev1.PodSpec{}}
	st := podStatus(object, seen{network: true, ip: pod, ip6: pod6, hostIP: host, hostIP6: host6})
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
	hosts, err := hostsFile(object, pod, pod6, "p", "cluster.local")
	if err != nil || !strings.Contains(hosts, "10.244.1.7\tp\n") || !strings.Contains(hosts, "fd00:10:244:1::7\tp\n") {
		t.Errorf("hosts: %q, %v", hosts, err)
	}
}
