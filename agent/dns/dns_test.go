package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
	"go.uber.org/zap/zaptest"

	"github.com/xebec-project/xebec/internal/loopbacktest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func ptr[T any](v T) *T { return &v }

func newService(namespace, name string, spec *corev1.ServiceSpec) *corev1.Service {
	return &corev1.Service{Metadata: &metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
}

func newSlice(namespace, name, service string, ports []*discoveryv1.EndpointPort, endpoints ...*discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		Metadata:    &metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{serviceNameLabel: service}},
		AddressType: "IPv4",
		Ports:       ports,
		Endpoints:   endpoints,
	}
}

func newEndpoint(ip, hostname string, ready bool) *discoveryv1.Endpoint {
	e := &discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: &discoveryv1.EndpointConditions{Ready: ptr(ready)}}
	if hostname != "" {
		e.Hostname = ptr(hostname)
	}
	return e
}

func exampleRecords() *Records {
	r := NewRecords()
	r.OnService(nil, newService("default", "web", &corev1.ServiceSpec{
		ClusterIp: "10.96.0.20",
		Ports:     []*corev1.ServicePort{{Name: "http", Port: 80}, {Name: "dns", Port: 53, Protocol: "UDP"}},
	}))
	r.OnService(nil, newService("default", "db", &corev1.ServiceSpec{ClusterIp: "None"}))
	pg := []*discoveryv1.EndpointPort{{Name: ptr("pg"), Port: ptr(int32(5432))}}
	r.OnEndpointSlice(nil, newSlice("default", "db-1", "db", pg,
		newEndpoint("10.244.0.2", "db-0", true), newEndpoint("10.244.1.3", "db-1", true), newEndpoint("10.244.1.9", "db-2", false)))
	r.OnEndpointSlice(nil, newSlice("default", "db-2", "db", pg, newEndpoint("10.244.1.4", "", true)))
	r.OnService(nil, newService("default", "early", &corev1.ServiceSpec{ClusterIp: "None", PublishNotReadyAddresses: true}))
	r.OnEndpointSlice(nil, newSlice("default", "early-1", "early", nil, newEndpoint("10.244.1.5", "e", false)))
	r.OnService(nil, newService("default", "empty", &corev1.ServiceSpec{ClusterIp: "None"}))
	r.OnService(nil, newService("other", "out", &corev1.ServiceSpec{Type: "ExternalName", ExternalName: "www.example.org"}))
	r.OnService(nil, newService("other", "alias", &corev1.ServiceSpec{Type: "ExternalName", ExternalName: "web.default.svc.cluster.local"}))
	r.OnService(nil, newService("other", "circle", &corev1.ServiceSpec{Type: "ExternalName", ExternalName: "circle.other.svc.cluster.local"}))
	r.Synced()
	return r
}

