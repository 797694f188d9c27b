// Package dns is the DNS server for the pods of one node: it resolves names of services and of
// endpoints of headless services from the informers, and forwards other queries to the node's
// resolvers. It follows Kubernetes' DNS specification and continues with the last known state when
// the control plane is unavailable.
package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/xebec-project/xebec/internal/metrics"
)

// maxAliases is how many ExternalName services in a row are followed.
const maxAliases = 8

const (
	tcpIdle       = 10 * time.Second
	shutdownLimit = 2 * time.Second
)

// Config configures a server.
type Config struct {
	// Domain is the cluster's, such as "cluster.local".
	Domain string
	// Address is where to answer: the cluster DNS IP and port 53.
	Address netip.AddrPort
	// Upstreams are the resolvers for other names, in order of preference. The
	// server's own address is left out. None: other names are refused.
	Upstreams []netip.AddrPort
	// CIDRs are the cluster's own addresses: queries for those without a name get NXDOMAIN and are not
	// forwarded.
	CIDRs []netip.Prefix
	// Metrics count responses. Nil: there are none.
	Metrics *Metrics
}

// Server is a node's DNS server.
type Server struct {
	cfg     Config
	domain  string // in lower case, with the final dot
	records atomic.Pointer[Records]
	forward *forwarder
	log     *zap.Logger

	udp net.PacketConn
	tcp *net.TCPListener
}

