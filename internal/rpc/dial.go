package rpc

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer/roundrobin"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/health" // lets clients check the health that the service config asks for
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"

	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/retry"
	"github.com/xebec-project/xebec/internal/version"
)

// Schemes of targets.
const (
	// SchemeDiscovery is that of "xebec:///apiserver": all instances of a service, kept up to date.
	SchemeDiscovery = "xebec"
	// SchemeStatic is that of "static:///10.0.0.1:6443,10.0.0.2:6443": a fixed list.
	SchemeStatic = "static"
)

// maxResponseBytes bounds one received message; a list is one.
const maxResponseBytes = 128 << 20

// serviceConfig is gRPC's configuration of a connection: balance over the instances whose health is
// SERVING. What is repeated is decided in retry.go. gRPC by itself repeats any call that never
// left.
var serviceConfig = fmt.Sprintf(`{"loadBalancingConfig": [{%q: {}}], "healthCheckConfig": {"serviceName": ""}}`, roundrobin.Name)

// ClientConfig configures a connection. TLS is required.
type ClientConfig struct {
	// TLS holds the client's certificate and the authorities of the servers'.
	TLS *pki.Source
	// ServerUser is the common name that the server's certificate must have. Empty: for a discovery
	// target the service's (xebec:apiserver), else xebec:gateway.
	ServerUser string
	// Discovery resolves targets of the scheme xebec.
	Discovery resolver.Builder
	// UserAgent names the program; empty is "xebec/" and the version.
	UserAgent string
	// Silence is how long the kernel of the peer may be silent before the connection is given up and
	// calls go to another instance; 0 is DefaultSilence.
	Silence time.Duration
	// ForOthers says that the connection carries the calls of others. The caller sets their headers,
	// request ids among them.
	ForOthers bool
	// Options are added last.
	Options []grpc.DialOption
}

// Dial returns a connection to a target, which it makes when first used and keeps up by itself:
//
//	xebec:///apiserver           every instance of a service, found by cfg.Discovery
//	static:///a:6443,b:6443      these addresses
//	a:6443                       the same with one address
//
// Calls go round robin over the instances that are connected and healthy. They fail with
// Unavailable when none is, after at most the first attempt to connect: calls that rather wait say
// grpc.WaitForReady. The connection carries *Frame as well as messages.
func Dial(target string, cfg ClientConfig) (*grpc.ClientConn, error) {
	if cfg.TLS == nil {
		return nil, fmt.Errorf("dial %s: certificates are required", target)
	}
	serverUser := cfg.ServerUser
	if service, ok := strings.CutPrefix(target, SchemeDiscovery+":///"); ok {
		if cfg.Discovery == nil {
			return nil, fmt.Errorf("dial %s: this process has no service discovery", target)
		}
		if serverUser == "" {
			serverUser = pki.ServiceUser(service)
		}
	} else if !strings.HasPrefix(target, SchemeStatic+":///") {
		target = SchemeStatic + ":///" + target
	}
	if serverUser == "" {
		serverUser = pki.ServiceUser("gateway")
	}
	userAgent := cfg.UserAgent
	if userAgent == "" {
		userAgent = "xebec/" + version.Version()
	}
	silence := cfg.Silence
	if silence == 0 {
		silence = DefaultSilence
	}
	resolvers := []resolver.Builder{staticBuilder{}}
	if cfg.Discovery != nil {
		resolvers = append(resolvers, cfg.Discovery)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(AdaptiveCredentials(credentials.NewTLS(cfg.TLS.ClientConfig(expectUser(serverUser))))),
		// Who the server is follows from its certificate's user; the authority only has to be well
		// formed.
		grpc.WithAuthority("xebec"),
		grpc.WithResolvers(resolvers...),
		grpc.WithNoProxy(),
		grpc.WithContextDialer(ContextDialer(silence)),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newCodec()), grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		grpc.WithUserAgent(userAgent),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: clientPingInterval, Timeout: clientPingTimeout}),
		grpc.WithConnectParams(ConnectParams()),
		grpc.WithUnaryInterceptor(repeat(retry.Process)),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connectionWindow),
		grpc.WithReadBufferSize(bufferSize),
	}
	if !cfg.ForOthers {
		options = append(options, grpc.WithChainUnaryInterceptor(passUnary), grpc.WithChainStreamInterceptor(passStream))
	}
	conn, err := grpc.NewClient(target, append(options, cfg.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return conn, nil
}

// Bearer is a token that goes with every call of a connection, by grpc.WithPerRPCCredentials among
// ClientConfig.Options.
type Bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b Bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{edge.HeaderAuthorization: "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: a token is never sent in the
// clear.
func (Bearer) RequireTransportSecurity() bool { return true }

// expectUser demands that a server's certificate names a certain user.
func expectUser(user string) func(*x509.Certificate) error {
	return func(leaf *x509.Certificate) error {
		if got := leaf.Subject.CommonName; got != user {
			return fmt.Errorf("the server is %s, not %s: the address leads to another service", got, user)
		}
		return nil
	}
}

// staticBuilder resolves "static:///a:1,b:2" to those addresses.
type staticBuilder struct{}

func (staticBuilder) Scheme() string { return SchemeStatic }

func (staticBuilder) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	var endpoints []resolver.Endpoint
	for address := range strings.SplitSeq(target.Endpoint(), ",") {
		if address = strings.TrimSpace(address); address != "" {
			endpoints = append(endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}})
		}
	}
	if len(endpoints) == 0 {
		return nil, errors.New("the target names no address")
	}
	if err := cc.UpdateState(resolver.State{Endpoints: endpoints}); err != nil {
		return nil, err
	}
	return staticResolver{}, nil
}

type staticResolver struct{}

func (staticResolver) ResolveNow(resolver.ResolveNowOptions) {}
func (staticResolver) Close()                                {}