func newServer(t testing.TB, records *Records, upstreams ...netip.AddrPort) *Server {
	t.Helper()
	s, err := New(Config{
		Domain:    "cluster.local",
		Address:   loopbacktest.Address(t),
		Upstreams: upstreams,
		CIDRs:     []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/16")},
	}, records, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func question(name string, qtype uint16) *miekg.Msg {
	return new(miekg.Msg).SetQuestion(name, qtype)
}

// summary writes records without their owner's name and TTL, sorted.
func summary(rrs []miekg.RR) string {
	var out []string
	for _, rr := range rrs {
		if rr.Header().Rrtype == miekg.TypeOPT {
			continue
		}
		fields := strings.Fields(rr.String())
		out = append(out, strings.Join(fields[3:], " "))
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

func TestAnswers(t *testing.T) {
	s := newServer(t, exampleRecords())
	for _, test := range []struct {
		name  string
		qtype uint16
		rcode int
		want  string
	}{
		{"web.default.svc.cluster.local.", miekg.TypeA, miekg.RcodeSuccess, "A 10.96.0.20"},
		{"WEB.Default.svc.CLUSTER.local.", miekg.TypeA, miekg.RcodeSuccess, "A 10.96.0.20"},
		{"web.default.svc.cluster.local.", miekg.TypeAAAA, miekg.RcodeSuccess, ""},
		{"web.default.svc.cluster.local.", miekg.TypeMX, miekg.RcodeSuccess, ""},
		{"none.default.svc.cluster.local.", miekg.TypeA, miekg.RcodeNameError, ""},
		{"web.none.svc.cluster.local.", miekg.TypeA, miekg.RcodeNameError, ""},
		{"default.svc.cluster.local.", miekg.TypeA, miekg.RcodeSuccess, ""},
		{"none.svc.cluster.local.", miekg.TypeA, miekg.RcodeNameError, ""},
		{"svc.cluster.local.", miekg.TypeA, miekg.RcodeSuccess, ""},
		{"cluster.local.", miekg.TypeA, miekg.RcodeSuccess, ""},
		{"cluster.local.", miekg.TypeSOA, miekg.RcodeSuccess, "SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"},
		{"www.example.org.default.svc.cluster.local.", miekg.TypeA, miekg.RcodeNameError, ""},
		{"www.example.org.cluster.local.", miekg.TypeA, miekg.RcodeNameError, ""},
		{"dns-version.cluster.local.", miekg.TypeTXT, miekg.RcodeSuccess, `TXT "1.1.0"`},

		{"_http._tcp.web.default.svc.cluster.local.", miekg.TypeSRV, miekg.RcodeSuccess, "SRV 0 100 80 web.default.svc.cluster.local."},
		{"_dns._udp.web.default.svc.cluster.local.", miekg.TypeSRV, miekg.RcodeSuccess, "SRV 0 100 53 web.default.svc.cluster.local."},
		{"_http._tcp.web.default.svc.cluster.local.", miekg.TypeA, miekg.RcodeSuccess, ""},
		{"_http._udp.web.default.svc.cluster.local.", miekg.TypeSRV, miekg.RcodeNameError, ""},
		{"_tcp.web.default.svc.cluster.local.", miekg.TypeSRV, miekg.RcodeSuccess, ""},
		{"_sctp.web.default.svc.cluster.local.", miekg.TypeSRV, miekg.RcodeNameError, ""},

		{"db.default.svc.cluster.local.", miekg.TypeA, miekg.RcodeSuccess, "A 10.244.0.2; A 10.244.1.3; A 10.244.1.4"},
		{"db-1.db.default.svc.cluster.local.", miekg.TypeA, miekg.RcodeSuccess, "A 10.244.1.3"},
		{"db-1.db.default.svc.cluster.local.", miekg.TypeAAAA, miekg.RcodeSuccess, ""},
		{"10-244-1-4.db.default.svc.cluster.local.", miekg.TypeA, miekg.RcodeSuccess, "A 10.244.1.4"},
		{"db-2.db.default.svc.cluster.local.", miekg.TypeA, miekg.RcodeNameError, ""},
		{"_pg._tcp.db.default.svc.cluster.local.", miekg.TypeSRV, miekg.RcodeSuccess,
			"SRV 0 100 5432 10-244-1-4.db.default.svc.cluster.local.; SRV 0 100 5432 db-0.db.default.svc.cluster.local.; SRV 0 100 5432 db-1.db.default.svc.cluster.local."},
		{"early.default.svc.cluster.local.", miekg.TypeA, miekg.RcodeSuccess, "A 10.244.1.5"},
		{"empty.default.svc.cluster.local.", miekg.TypeA, miekg.RcodeNameError, ""},

		{"alias.other.svc.cluster.local.", miekg.TypeA, miekg.RcodeSuccess, "A 10.96.0.20; CNAME web.default.svc.cluster.local."},
		{"alias.other.svc.cluster.local.", miekg.TypeCNAME, miekg.RcodeSuccess, "CNAME web.default.svc.cluster.local."},
		{"out.other.svc.cluster.local.", miekg.TypeA, miekg.RcodeSuccess, "CNAME www.example.org."},

		{"20.0.96.10.in-addr.arpa.", miekg.TypePTR, miekg.RcodeSuccess, "PTR web.default.svc.cluster.local."},
		{"3.1.244.10.in-addr.arpa.", miekg.TypePTR, miekg.RcodeSuccess, "PTR db-1.db.default.svc.cluster.local."},
		{"3.1.244.10.in-addr.arpa.", miekg.TypeA, miekg.RcodeSuccess, ""},
		{"77.1.244.10.in-addr.arpa.", miekg.TypePTR, miekg.RcodeNameError, ""},
		{"8.8.8.8.in-addr.arpa.", miekg.TypePTR, miekg.RcodeRefused, ""},
		{"www.example.org.", miekg.TypeA, miekg.RcodeRefused, ""},
		{"local.", miekg.TypeA, miekg.RcodeRefused, ""},
	} {
		t.Run(miekg.TypeToString[test.qtype]+" "+test.name, func(t *testing.T) {
			req := question(test.name, test.qtype)
			resp := s.respond(t.Context(), req)
			if resp.Rcode != test.rcode {
				t.Errorf("code is %s, want %s", miekg.RcodeToString[resp.Rcode], miekg.RcodeToString[test.rcode])
			}
			if got := summary(resp.Answer); got != test.want {
				t.Errorf("answer is %q, want %q", got, test.want)
			}
			negative := len(resp.Answer) == 0 && resp.Rcode != miekg.RcodeRefused
			if hasSOA := strings.HasPrefix(summary(resp.Ns), "SOA"); hasSOA != negative {
				t.Errorf("authority is %q, negative is %t", summary(resp.Ns), negative)
			}
			for _, rr := range resp.Answer {
				if rr.Header().Ttl != ttl {
					t.Errorf("TTL is %d", rr.Header().Ttl)
				}
			}
			if len(resp.Answer) > 0 && resp.Answer[0].Header().Name != test.name {
				t.Errorf("owner is %s", resp.Answer[0].Header().Name)
			}
			if _, err := resp.Pack(); err != nil {
				t.Errorf("packing: %v", err)
			}
		})
	}
	if resp := s.respond(t.Context(), question("circle.other.svc.cluster.local.", miekg.TypeA)); resp.Rcode != miekg.RcodeServerFailure {
		t.Errorf("aliases in a circle: %v", resp)
	}
	srv := s.respond(t.Context(), question("_pg._tcp.db.default.svc.cluster.local.", miekg.TypeSRV))
	if got := summary(srv.Extra); got != "A 10.244.0.2; A 10.244.1.3; A 10.244.1.4" {
		t.Errorf("addresses of the targets: %s", got)
	}
}

func TestRecordsFollowEvents(t *testing.T) {
	r := NewRecords()
	s := newServer(t, r)
	ask := func(name string, qtype uint16) string {
		resp := s.respond(t.Context(), question(name, qtype))
		return strings.TrimSpace(miekg.RcodeToString[resp.Rcode] + " " + summary(resp.Answer))
	}
	expect := func(name string, qtype uint16, want string) {
		t.Helper()
		if got := ask(name, qtype); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	const name, addr = "a.n.svc.cluster.local.", "2.0.244.10.in-addr.arpa."
	expect(name, miekg.TypeA, "SERVFAIL") // not synced: the response must not be negative
	expect(addr, miekg.TypePTR, "SERVFAIL")
	r.Synced()
	expect(name, miekg.TypeA, "NXDOMAIN")

	svc := newService("n", "a", &corev1.ServiceSpec{ClusterIp: "None"})
	one := newSlice("n", "a-1", "a", nil, newEndpoint("10.244.0.2", "h", true))
	r.OnEndpointSlice(nil, one) // slices may come first
	r.OnService(nil, svc)
	expect(name, miekg.TypeA, "NOERROR A 10.244.0.2")
	expect(addr, miekg.TypePTR, "NOERROR PTR h.a.n.svc.cluster.local.")

	moved := newSlice("n", "a-1", "b", nil, newEndpoint("10.244.0.2", "h", true))
	r.OnEndpointSlice(one, moved)
	expect(name, miekg.TypeA, "NXDOMAIN")
	expect(addr, miekg.TypePTR, "NXDOMAIN")
	r.OnEndpointSlice(moved, one)
	expect(name, miekg.TypeA, "NOERROR A 10.244.0.2")

	withIP := newService("n", "a", &corev1.ServiceSpec{ClusterIp: "10.96.0.1"})
	r.OnService(svc, withIP)
	expect(name, miekg.TypeA, "NOERROR A 10.96.0.1")
	expect(addr, miekg.TypePTR, "NXDOMAIN")
	r.OnService(withIP, nil)
	r.OnEndpointSlice(one, nil)
	expect(name, miekg.TypeA, "NXDOMAIN")
	expect("n.svc.cluster.local.", miekg.TypeA, "NXDOMAIN")
	if len(r.entries)+len(r.reverse)+len(r.namespaces)+len(r.slices)+len(r.services) != 0 {
		t.Errorf("something is left: %+v", r)
	}
}

func TestBadRequests(t *testing.T) {
	s := newServer(t, exampleRecords())
	const name = "web.default.svc.cluster.local."
	two := question(name, miekg.TypeA)
	two.Question = append(two.Question, two.Question[0])
	chaos := question("version.bind.", miekg.TypeTXT)
	chaos.Question[0].Qclass = miekg.ClassCHAOS
	update := question(name, miekg.TypeA)
	update.Opcode = miekg.OpcodeUpdate
	badVersion := question(name, miekg.TypeA).SetEdns0(4096, false)
	badVersion.IsEdns0().SetVersion(3)
	for what, test := range map[string]struct {
		req   *miekg.Msg
		rcode int
	}{
		"no question":      {new(miekg.Msg), miekg.RcodeFormatError},
		"two questions":    {two, miekg.RcodeFormatError},
		"another class":    {chaos, miekg.RcodeRefused},
		"a zone transfer":  {question("cluster.local.", miekg.TypeAXFR), miekg.RcodeRefused},
		"an update":        {update, miekg.RcodeNotImplemented},
		"a future version": {badVersion, miekg.RcodeBadVers},
	} {
		if resp := s.respond(t.Context(), test.req); resp.Rcode != test.rcode {
			t.Errorf("%s: %s, want %s", what, miekg.RcodeToString[resp.Rcode], miekg.RcodeToString[test.rcode])
		}
	}
	answer := question(name, miekg.TypeA)
	answer.Response = true
	if resp := s.respond(t.Context(), answer); resp != nil {
		t.Errorf("an answer was answered: %v", resp)
	}
}

// bind gives the server its sockets.
func bind(t *testing.T, s *Server) {
	t.Helper()
	udp, tcp, err := Bind(t.Context(), s.cfg.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	defer tcp.Close()
	if err := s.Adopt(udp, tcp); err != nil {
		t.Fatal(err)
	}
}

// start serves on a loopback port until the test ends.
func start(t *testing.T, s *Server) string {
	t.Helper()
	bind(t, s)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != context.Canceled {
			t.Errorf("Serve returned %v", err)
		}
	})
	return s.Addr().String()
}

// A big answer comes truncated by UDP, and whole by TCP and by EDNS.
func TestTruncation(t *testing.T) {
	r := exampleRecords()
	var many []*discoveryv1.Endpoint
	for i := range 60 {
		many = append(many, newEndpoint(fmt.Sprintf("10.244.2.%d", i+1), "", true))
	}
	r.OnService(nil, newService("default", "big", &corev1.ServiceSpec{ClusterIp: "None"}))
	r.OnEndpointSlice(nil, newSlice("default", "big-1", "big", nil, many...))
	addr := start(t, newServer(t, r))
	for _, test := range []struct {
		network string
		edns    uint16
		whole   bool
	}{
		{"udp", 0, false}, {"udp", 4096, true}, {"tcp", 0, true},
	} {
		req := question("big.default.svc.cluster.local.", miekg.TypeA)
		if test.edns > 0 {
			req.SetEdns0(test.edns, false)
		}
		client := miekg.Client{Net: test.network, Timeout: 20 * time.Second}
		resp, _, err := client.Exchange(req, addr)
		if err != nil {
			t.Fatalf("%s: %v", test.network, err)
		}
		if whole := !resp.Truncated && len(resp.Answer) == 60; whole != test.whole {
			t.Errorf("%s, EDNS %d: truncated %t, %d answers", test.network, test.edns, resp.Truncated, len(resp.Answer))
		}
	}
}

// upstream is a resolver with a behaviour of the test's own.
func upstream(t *testing.T, handle miekg.HandlerFunc) netip.AddrPort {
	t.Helper()
	// A port that is free for the one need not be for the other.
	tcp, err := net.Listen("tcp4", loopbacktest.Address(t).String())
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp4", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait) // after both have been shut down
	for _, srv := range []*miekg.Server{{PacketConn: udp, Handler: handle}, {Listener: tcp, Handler: handle}} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		serving.Go(func() { srv.ActivateAndServe() })
		<-started
		t.Cleanup(func() { srv.Shutdown() })
	}
	return udp.LocalAddr().(*net.UDPAddr).AddrPort()
}

func reply(w miekg.ResponseWriter, req *miekg.Msg, rcode int, rrs ...string) {
	resp := new(miekg.Msg).SetRcode(req, rcode)
	for _, text := range rrs {
		rr, err := miekg.NewRR(text)
		if err != nil {
			panic(err)
		}
		resp.Answer = append(resp.Answer, rr)
	}
	w.WriteMsg(resp)
}

func TestForwarding(t *testing.T) {
	var asked atomic.Int32
	good := upstream(t, func(w miekg.ResponseWriter, req *miekg.Msg) {
		asked.Add(1)
		switch q := req.Question[0]; {
		case q.Name == "www.example.org." && q.Qtype == miekg.TypeA:
			reply(w, req, miekg.RcodeSuccess, "www.example.org. 300 IN A 192.0.2.1")
		case q.Name == "big.example.org." && w.RemoteAddr().Network() == "udp":
			resp := new(miekg.Msg).SetReply(req)
			resp.Truncated = true
			w.WriteMsg(resp)
		case q.Name == "big.example.org.":
			reply(w, req, miekg.RcodeSuccess, "big.example.org. 300 IN A 192.0.2.2")
		default:
			reply(w, req, miekg.RcodeNameError)
		}
	})
	broken := upstream(t, func(w miekg.ResponseWriter, req *miekg.Msg) { reply(w, req, miekg.RcodeServerFailure) })
	s := newServer(t, exampleRecords(), broken, good)

	for _, test := range []struct{ name, want string }{
		{"www.example.org.", "NOERROR A 192.0.2.1"},
		{"big.example.org.", "NOERROR A 192.0.2.2"},
		{"none.example.org.", "NXDOMAIN"},
		{"out.other.svc.cluster.local.", "NOERROR A 192.0.2.1; CNAME www.example.org."},
	} {
		resp := s.respond(t.Context(), question(test.name, miekg.TypeA))
		if got := strings.TrimSpace(miekg.RcodeToString[resp.Rcode] + " " + summary(resp.Answer)); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	before := asked.Load()
	s.respond(t.Context(), question("web.default.svc.cluster.local.", miekg.TypeA))
	s.respond(t.Context(), question("none.default.svc.cluster.local.", miekg.TypeA))
	if asked.Load() != before {
		t.Error("cluster names were asked upstream")
	}

	onlyBroken := newServer(t, exampleRecords(), broken)
	if resp := onlyBroken.respond(t.Context(), question("www.example.org.", miekg.TypeA)); resp.Rcode != miekg.RcodeServerFailure {
		t.Errorf("no resolver works: %s", miekg.RcodeToString[resp.Rcode])
	}
}

// A resolver that asks us back must not make a storm.
func TestForwardingLoop(t *testing.T) {
	var server atomic.Pointer[Server]
	var asked atomic.Int32
	loop := upstream(t, func(w miekg.ResponseWriter, req *miekg.Msg) {
		asked.Add(1)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if resp := server.Load().respond(ctx, req); resp != nil {
			w.WriteMsg(resp)
		}
	})
	s := newServer(t, exampleRecords(), loop)
	server.Store(s)
	resp := s.respond(t.Context(), question("www.example.org.", miekg.TypeA))
	if resp.Rcode != miekg.RcodeServerFailure {
		t.Errorf("%s", miekg.RcodeToString[resp.Rcode])
	}
	if n := asked.Load(); n > 3 {
		t.Errorf("the loop was gone round %d times", n)
	}
}

// waiting is the context of a caller that tells when it begins to wait.
type waiting struct {
	context.Context
	begins func()
}

func (w waiting) Done() <-chan struct{} {
	w.begins()
	return w.Context.Done()
}

func TestEqualQueriesShareAnExchange(t *testing.T) {
	var asked atomic.Int32
	arrived, release := make(chan struct{}), make(chan struct{})
	up := upstream(t, func(w miekg.ResponseWriter, req *miekg.Msg) {
		if asked.Add(1) == 1 {
			close(arrived)
		}
		<-release
		reply(w, req, miekg.RcodeSuccess, "www.example.org. 300 IN A 192.0.2.1")
	})
	s := newServer(t, exampleRecords(), up)
	var clients, joining sync.WaitGroup
	ask := func() {
		joining.Add(1)
		clients.Go(func() {
			ctx := waiting{t.Context(), sync.OnceFunc(joining.Done)}
			resp, err := s.forward.exchange(ctx, question("www.example.org.", miekg.TypeA))
			if err == nil {
				_, err = resp.Pack()
			}
			if err != nil || len(resp.Answer) != 1 {
				t.Errorf("%v, %v", resp, err)
			}
		})
	}
	ask()
	<-arrived
	for range 20 {
		ask()
	}
	joining.Wait()
	close(release)
	clients.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("21 equal questions were asked %d times", n)
	}
}

func TestNewRejectsInvalidConfig(t *testing.T) {
	for _, cfg := range []Config{
		{Domain: "", Address: netip.MustParseAddrPort("10.96.0.10:53")},
		{Domain: ".", Address: netip.MustParseAddrPort("10.96.0.10:53")},
		{Domain: "cluster.local"},
	} {
		if _, err := New(cfg, NewRecords(), zaptest.NewLogger(t)); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
	own := netip.MustParseAddrPort("10.96.0.10:53")
	s, err := New(Config{Domain: "cluster.local", Address: own, Upstreams: []netip.AddrPort{own}}, NewRecords(), zaptest.NewLogger(t))
	if err != nil || len(s.forward.upstreams) != 0 {
		t.Errorf("the server would ask itself: %v, %v", s.forward.upstreams, err)
	}
}

func FuzzRespond(f *testing.F) {
	for _, q := range []struct {
		name  string
		qtype uint16
	}{
		{"web.default.svc.cluster.local.", miekg.TypeA},
		{"_pg._tcp.db.default.svc.cluster.local.", miekg.TypeSRV},
		{"20.0.96.10.in-addr.arpa.", miekg.TypePTR},
		{"alias.other.svc.cluster.local.", miekg.TypeANY},
		{".", miekg.TypeNS},
	} {
		packed, err := question(q.name, q.qtype).SetEdns0(1232, true).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	records := exampleRecords()
	f.Fuzz(func(t *testing.T, data []byte) {
		var req miekg.Msg
		if req.Unpack(data) != nil {
			return
		}
		resp := newServer(t, records).respond(t.Context(), &req)
		if resp == nil {
			return
		}
		resp.Truncate(miekg.MinMsgSize)
		packed, err := resp.Pack()
		if err != nil {
			t.Fatalf("answering %v: %v", &req, err)
		}
		if len(packed) > miekg.MinMsgSize && !resp.Truncated {
			t.Fatalf("%d bytes, not marked as truncated", len(packed))
		}
		if resp.Id != req.Id || !resp.Response {
			t.Fatalf("answer %v does not belong to %v", resp, &req)
		}
	})
}
