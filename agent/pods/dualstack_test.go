package pods

import (
	"net/netip"
	"testing"
)

func TestConfigPairsAddresses(t *testing.T) {
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
}
