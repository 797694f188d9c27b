package cloud

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestPoolsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		pools []string
		want  string // in the error; empty: none
	}{
		"none":             {nil, ""},
		"two":              {[]string{"192.0.2.64/27", "vip=198.51.100.0/30", "vip=203.0.113.7/32"}, ""},
		"of both families": {[]string{"192.0.2.64/27", "2001:db8::/112", "vip=2001:db8:0:1::/120"}, ""},
		"not a range":      {[]string{"192.0.2.64"}, "write a range such as"},
		"host bits":        {[]string{"192.0.2.65/27"}, "write 192.0.2.64/27"},
		"bad name":         {[]string{"A pool=192.0.2.64/27"}, `the name "A pool"`},
		"too large":        {[]string{"11.0.0.0/8"}, "more than 65536"},
		"too large, IPv6":  {[]string{"2001:db8::/64"}, "more than 65536"},
		"in disguise":      {[]string{"::ffff:192.0.2.64/123"}, "write IPv4 addresses as such"},
		"overlap":          {[]string{"192.0.2.64/27", "vip=192.0.2.80/30"}, "pool default 192.0.2.64/27 overlaps pool vip 192.0.2.80/30"},
		"of pods":          {[]string{"10.244.3.0/24"}, "clusterCIDR 10.244.0.0/16 overlaps pool default"},
		"of IPv6 services": {[]string{"fd00:10:96::/120"}, "serviceCIDR fd00:10:96::/112 overlaps pool default"},
		"of services":      {[]string{"10.0.0.0/16", "x=10.96.7.0/24"}, "serviceCIDR 10.96.0.0/16 overlaps pool x"},
		"all of the wrong": {[]string{"nonsense", "10.244.3.0/24"}, "nonsense"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.ServiceCIDR, cfg.Pools = cfg.ServiceCIDR+",fd00:10:96::/112", c.pools
			err := cfg.Validate()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%q: %v, want %q", c.pools, err, c.want)
			}
		})
	}
}

func TestAddressesOfPools(t *testing.T) {
	for text, want := range map[string][]string{
		"192.0.2.7/32":    {"192.0.2.7"},
		"192.0.2.8/31":    {"192.0.2.8", "192.0.2.9"},
		"192.0.2.8/30":    {"192.0.2.9", "192.0.2.10"},
		"192.0.2.16/29":   {"192.0.2.17", "192.0.2.18", "192.0.2.19", "192.0.2.20", "192.0.2.21", "192.0.2.22"},
		"2001:db8::7/128": {"2001:db8::7"},
		"2001:db8::8/127": {"2001:db8::8", "2001:db8::9"},
		"2001:db8::8/126": {"2001:db8::9", "2001:db8::a", "2001:db8::b"},
	} {
		r := netip.MustParsePrefix(text)
		p := pool{name: "p", ranges: []netip.Prefix{netip.MustParsePrefix("203.0.113.8/30"), netip.MustParsePrefix("2001:db8:1::/120"), r}}
		p.ranges = slices.DeleteFunc(p.ranges, func(other netip.Prefix) bool { return other != r && other.Addr().Is4() == r.Addr().Is4() })
		var got []string
		for a := range p.addresses(familyOf(r.Addr())) {
			got = append(got, a.String())
			if !p.contains(a) {
				t.Errorf("%s does not contain %s", text, a)
			}
		}
		if !slices.Equal(got, want) || p.size(familyOf(r.Addr())) != len(want) {
			t.Errorf("%s has %v, %d in all; want %v", text, got, p.size(familyOf(r.Addr())), want)
		}
	}
	only := pool{ranges: []netip.Prefix{netip.MustParsePrefix("192.0.2.8/30")}}
	if only.has("IPv6") || !only.has("IPv4") || only.size("IPv6") != 0 {
		t.Error("a pool of IPv4 has IPv6 addresses")
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
