// Package listener decides from where a gateway takes connections: at its listeners, public and
// private, by the configuration or, while there is one, by the cluster's GatewayAccess. It asks
// before any handshake, so that those who are not admitted learn nothing, and when the rules change
// it cuts the connections that they no longer admit.
//
// The masters themselves are always admitted: loopback, this host's own addresses, and the
// addresses at which the control plane's services are registered. So no access list can lock the
// masters out.
package listener

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/xebec-project/xebec/internal/allowlist"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/kinds/gateway"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/pki"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
)

// The listeners.
const (
	Private = "private"
	Public  = "public"
)

// What rules come from, in the order in which they count.
const (
	FromObject = "GatewayAccess"
	FromKept   = "the GatewayAccess seen last"
	FromConfig = "the gateway's configuration"
)

// mastersInterval is how often the addresses of the control plane's services are read.
const mastersInterval = 10 * time.Second

// Rule says who is admitted at a listener.
type Rule struct {
	// Closed admits only the masters.
	Closed bool
	// Allowed are the sources; the empty list admits everyone.
	Allowed allowlist.List
}

// Admits reports whether a source is admitted, apart from the masters.
func (r Rule) Admits(source netip.Addr) bool { return !r.Closed && r.Allowed.Contains(source) }

// rules are those of all listeners at one time; immutable.
type rules struct {
	from            string
	private, public Rule
}

func (r *rules) of(listener string) Rule {
	if listener == Public {
		return r.public
	}
	return r.private
}

// Set is the listeners of one server. It is safe for concurrent use.
type Set struct {
	cfg     Config
	log     *zap.Logger
	proxies map[string]allowlist.List

	mu      sync.Mutex
	rules   *rules
	masters []netip.Addr // this host's and those of registered services
	open    map[*conn]struct{}
	checks  map[netip.Addr]*checks // by load balancer
	ready   <-chan struct{}        // closed when the gateway takes calls; nil: from the beginning
	left    chan struct{}          // not nil: the gateway leaves; closed when all load balancers have noticed

	denials    *rate.Limiter // bounds the log of denied connections
	silenced   int           // denied connections since the last that was logged
	decided    *prometheus.CounterVec
	openGauges *prometheus.GaugeVec
}

// Results of a connection, the label of its counter.
const (
	resultAdmitted = "admitted"
	resultDenied   = "denied"
	resultCut      = "cut"
	resultProxy    = "bad_proxy_header"
)

// New returns listeners that go by the rules kept last, or by the configuration, which must be
// valid. Registerer may be nil.
func New(cfg Config, log *zap.Logger, registerer prometheus.Registerer) (*Set, error) {
	s := &Set{
		cfg: cfg, log: log, open: make(map[*conn]struct{}), checks: make(map[netip.Addr]*checks),
		proxies: map[string]allowlist.List{Private: cfg.Private.proxies(), Public: cfg.Public.proxies()},
		denials: rate.NewLimiter(1, 10),
		decided: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.GatewayConnections,
			Help: "Connections by listener and result: admitted, denied by the access list, cut when the list changed, or with a bad PROXY header.",
		}, []string{metrics.LabelListener, metrics.LabelResult}),
		openGauges: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: metrics.GatewayOpenConnections, Help: "Connections that are open, by listener.",
		}, []string{metrics.LabelListener}),
	}
	s.rules = s.configured()
	if kept, err := s.load(); err != nil {
		log.Warn("The stored GatewayAccess cannot be used: using the configuration",
			zap.String(metrics.KeyFile, cfg.Keep), zap.Error(err))
	} else if kept != nil {
		s.rules = s.from(kept, FromKept)
	}
	s.masters = ownAddresses(log)
	for _, listener := range []string{Private, Public} {
		s.openGauges.WithLabelValues(listener)
		for _, result := range []string{resultAdmitted, resultDenied, resultCut, resultProxy} {
			s.decided.WithLabelValues(listener, result)
		}
	}
	if registerer == nil {
		return s, nil
	}
	return s, errors.Join(registerer.Register(s.decided), registerer.Register(s.openGauges))
}

func (s *Set) configured() *rules {
	return &rules{from: FromConfig, private: s.cfg.Private.rule(), public: s.cfg.Public.rule()}
}

// from returns the rules of a GatewayAccess; what it leaves out is the configuration's.
func (s *Set) from(access *gatewayv1.GatewayAccess, from string) *rules {
	r := s.configured()
	r.from = from
	for _, listener := range []struct {
		rule   *Rule
		access *gatewayv1.ListenerAccess
	}{{&r.private, access.GetSpec().GetPrivate()}, {&r.public, access.GetSpec().GetPublic()}} {
		if listener.access == nil {
			continue
		}
		list, problems := allowlist.Parse(listener.access.GetAllowedCidrs())
		for _, problem := range problems {
			// The apiserver refuses such lists. What can be read of it counts; a list of nothing else admits
			// no source.
			s.log.Error("An entry of the GatewayAccess is of no use", zap.Error(problem))
		}
		*listener.rule = Rule{
			Closed:  listener.access.Enabled != nil && !listener.access.GetEnabled() || len(problems) > 0 && len(list) == 0,
			Allowed: list,
		}
	}
	return r
}