// New returns a server that answers from the records. It does not listen yet.
func New(cfg Config, records *Records, log *zap.Logger) (*Server, error) {
	if _, ok := miekg.IsDomainName(cfg.Domain); !ok || strings.Trim(cfg.Domain, ".") == "" {
		return nil, fmt.Errorf("invalid cluster domain %q", cfg.Domain)
	}
	if !cfg.Address.Addr().Is4() {
		return nil, fmt.Errorf("invalid DNS address %v: want an IPv4 address and a port", cfg.Address)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	upstreams := slices.DeleteFunc(slices.Clone(cfg.Upstreams), func(u netip.AddrPort) bool { return u == cfg.Address })
	s := &Server{
		cfg:     cfg,
		domain:  strings.ToLower(miekg.Fqdn(cfg.Domain)),
		forward: newForwarder(upstreams, cfg.Metrics),
		log:     log,
	}
	s.records.Store(records)
	return s, nil
}

// SetRecords makes the server answer from other records from now on.
func (s *Server) SetRecords(records *Records) { s.records.Store(records) }

// Adopt takes bound sockets, as Bind makes them: a UDP socket and a listening TCP socket at the
// same address. The files stay the caller's.
func (s *Server) Adopt(udp, tcp *os.File) error {
	listener, err := net.FileListener(tcp)
	if err != nil {
		return fmt.Errorf("DNS by TCP: %w", err)
	}
	packets, err := net.FilePacketConn(udp)
	if err != nil {
		listener.Close()
		return fmt.Errorf("DNS by UDP: %w", err)
	}
	s.tcp, s.udp = listener.(*net.TCPListener), packets
	return nil
}

// Bind binds an address for UDP and TCP in the network namespace of the calling thread and returns
// both sockets, for Adopt. With port 0 both get the same free port.
func Bind(ctx context.Context, address netip.AddrPort) (udp, tcp *os.File, err error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	// TCP first: it is the one that leaves ports in use behind.
	listener, err := lc.Listen(ctx, "tcp4", address.String())
	if err != nil {
		return nil, nil, fmt.Errorf("listening for DNS: %w", err)
	}
	defer listener.Close()
	packets, err := lc.ListenPacket(ctx, "udp4", listener.Addr().String())
	if err != nil {
		return nil, nil, fmt.Errorf("listening for DNS: %w", err)
	}
	defer packets.Close()
	tcp, err = listener.(*net.TCPListener).File()
	if err != nil {
		return nil, nil, fmt.Errorf("listening for DNS: %w", err)
	}
	udp, err = packets.(*net.UDPConn).File()
	if err != nil {
		tcp.Close()
		return nil, nil, fmt.Errorf("listening for DNS: %w", err)
	}
	return udp, tcp, nil
}

// Addr is where the server listens, once Adopt has returned.
func (s *Server) Addr() netip.AddrPort {
	return s.udp.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Serve answers until the context ends, then finishes what is under way and
// returns the context's error. Adopt comes first.
func (s *Server) Serve(ctx context.Context) error {
	listener := newDrainingListener(s.tcp)
	udp := &miekg.Server{PacketConn: s.udp, Handler: s, UDPSize: bufferSize}
	tcp := &miekg.Server{Listener: listener, Handler: s, IdleTimeout: func() time.Duration { return tcpIdle }}
	g, ctx := errgroup.WithContext(ctx)
	serve(ctx, g, udp, func(context.Context) {})
	serve(ctx, g, tcp, listener.drain)
	return g.Wait()
}

// serve adds a server to the group, which ends with ctx after it was drained.
func serve(ctx context.Context, g *errgroup.Group, srv *miekg.Server, drain func(context.Context)) {
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	ended := make(chan struct{})
	g.Go(func() error {
		defer close(ended)
		if err := srv.ActivateAndServe(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("serving DNS: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		select {
		case <-started:
		case <-ended:
			return nil
		}
		<-ctx.Done()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
		defer cancel()
		drain(limit)
		if err := srv.ShutdownContext(limit); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("stopping DNS: %w", err)
		}
		return ctx.Err()
	})
}

// ServeDNS responds to one request.
func (s *Server) ServeDNS(w miekg.ResponseWriter, req *miekg.Msg) {
	ctx, cancel := context.WithTimeout(context.Background(), forwardTimeout+attemptTimeout)
	defer cancel()
	resp := s.respond(ctx, req)
	if resp == nil {
		return
	}
	s.cfg.Metrics.answered(resp.Rcode)
	limit := miekg.MaxMsgSize
	if w.RemoteAddr().Network() == "udp" {
		limit = miekg.MinMsgSize
		if opt := req.IsEdns0(); opt != nil {
			limit = min(max(int(opt.UDPSize()), miekg.MinMsgSize), bufferSize)
		}
	}
	resp.Truncate(limit)
	if err := w.WriteMsg(resp); err != nil {
		s.log.Debug("Failed to answer a query", zap.Stringer(metrics.KeyClient, w.RemoteAddr()), zap.Error(err))
	}
}

// respond returns the response to a request, nil for messages that get none.
func (s *Server) respond(ctx context.Context, req *miekg.Msg) *miekg.Msg {
	if req.Response {
		return nil // responding to responses could loop between two servers
	}
	resp := new(miekg.Msg)
	if len(req.Question) != 1 {
		resp.SetRcodeFormatError(req)
		return resp
	}
	resp.SetReply(req)
	resp.RecursionAvailable = true
	opt := req.IsEdns0()
	if opt != nil {
		resp.SetEdns0(bufferSize, opt.Do())
		if opt.Version() != 0 {
			resp.SetRcode(req, miekg.RcodeBadVers)
			return resp
		}
	}
	q := req.Question[0]
	switch {
	case req.Opcode != miekg.OpcodeQuery:
		resp.Rcode = miekg.RcodeNotImplemented
		return resp
	case q.Qclass != miekg.ClassINET || q.Qtype == miekg.TypeAXFR || q.Qtype == miekg.TypeIXFR:
		resp.Rcode = miekg.RcodeRefused
		return resp
	}

	name := strings.ToLower(q.Name)
	if miekg.IsSubDomain(s.domain, name) {
		s.fromZone(ctx, req, resp)
		return resp
	}
	if ip, ok := reverseAddress(name); ok && s.fromReverse(ip, q, resp) {
		return resp
	}
	s.fromUpstream(ctx, req, resp)
	return resp
}

// fromZone responds for the cluster domain, and follows aliases out of it.
func (s *Server) fromZone(ctx context.Context, req, resp *miekg.Msg) {
	if !s.records.Load().isSynced() {
		resp.Rcode = miekg.RcodeServerFailure
		return
	}
	resp.Authoritative = true
	q := req.Question[0]
	name := q.Name
	for range maxAliases {
		a := s.lookup(name, q.Qtype)
		resp.Rcode = a.rcode
		resp.Answer = append(resp.Answer, a.answer...)
		resp.Extra = append(resp.Extra, a.extra...)
		if a.alias == "" {
			if len(a.answer) == 0 {
				resp.Ns = append(resp.Ns, soa(s.domain))
			}
			return
		}
		name = a.alias
		if !miekg.IsSubDomain(s.domain, strings.ToLower(name)) {
			s.follow(ctx, req, resp, name)
			return
		}
	}
	resp.Rcode = miekg.RcodeServerFailure // the aliases lead in a circle
}

func (s *Server) lookup(name string, qtype uint16) answer {
	labels := miekg.SplitDomainName(strings.ToLower(name))
	labels = labels[:len(labels)-miekg.CountLabel(s.domain)]
	if len(labels) == 0 && (qtype == miekg.TypeSOA || qtype == miekg.TypeANY) {
		return answer{answer: []miekg.RR{soa(s.domain)}}
	}
	return s.records.Load().lookup(labels, name, s.domain, qtype)
}

// follow resolves the target of an alias upstream. Without an upstream the client gets the alias
// only.
func (s *Server) follow(ctx context.Context, req, resp *miekg.Msg, target string) {
	ask := req.Copy()
	ask.Question[0].Name = target
	found, err := s.forward.exchange(ctx, ask)
	if errors.Is(err, errNoUpstream) {
		return
	}
	if err != nil {
		s.log.Debug("Failed to resolve an alias", zap.String(metrics.KeyDNSName, target), zap.Error(err))
		resp.Rcode = miekg.RcodeServerFailure
		return
	}
	resp.Rcode = found.Rcode
	resp.Answer = append(resp.Answer, found.Answer...)
	resp.Ns = append(resp.Ns, found.Ns...)
}

// fromReverse responds to a reverse query. It reports whether the address is in the cluster's
// ranges.
func (s *Server) fromReverse(ip netip.Addr, q miekg.Question, resp *miekg.Msg) bool {
	names := s.records.Load().names(ip, s.domain)
	inside := slices.ContainsFunc(s.cfg.CIDRs, func(p netip.Prefix) bool { return p.Contains(ip) })
	switch {
	case len(names) == 0 && !inside:
		return false
	case len(names) == 0 && !s.records.Load().isSynced():
		resp.Rcode = miekg.RcodeServerFailure
		return true
	case len(names) == 0:
		resp.Rcode = miekg.RcodeNameError
	}
	resp.Authoritative = true
	if q.Qtype == miekg.TypePTR || q.Qtype == miekg.TypeANY {
		for _, n := range names {
			resp.Answer = append(resp.Answer, &miekg.PTR{Hdr: header(q.Name, miekg.TypePTR), Ptr: n})
		}
	}
	if len(resp.Answer) == 0 {
		resp.Ns = []miekg.RR{soa(s.domain)}
	}
	return true
}

// fromUpstream passes the response of a resolver on.
func (s *Server) fromUpstream(ctx context.Context, req, resp *miekg.Msg) {
	found, err := s.forward.exchange(ctx, req)
	switch {
	case errors.Is(err, errNoUpstream):
		resp.Rcode = miekg.RcodeRefused
		return
	case err != nil:
		s.log.Debug("Failed to forward a query", zap.String(metrics.KeyDNSName, req.Question[0].Name), zap.Error(err))
		resp.Rcode = miekg.RcodeServerFailure
		return
	}
	resp.Rcode = found.Rcode & 0xf
	resp.AuthenticatedData = found.AuthenticatedData
	resp.Answer = slices.Clone(found.Answer)
	resp.Ns = slices.Clone(found.Ns)
	for _, rr := range found.Extra {
		if rr.Header().Rrtype != miekg.TypeOPT { // EDNS options are hop by hop
			resp.Extra = append(resp.Extra, rr)
		}
	}
}
