package dns

import (
	"net/netip"
	"strings"
	"testing"

	miekg "github.com/miekg/dns"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

func TestDualStackAnswers(t *testing.T) {
	r := NewRecords()
	ports := []*corev1.ServicePort{{Name: "http", Port: 80}}
	r.OnService(nil, newService("default", "both", &corev1.ServiceSpec{ClusterIp: "10.96.0.20", ClusterIps: []string{"10.96.0.20", "fd00:10:96::20"}, Ports: ports}))
	r.OnService(nil, newService("default", "six", &corev1.ServiceSpec{ClusterIp: "fd00:10:96::6", Ports: ports}))
	r.OnService(nil, newService("default", "db", &corev1.ServiceSpec{ClusterIp: "None"}))
	pg := []*discoveryv1.EndpointPort{{Name: ptr("pg"), Port: ptr(int32(5432))}}
	r.OnEndpointSlice(nil, newSlice("default", "db-4", "db", pg, newEndpoint("10.244.0.2", "db-0", true), newEndpoint("10.244.0.3", "", true)))
	six := newSlice("default", "db-6", "db", pg, newEndpoint("fd00:10:244::2", "db-0", true), newEndpoint("fd00:10:244::3", "", true), newEndpoint("10.244.0.9", "odd", true))
	six.AddressType = "IPv6"
	r.OnEndpointSlice(nil, six)
	r.Synced()
	s := newServer(t, r)
	s.cfg.CIDRs = append(s.cfg.CIDRs, netip.MustParsePrefix("fd00:10:96::/112"), netip.MustParsePrefix("fd00:10:244::/56"))

	reverse := func(ip string) string {
		name, err := miekg.ReverseAddr(ip)
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	const zone = ".default.svc.cluster.local."
	const dashedSix = "fd00-0010-0244-0000-0000-0000-0000-0003"
	for _, test := range []struct {
		name  string
		qtype uint16
		rcode int
		want  string
	}{
		{"both" + zone, miekg.TypeA, miekg.RcodeSuccess, "A 10.96.0.20"},
		{"both" + zone, miekg.TypeAAAA, miekg.RcodeSuccess, "AAAA fd00:10:96::20"},
		{"both" + zone, miekg.TypeANY, miekg.RcodeSuccess, "A 10.96.0.20; AAAA fd00:10:96::20"},
		{"six" + zone, miekg.TypeA, miekg.RcodeSuccess, ""},
		{"six" + zone, miekg.TypeAAAA, miekg.RcodeSuccess, "AAAA fd00:10:96::6"},
		{"_http._tcp.both" + zone, miekg.TypeSRV, miekg.RcodeSuccess, "SRV 0 100 80 both" + zone},
		{"db" + zone, miekg.TypeA, miekg.RcodeSuccess, "A 10.244.0.2; A 10.244.0.3"},
		{"db" + zone, miekg.TypeAAAA, miekg.RcodeSuccess, "AAAA fd00:10:244::2; AAAA fd00:10:244::3"},
		{"db-0.db" + zone, miekg.TypeA, miekg.RcodeSuccess, "A 10.244.0.2"},
		{"db-0.db" + zone, miekg.TypeAAAA, miekg.RcodeSuccess, "AAAA fd00:10:244::2"},
		{dashedSix + ".db" + zone, miekg.TypeAAAA, miekg.RcodeSuccess, "AAAA fd00:10:244::3"},
		{dashedSix + ".db" + zone, miekg.TypeA, miekg.RcodeSuccess, ""},
		{"odd.db" + zone, miekg.TypeAAAA, miekg.RcodeNameError, ""},
		{"_pg._tcp.db" + zone, miekg.TypeSRV, miekg.RcodeSuccess,
			"SRV 0 100 5432 10-244-0-3.db" + zone + "; SRV 0 100 5432 db-0.db" + zone + "; SRV 0 100 5432 " + dashedSix + ".db" + zone},
		{reverse("fd00:10:96::20"), miekg.TypePTR, miekg.RcodeSuccess, "PTR both" + zone},
		{strings.ToUpper(reverse("fd00:10:96::20")), miekg.TypePTR, miekg.RcodeSuccess, "PTR both" + zone},
		{reverse("fd00:10:244::2"), miekg.TypePTR, miekg.RcodeSuccess, "PTR db-0.db" + zone},
		{reverse("10.96.0.20"), miekg.TypePTR, miekg.RcodeSuccess, "PTR both" + zone},
		{reverse("fd00:10:96::99"), miekg.TypePTR, miekg.RcodeNameError, ""},
	} {
		resp := s.respond(t.Context(), question(test.name, test.qtype))
		if got := summary(resp.Answer); resp.Rcode != test.rcode || got != test.want {
			t.Errorf("%s %s: %s %q, want %s %q", test.name, miekg.TypeToString[test.qtype], miekg.RcodeToString[resp.Rcode], got, miekg.RcodeToString[test.rcode], test.want)
		}
	}
	for _, bad := range []string{"ip6.arpa.", "1.ip6.arpa.", strings.Repeat("g.", 32) + "ip6.arpa.", strings.Repeat("10.", 32) + "ip6.arpa.", strings.Repeat("1.", 33) + "ip6.arpa."} {
		if ip, ok := reverseAddress(bad); ok {
			t.Errorf("%s is the address %v", bad, ip)
		}
	}
}
