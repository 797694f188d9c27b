package dns

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const hostFile = `# the host's
nameserver 192.0.2.53
nameserver 2001:db8::53 ; second
nameserver nonsense
search old.example.org
search example.org example.net
options rotate timeout:1
`

func TestPodResolvConf(t *testing.T) {
	host, err := ParseResolvConf(strings.NewReader(hostFile))
	if err != nil {
		t.Fatal(err)
	}
	base := PodResolvConf{
		Namespace:     "shop",
		ClusterDomain: "cluster.local",
		ClusterDNS:    netip.MustParseAddr("10.96.0.10"),
		Host:          host,
	}
	const clusterFirst = "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local example.org example.net\noptions ndots:5 timeout:1 attempts:5\n"
	const asHost = "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch example.org example.net\noptions rotate timeout:1\n"
	extra := &corev1.PodDNSConfig{
		Nameservers: []string{"192.0.2.1", "10.96.0.10", "192.0.2.2", "192.0.2.3"},
		Searches:    []string{"my.example", "cluster.local"},
		Options:     []*corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("2")}, {Name: "edns0"}},
	}
	for name, test := range map[string]struct {
		change func(*PodResolvConf)
		want   string
	}{
		"by default":               {func(*PodResolvConf) {}, clusterFirst},
		"ClusterFirst, host net":   {func(p *PodResolvConf) { p.Policy, p.HostNetwork = "ClusterFirst", true }, asHost},
		"ClusterFirstWithHostNet":  {func(p *PodResolvConf) { p.Policy, p.HostNetwork = "ClusterFirstWithHostNet", true }, clusterFirst},
		"Default":                  {func(p *PodResolvConf) { p.Policy = "Default" }, asHost},
		"None":                     {func(p *PodResolvConf) { p.Policy, p.Config = "None", extra }, "nameserver 192.0.2.1\nnameserver 10.96.0.10\nnameserver 192.0.2.2\nsearch my.example cluster.local\noptions ndots:2 edns0\n"},
		"ClusterFirst, dnsConfig":  {func(p *PodResolvConf) { p.Config = extra }, "nameserver 10.96.0.10\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch shop.svc.cluster.local svc.cluster.local cluster.local example.org example.net my.example\noptions timeout:1 attempts:5 ndots:2 edns0\n"},
		"a domain written in full": {func(p *PodResolvConf) { p.ClusterDomain = "cluster.local." }, clusterFirst},
	} {
		p := base
		test.change(&p)
		got, err := p.Build()
		if err != nil || got.String() != test.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, test.want)
		}
	}
	for name, change := range map[string]func(*PodResolvConf){
		"None without a nameserver": func(p *PodResolvConf) { p.Policy = "None" },
		"an unknown policy":         func(p *PodResolvConf) { p.Policy = "clusterfirst" },
		"a bad nameserver":          func(p *PodResolvConf) { p.Config = &corev1.PodDNSConfig{Nameservers: []string{"x"}} },
	} {
		p := base
		change(&p)
		if _, err := p.Build(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if len(host.Searches) != 2 {
		t.Errorf("the host's own was changed: %v", host)
	}
}

func TestReadHostResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if c, err := ReadHostResolvConf(path); err != nil || len(c.Upstreams()) != 0 {
		t.Errorf("no file: %v, %v", c, err)
	}
	if err := os.WriteFile(path, []byte(hostFile), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := ReadHostResolvConf(path)
	if err != nil {
		t.Fatal(err)
	}
	if up := c.Upstreams(); len(up) != 2 || up[0] != netip.MustParseAddrPort("192.0.2.53:53") {
		t.Errorf("upstreams are %v", up)
	}
}
