// Package rpc makes every gRPC server and client connection of the cluster, so that all of them
// agree on certificates, identity, keepalive, limits, health checks and how to stop.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"

	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/fairness"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/pki"
)

// Defaults of a ServerConfig.
const (
	DefaultMaxRecvBytes     = 4 << 20
	DefaultMaxStreams       = 100_000
	DefaultMaxConnectionAge = 30 * time.Minute
	DefaultDrainDelay       = 300 * time.Millisecond
	DefaultDrainLimit       = 5 * time.Second
)

// Both ends' keepalive. A client pings a silent connection that carries streams, and the health
// check of every connection is one: a program that hangs is noticed within their sum. ContextDialer
// notices a machine that vanishes sooner, so that a program that is only overloaded gets time: all
// of its callers would leave and return at once. The server allows pings twice as often as its
// clients send them.
const (
	clientPingInterval = 10 * time.Second
	clientPingTimeout  = 20 * time.Second
	serverPingInterval = 30 * time.Second
	serverPingTimeout  = 10 * time.Second
)

// Fixed flow-control windows. With them gRPC does not probe the bandwidth with a ping per burst of
// data, and a slow reader holds no more than this. A server's is smaller: it has many callers, and
// what they send is unread until it is their turn. While it reads a message, gRPC widens the window
// to all of that message.
const (
	streamWindow       = 512 << 10
	serverStreamWindow = 64 << 10
	connectionWindow   = 4 << 20
)

// maxHeaderListBytes bounds the headers of one call as they are when decoded. A token has at most 8
// KiB.
const maxHeaderListBytes = 32 << 10

// bufferSize is that of each connection's read buffer; writes share pooled buffers.
const bufferSize = 16 << 10

// ServerConfig configures a server. Listen and TLS are required.
type ServerConfig struct {
	// Listen is the address to listen at, such as ":7001" or "127.0.0.1:0".
	Listen string
	// Listeners, when not nil, is given the listener at Listen and returns all that the server is to
	// serve, that one among them or wrapped. The server closes them.
	Listeners func(net.Listener) ([]net.Listener, error)
	// Admit, when not nil, decides about every connection before its TLS handshake, in a goroutine of
	// the connection's own. An error closes the connection; Admit has logged it then.
	Admit func(net.Conn) error
	// TLS holds the server's certificate and the authorities of its clients'.
	TLS *pki.Source
	// TrustedForwarders are the users that may call on behalf of others by the headers of package
	// edge; nil is xebec:gateway alone. Empty but not nil: none.
	TrustedForwarders []string
	// Tokens, when not nil, authenticates callers without a certificate by their bearer tokens. Nil:
	// every caller needs a certificate.
	Tokens edge.TokenAuthenticator
	// Edge limits what callers cost before they are known, and while their requests are received; zero
	// fields are edge.DefaultLimits.
	Edge edge.Limits
	// Authorize decides whether a caller may call a method; its error goes to the caller. Nil is
	// AuthorizeMethod. It is not asked about health and reflection, which every known caller may use.
	Authorize func(ctx context.Context, id edge.Identity, fullMethod string) error
	// Rates returns the rates of a caller when it first calls: see edge.Config. Nil: no limits.
	Rates func(edge.Identity) edge.Rates
	// Fairness says how many calls are worked on at once, and how many wait for their turn: see
	// package fairness. Unary calls count, and the starts of streams that Starts names, but not health
	// and reflection.
	Fairness fairness.Config
	// Starts, when not nil, reports whether the start of a stream costs as much as a call. Its handler
	// calls EndOfStart when that is done.
	Starts func(fullMethod string) bool
	// MaxRecvBytes bounds one received message; 0 is DefaultMaxRecvBytes.
	MaxRecvBytes int
	// MaxStreams bounds the calls open at once on one connection, which a client's further calls wait
	// for; 0 is DefaultMaxStreams. A gateway has one connection to each service for all of its
	// callers.
	MaxStreams uint32
	// MaxConnectionAge is after how long, give or take a tenth, a client is asked to connect again, so
	// that connections spread over instances and rotated certificates come into use; 0 is
	// DefaultMaxConnectionAge. Streams open then get a tenth of it to end before they are cut.
	MaxConnectionAge time.Duration
	// Ready, when not nil, is closed when the server may be called; until then its health is
	// NOT_SERVING.
	Ready <-chan struct{}
	// Healthy, when not nil, is asked every HealthInterval after that; while it says no, health is
	// NOT_SERVING, and clients that know other instances call those.
	Healthy func() bool
	// Leave, when not nil, is called when the server is to stop, before anything else of it stops, and
	// returns when those who send it connections without looking at its health know that it does.
	Leave func()
	// DrainDelay is how long a stopping server still takes calls after its health says NOT_SERVING,
	// for clients to notice; 0 is DefaultDrainDelay, less than 0 none. DrainLimit bounds the wait for
	// calls to end after that; 0 is DefaultDrainLimit.
	DrainDelay, DrainLimit time.Duration
	// LogLevel chooses the level at which a call is logged. Nil: Info for failures, Debug for the
	// rest.
	LogLevel func(fullMethod string, code codes.Code) zapcore.Level
	// Object names the object of a request in the log. Nil is Object.
	Object func(fullMethod string, req any) string
	// Metrics, when not nil, is where the server registers its metrics.
	Metrics prometheus.Registerer
	// StatsHandlers, such as OpenTelemetry's, see every call; they cost CPU even when they drop what
	// they see.
	StatsHandlers []stats.Handler
}

