package edge

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/fairness"
	"github.com/xebec-project/xebec/internal/metrics"
)

// Config configures the entry of one server. Its zero value accepts callers with a certificate from
// everywhere, within the default limits.
type Config struct {
	// Admit, when not nil, decides about every connection before its TLS handshake, in a goroutine
	// of the connection's own. An error closes the connection; Admit has logged it then.
	Admit func(net.Conn) error
	// Limits bounds what callers cost before they are known, and while their requests are received.
	Limits Limits
	// TrustedForwarders are the users that may call on behalf of others.
	TrustedForwarders []string
	// Tokens, when not nil, authenticates callers without a certificate. Nil: every caller needs a
	// certificate.
	Tokens TokenAuthenticator
	// Rates returns the rates of a caller when it first calls: they bound how often calls begin, not
	// how many streams are open, since watches are many, long and mostly idle. Nil: no limits.
	Rates func(Identity) Rates
	// Fairness is how many calls are worked on at once, and how many wait.
	Fairness fairness.Config
	// Metrics, when not nil, is where the entry registers its metrics.
	Metrics prometheus.Registerer
}

// Entry is the entry of one server. It is safe for concurrent use.
type Entry struct {
	cfg           Config
	log           *zap.Logger
	authenticator Authenticator
	guard         *Guard
	gate          *gate
	rates         *rateLimiter
	seats         *seats
	refused       *prometheus.CounterVec // calls
	closed        *prometheus.CounterVec // connections
	rejections    *Sampler               // bounds the log of connections
	draining      context.Context
	drain         context.CancelFunc
}

// NewEntry returns an entry for a server.
func NewEntry(cfg Config, log *zap.Logger) (*Entry, error) {
	cfg.Limits = cfg.Limits.WithDefaults()
	e := &Entry{
		cfg: cfg, log: log,
		authenticator: Authenticator{Forwarders: cfg.TrustedForwarders, Tokens: cfg.Tokens},
		gate:          newGate(cfg.Limits.ReceivingPerCaller),
		rejections:    NewSampler(),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.RPCRefused, Help: "Calls refused before they reached a handler, by reason.",
		}, []string{metrics.LabelReason}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.RPCConnectionsClosed, Help: "Connections refused or closed by the limits, by reason.",
		}, []string{metrics.LabelReason}),
	}
	e.draining, e.drain = context.WithCancel(context.Background())
	e.guard = NewGuard(cfg.Limits, func(reason string) { e.closed.WithLabelValues(reason).Inc() })
	e.rates = newRateLimiter(cfg.Rates, e.countRefusal)
	e.seats = newSeats(cfg.Fairness, e.countRefusal)
	if cfg.Metrics == nil {
		return e, nil
	}
	var problems []error
	collectors := append(e.seats.collectors(), connectionGauges(e.guard)...)
	for _, c := range append(collectors, e.refused, e.closed) {
		problems = append(problems, cfg.Metrics.Register(c))
	}
	return e, errors.Join(problems...)
}

func (e *Entry) countRefusal(reason string) { e.refused.WithLabelValues(reason).Inc() }

// Draining returns a context that ends when the server begins to stop.
func (e *Entry) Draining() context.Context { return e.draining }

// Drain begins to stop: connections that wait to authenticate are refused, and handlers of long
// calls that watch Draining end them.
func (e *Entry) Drain() { e.drain() }

// Admit decides about an authenticated call before its first message is read: whether its token was
// revoked and, for all calls but those of a health check, whether its caller makes too many calls.
func (e *Entry) Admit(ctx context.Context, c *Call, healthCheck bool) error {
	if c.Token != "" {
		if err := e.cfg.Tokens.Review(ctx, c.Token); err != nil {
			return err
		}
	}
	if healthCheck {
		return nil
	}
	return e.rates.admit(c.Identity)
}

// Seat returns the seat of a call, not taken yet; leases says that the call is about a Lease
// object.
func (e *Entry) Seat(c *Call, leases bool) *Seat {
	return e.seats.seat(c.Identity, leases)
}

// StartSeat is Seat for the start of a stream. It is released after startLimit at the latest.
func (e *Entry) StartSeat(c *Call, leases bool) *Seat {
	seat := e.Seat(c, leases)
	seat.limit = startLimit
	return seat
}

// Receive waits until it is the caller's turn to have a request received, and returns what ends the
// turn. While it waits the call holds no seat: requests that do not arrive keep no more seats than
// the caller has turns. Health checks do not wait for the caller's other requests.
func (e *Entry) Receive(ctx context.Context, c *Call, seat *Seat, healthCheck bool) (leave func(), err error) {
	caller := c.Identity.User
	if healthCheck {
		caller = "health of " + caller
	}
	if leave, ok := e.gate.tryEnter(caller); ok {
		return leave, nil
	}
	seat.Release()
	if leave, err = e.gate.enter(ctx, caller); err != nil {
		return nil, Ended(ctx, err)
	}
	if err := seat.Take(ctx); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// ReceiveTimeout is how long a request may take to arrive.
func (e *Entry) ReceiveTimeout() time.Duration { return e.cfg.Limits.ReceiveTimeout }

// Hold calls end, with the error for the caller, when the credential of a long call expires or is
// revoked before release is called.
func (e *Entry) Hold(c *Call, end func(error)) (release func()) {
	stop, letGo := func() bool { return true }, func() {}
	if !c.Expiry.IsZero() {
		stop = time.AfterFunc(time.Until(c.Expiry), func() { end(c.expired()) }).Stop
	}
	if c.Token != "" {
		letGo = e.cfg.Tokens.Hold(c.Token, end)
	}
	return func() {
		stop()
		letGo()
	}
}

// Authenticate returns the call that begins with these headers on a connection, as
// Authenticator.Authenticate does, and tells the connection whether its caller has authenticated.
// The call returned with an error is for the log.
func (e *Entry) Authenticate(connection *Connection, leaf *x509.Certificate, headers Headers) (Call, error) {
	c, owner, err := e.authenticator.Authenticate(connection, leaf, headers)
	c.Draining = e.draining
	switch {
	case err == nil:
		if full := connection.Authenticated(owner); full != nil {
			e.countRefusal(ReasonConnections)
			err = refuse(codes.ResourceExhausted, ReasonConnections, "%v", full)
		}
	case owner == "" && apierr.Code(err) != codes.Unavailable:
		connection.Failed()
	}
	return c, err
}