// Run follows the cluster's GatewayAccess and the addresses of the masters until ctx ends.
func (s *Set) Run(ctx context.Context, objects *client.Client, directory *discovery.Directory) {
	var following sync.WaitGroup
	following.Go(func() { s.followMasters(ctx, directory) })
	informer := client.NewInformer(objects, client.InformerOptions[*gatewayv1.GatewayAccess]{})
	changed := func() {
		for _, access := range informer.List() {
			if access.GetMetadata().GetName() == gateway.GatewayAccessName {
				s.change(s.from(access, FromObject))
				s.keep(access)
				return
			}
		}
		s.change(s.configured())
		s.keep(nil)
	}
	// The whole state first, then each change: before the state is known, the rules kept from before
	// count.
	synced := false
	informer.OnState(func() {
		synced = true
		changed()
	})
	informer.OnChange(func(_, _ *gatewayv1.GatewayAccess) {
		if synced {
			changed()
		}
	})
	_ = informer.Run(ctx)
	following.Wait()
}

// change puts rules into force, and cuts the connections that they do not admit.
func (s *Set) change(next *rules) {
	s.mu.Lock()
	same := s.rules.from == next.from && s.rules.private.equal(next.private) && s.rules.public.equal(next.public)
	s.rules = next
	var cut []*conn
	for c := range s.open {
		if !s.admits(c) {
			cut = append(cut, c)
		}
	}
	s.mu.Unlock()
	if !same {
		s.log.Info("The access list changed", zap.String(metrics.KeyFrom, next.from),
			zap.Bool(metrics.KeyPrivateClosed, next.private.Closed), zap.Strings(metrics.KeyPrivate, next.private.Allowed.Strings()),
			zap.Bool(metrics.KeyPublicClosed, next.public.Closed), zap.Strings(metrics.KeyPublic, next.public.Allowed.Strings()))
	}
	for _, c := range cut {
		s.log.Info("Cut a connection that the access list no longer admits",
			zap.String(metrics.KeyListener, c.listener), zap.Stringer(metrics.KeyPeer, c.source))
		s.decided.WithLabelValues(c.listener, resultCut).Inc()
		_ = c.Close()
	}
}

func (r Rule) equal(o Rule) bool { return r.Closed == o.Closed && slices.Equal(r.Allowed, o.Allowed) }

// isMaster reports whether a source is always admitted. The caller holds s.mu.
func (s *Set) isMaster(source netip.Addr) bool {
	return source.IsLoopback() || slices.Contains(s.masters, source)
}

// admits reports whether a connection is admitted. The caller holds s.mu.
func (s *Set) admits(c *conn) bool {
	return c.proxysOwn || s.isMaster(c.source) || s.rules.of(c.listener).Admits(c.source)
}

// State is what the listeners go by.
type State struct {
	// From tells what the rules come from.
	From string
	// Private and Public are the rules of the listeners.
	Private, Public Rule
	// Listens reports whether the gateway has a public listener.
	Listens bool
}

// State returns what the listeners go by now.
func (s *Set) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return State{From: s.rules.from, Private: s.rules.private, Public: s.rules.public, Listens: s.cfg.Public.Listen != ""}
}

// deny counts and logs a connection that is not admitted; the log has ten at once and one a second,
// and how many it left out.
func (s *Set) deny(listener string, source netip.Addr) {
	s.decided.WithLabelValues(listener, resultDenied).Inc()
	s.mu.Lock()
	if !s.denials.Allow() {
		s.silenced++
		s.mu.Unlock()
		return
	}
	silenced := s.silenced
	s.silenced = 0
	s.mu.Unlock()
	s.log.Info("Denied a connection by the access list", zap.String(metrics.KeyListener, listener), zap.Stringer(metrics.KeyPeer, source),
		zap.Int(metrics.KeyUnlogged, silenced))
}

// followMasters reads the addresses of the masters now and then. While etcd does not answer those
// known last count.
func (s *Set) followMasters(ctx context.Context, directory *discovery.Directory) {
	ticker := time.NewTicker(mastersInterval)
	defer ticker.Stop()
	var registered []netip.Addr
	for {
		if instances, err := directory.Instances(ctx); err == nil {
			registered = registered[:0]
			for _, instance := range instances {
				host, _, _ := net.SplitHostPort(instance.Addr)
				if addr, err := netip.ParseAddr(host); err == nil {
					registered = append(registered, addr.Unmap())
				}
			}
		}
		masters := append(ownAddresses(s.log), registered...)
		s.mu.Lock()
		s.masters = masters
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// ownAddresses returns the addresses of this host.
func ownAddresses(log *zap.Logger) []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		log.Warn("This host's own addresses could not be read", zap.Error(err))
	}
	var own []netip.Addr
	for _, a := range all {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, prefix.Addr().Unmap())
		}
	}
	return own
}

// load returns the GatewayAccess kept from before, nil when there is none.
func (s *Set) load() (*gatewayv1.GatewayAccess, error) {
	if s.cfg.Keep == "" {
		return nil, nil
	}
	data, err := os.ReadFile(s.cfg.Keep)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	object, err := codec.Unmarshal(data)
	if err != nil {
		return nil, err
	}
	access, ok := object.(*gatewayv1.GatewayAccess)
	if !ok {
		return nil, errors.New("it holds another kind")
	}
	return access, nil
}

// keep writes the GatewayAccess down, or that there is none.
func (s *Set) keep(access *gatewayv1.GatewayAccess) {
	if s.cfg.Keep == "" {
		return
	}
	var err error
	if access == nil {
		if err = os.Remove(s.cfg.Keep); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		var data []byte
		if data, err = codec.Marshal(access); err == nil {
			err = pki.WriteFile(s.cfg.Keep, data)
		}
	}
	if err != nil {
		s.log.Warn("The GatewayAccess could not be kept: a start while no apiserver answers would go by the configuration",
			zap.String(metrics.KeyFile, s.cfg.Keep), zap.Error(err))
	}
}