// HealthInterval is how often ServerConfig.Healthy is asked.
const HealthInterval = time.Second

// Server is a gRPC server that listens already. It implements grpc.ServiceRegistrar: register
// services before Serve.
type Server struct {
	cfg       ServerConfig
	log       *zap.Logger
	listener  net.Listener // at cfg.Listen
	listeners []net.Listener
	grpc      *grpc.Server
	health    *health.Server

	entry    *edge.Entry
	observer *observer
	// methods are the full names of all that are registered; it does not change once the server
	// serves.
	methods map[string]bool
}

// NewServer listens and prepares a server with health and reflection. Close or Serve releases the
// listener.
func NewServer(cfg ServerConfig, log *zap.Logger) (*Server, error) {
	if cfg.TLS == nil {
		return nil, errors.New("rpc server: certificates are required")
	}
	if cfg.TrustedForwarders == nil {
		cfg.TrustedForwarders = []string{pki.ServiceUser("gateway")}
	}
	if cfg.Authorize == nil {
		cfg.Authorize = AuthorizeMethod
	}
	if cfg.MaxRecvBytes == 0 {
		cfg.MaxRecvBytes = DefaultMaxRecvBytes
	}
	if cfg.MaxConnectionAge == 0 {
		cfg.MaxConnectionAge = DefaultMaxConnectionAge
	}
	if cfg.DrainDelay == 0 {
		cfg.DrainDelay = DefaultDrainDelay
	}
	if cfg.DrainLimit == 0 {
		cfg.DrainLimit = DefaultDrainLimit
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = DefaultMaxStreams
	}
	observer, err := newObserver(cfg, log)
	if err != nil {
		return nil, fmt.Errorf("rpc server: %w", err)
	}
	entry, err := edge.NewEntry(edge.Config{
		Admit: cfg.Admit, Limits: cfg.Edge, TrustedForwarders: cfg.TrustedForwarders, Tokens: cfg.Tokens,
		Rates: cfg.Rates, Fairness: cfg.Fairness, Metrics: cfg.Metrics,
	}, log)
	if err != nil {
		return nil, fmt.Errorf("rpc server: %w", err)
	}
	s := &Server{cfg: cfg, log: log, health: health.NewServer(), methods: make(map[string]bool), entry: entry, observer: observer}
	s.grpc = grpc.NewServer(s.options(observer)...)
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(s, s.health)
	reflection.Register(s)

	// Go would listen with MPTCP, which costs every connection for a gain that no cluster's own
	// network has.
	var listen net.ListenConfig
	listen.SetMultipathTCP(false)
	s.listener, err = listen.Listen(context.Background(), "tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("rpc server: %w", err)
	}
	s.listeners = []net.Listener{s.listener}
	if cfg.Listeners != nil {
		if s.listeners, err = cfg.Listeners(s.listener); err != nil {
			_ = s.listener.Close()
			return nil, fmt.Errorf("rpc server: %w", err)
		}
	}
	return s, nil
}

func (s *Server) options(observer *observer) []grpc.ServerOption {
	secure := s.cfg.TLS.ServerConfig()
	if s.cfg.Tokens != nil {
		secure = s.cfg.TLS.OptionalServerConfig()
	}
	recover := recovery.WithRecoveryHandlerContext(observer.recovered)
	options := []grpc.ServerOption{
		grpc.Creds(entryCredentials{credentials.NewTLS(secure), s.entry}),
		grpc.ConnectionTimeout(s.cfg.Edge.WithDefaults().HandshakeTimeout),
		grpc.MaxHeaderListSize(maxHeaderListBytes),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(s.cfg.MaxRecvBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge:      s.cfg.MaxConnectionAge,
			MaxConnectionAgeGrace: s.cfg.MaxConnectionAge / 10,
			Time:                  serverPingInterval,
			Timeout:               serverPingTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: clientPingInterval / 2, PermitWithoutStream: true}),
		grpc.StaticStreamWindowSize(serverStreamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
		grpc.ReadBufferSize(bufferSize),
		grpc.WaitForHandlers(true),
		// Callers are identified by their headers, before anything else of a call is read: see entry.go.
		grpc.InTapHandle(s.tap),
		// The order, outermost first. Observation is outside of all, so that failed and panicked calls
		// are counted and logged too. Recovery is outside of all that could panic. What a call's headers
		// decide was decided for a unary call before these see it, since they see it with its request; a
		// stream's interceptors come before its first message.
		grpc.ChainUnaryInterceptor(
			identifyUnary,
			interceptors.UnaryServerInterceptor(observer),
			recovery.UnaryServerInterceptor(recover),
		),
		grpc.ChainStreamInterceptor(
			identifyStream,
			interceptors.StreamServerInterceptor(observer),
			recovery.StreamServerInterceptor(recover),
			s.enterStream,
		),
	}
	if s.cfg.MaxStreams > 0 {
		options = append(options, grpc.MaxConcurrentStreams(s.cfg.MaxStreams))
	}
	for _, handler := range s.cfg.StatsHandlers {
		options = append(options, grpc.StatsHandler(handler))
	}
	return options
}

// RegisterService registers an implementation of a service, for generated Register functions.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	guarded := *desc
	guarded.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, method := range desc.Methods {
		fullMethod := "/" + desc.ServiceName + "/" + method.MethodName
		guarded.Methods[i] = grpc.MethodDesc{MethodName: method.MethodName, Handler: s.enterUnary(fullMethod, method.Handler)}
		s.methods[fullMethod] = true
	}
	for _, stream := range desc.Streams {
		s.methods["/"+desc.ServiceName+"/"+stream.StreamName] = true
	}
	s.grpc.RegisterService(&guarded, impl)
}

// Addr returns the address the server listens at, of ServerConfig.Listen where it has several.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close releases the listeners of a server that is never served.
func (s *Server) Close() {
	for _, listener := range s.listeners {
		_ = listener.Close()
	}
}

// Serve takes calls until ctx ends, then stops in order: Leave returns, health turns NOT_SERVING,
// calls are still taken for DrainDelay, handlers that watch Draining are notified, new calls are
// refused, running ones get DrainLimit to end, and what is left is cut off. It returns nil after a
// stop by ctx, and when it returns no handler runs any more.
func (s *Server) Serve(ctx context.Context) error {
	failed := make(chan error, len(s.listeners))
	for _, listener := range s.listeners {
		go func() {
			err := s.grpc.Serve(listener)
			if err != nil {
				err = fmt.Errorf("serve %s: %w", listener.Addr(), err)
			}
			failed <- err
		}()
	}

	ready := s.cfg.Ready
	if ready == nil {
		closed := make(chan struct{})
		close(closed)
		ready = closed
	}
	var check <-chan time.Time
wait:
	for {
		select {
		case <-ready:
			ready = nil
			s.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
			if s.cfg.Healthy != nil {
				ticker := time.NewTicker(HealthInterval)
				defer ticker.Stop()
				check = ticker.C
			}
		case <-check:
			status := healthpb.HealthCheckResponse_SERVING
			if !s.cfg.Healthy() {
				status = healthpb.HealthCheckResponse_NOT_SERVING
			}
			s.health.SetServingStatus("", status)
		case err := <-failed:
			s.grpc.Stop()
			for range len(s.listeners) - 1 {
				<-failed
			}
			return err
		case <-ctx.Done():
			break wait
		}
	}

	if s.cfg.Leave != nil {
		s.cfg.Leave()
	}
	s.health.Shutdown()
	if s.cfg.DrainDelay > 0 {
		time.Sleep(s.cfg.DrainDelay)
	}
	s.entry.Drain()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.grpc.GracefulStop()
	}()
	limit := time.NewTimer(s.cfg.DrainLimit)
	defer limit.Stop()
	select {
	case <-stopped:
	case <-limit.C:
		s.log.Info("Cutting off calls that did not end in time", zap.Duration(metrics.KeyLimit, s.cfg.DrainLimit))
		s.grpc.Stop()
		<-stopped
	}
	for range s.listeners {
		<-failed
	}
	return nil
}

// isInfrastructure reports whether a method is gRPC's own: health checks and reflection.
func isInfrastructure(fullMethod string) bool { return strings.HasPrefix(fullMethod, "/grpc.") }

// GetServiceInfo lists the registered services, for reflection.
func (s *Server) GetServiceInfo() map[string]grpc.ServiceInfo { return s.grpc.GetServiceInfo() }
