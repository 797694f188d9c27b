// Package gateway is the entry to the cluster for people, tools and node agents. It knows callers
// by their certificates, limits them, logs what they do, and forwards their calls, without decoding
// a message, to a healthy instance of the service that answers: calls about a node to that node's
// agent, the rest to the control plane.
//
// It authorizes the calls whose right follows from the method, such as those to node agents. Calls
// that name a kind are authorized by the apiserver, which gets the caller's identity.
package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/edge/listener"
	"github.com/xebec-project/xebec/internal/edge/tokens"
	"github.com/xebec-project/xebec/internal/fairness"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	// Linked in so that reflection describes the objects that travel inside google.protobuf.Any.
	_ "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/discovery/v1" // also for reflection
	etcdv1 "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
)

// Config is the gateway's configuration.
type Config struct {
	// UserLimits holds for each person and tool.
	UserLimits edge.Rates `yaml:"userLimits"`
	// SystemLimits holds for each node agent and control-plane service.
	SystemLimits edge.Rates `yaml:"systemLimits"`
	// MaxInFlight bounds the unary calls forwarded at once, over all callers; further ones wait. They
	// are divided among the priority levels. 0 is the default.
	MaxInFlight int `yaml:"maxInFlight" help:"unary calls forwarded at once, over all callers; further ones wait"`
	// Queues bounds the calls that wait. 0 is the default.
	Queues fairness.Queues `yaml:"queues"`
	// MaxStreams bounds the calls open at once on one connection; the client's further calls wait.
	MaxStreams int `yaml:"maxStreams" help:"calls open at once on one connection; the client's further calls wait"`
	// Edge bounds what callers cost before they are known, and while their requests are received. 0 is
	// the default.
	Edge edge.Limits `yaml:"limits"`
	// Access says from where connections are taken.
	Access listener.Config `yaml:"access"`
}

// defaultInFlight is many: a call that is forwarded costs little here, and waits for its turn at
// the service that answers.
const defaultInFlight = 10000

// DefaultConfig returns limits that hold off a runaway loop and nothing else.
func DefaultConfig() Config {
	return Config{
		UserLimits:   edge.Rates{PerSecond: 2000, Burst: 4000},
		SystemLimits: edge.Rates{PerSecond: 20000, Burst: 40000},
		MaxInFlight:  defaultInFlight,
		Queues:       fairness.DefaultQueues(),
		MaxStreams:   1000,
		Edge:         edge.DefaultLimits(),
	}
}

// Validate returns all problems.
func (c *Config) Validate() error {
	var problems []error
	for key, limits := range map[string]edge.Rates{"userLimits": c.UserLimits, "systemLimits": c.SystemLimits} {
		if limits.PerSecond < 0 {
			problems = append(problems, fmt.Errorf("%s.perSecond: must not be negative", key))
		}
		if limits.PerSecond > 0 && limits.Burst < 1 {
			problems = append(problems, fmt.Errorf("%s.burst: must be at least 1 where perSecond is set", key))
		}
	}
	if c.MaxStreams < 1 {
		problems = append(problems, errors.New("maxStreams: must be at least 1"))
	}
	problems = append(problems, fairness.ValidateSeats("maxInFlight", c.MaxInFlight), c.Queues.Validate("queues"))
	problems = append(problems, c.Edge.Validate("limits"), c.Access.Validate())
	return errors.Join(problems...)
}

// Deps is what a gateway is built on; all fields but Metrics are required.
type Deps struct {
	Log *zap.Logger
	// TLS is the gateway's own identity, by which services and agents know that it may call for
	// others.
	TLS *pki.Source
	// Etcd is asked about the state of its members, and carries administrators' calls to them.
	Etcd *clientv3.Client
	// Directory finds the instances of services.
	Directory *discovery.Directory
	// Metrics, when not nil, is where the gateway registers its metrics.
	Metrics prometheus.Registerer
}

// Service is a gateway.
type Service struct {
	cfg       Config
	log       *zap.Logger
	backends  *backends
	nodes     *nodes
	proxy     *proxy
	cluster   *cluster
	etcd      *etcdProxy
	listeners *listener.Set
	tokens    *tokens.Authenticator
	objects   *client.Client
	// apiserver is the connection that objects are read by; ready is closed once it is good.
	apiserver *grpc.ClientConn
	ready     chan struct{}
	// directory finds the masters' addresses for the listeners.
	directory *discovery.Directory
}

// New returns a gateway that connects to the services behind it when they are first called.
func New(cfg Config, deps Deps) (*Service, error) {
	backends := newBackends(deps.TLS, deps.Directory)
	apiserver, err := backends.connection("apiserver")
	if err != nil {
		return nil, err
	}
	objects := client.New(apiserver)
	nodes := newNodes(deps.TLS, objects)
	if deps.Metrics != nil {
		err := deps.Metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metrics.GatewayNodeConnections, Help: "Node agents the gateway is connected to.",
		}, func() float64 { return float64(nodes.len()) }))
		if err != nil {
			return nil, err
		}
	}
	listeners, err := listener.New(cfg.Access, deps.Log, deps.Metrics)
	if err != nil {
		return nil, err
	}
	auth, err := backends.connection("auth")
	if err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	listeners.OpenWhen(ready)
	return &Service{
		tokens:    tokens.New(authv1.NewTokenServiceClient(auth)),
		cfg:       cfg,
		log:       deps.Log,
		backends:  backends,
		nodes:     nodes,
		proxy:     &proxy{},
		cluster:   &cluster{tls: deps.TLS, etcd: deps.Etcd, directory: deps.Directory, objects: objects, listeners: listeners},
		etcd:      newEtcdProxy(deps.Etcd),
		listeners: listeners, objects: objects, directory: deps.Directory,
		apiserver: apiserver, ready: ready,
	}, nil
}

// Register registers the gateway's own services and a forwarding handler for every method of the
// others, by which reflection shows the whole API.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	clusterv1.RegisterClusterServiceServer(r, s.cluster)
	etcdv1.RegisterEtcdServiceServer(r, s.etcd)
	for _, route := range s.routes() {
		r.RegisterService(s.proxy.serviceDesc(route), s.proxy)
	}
}

// ConfigureServer adapts the server: identities are taken from certificates and tokens, everyone
// known gets in, calls are limited, and the log names the object of each.
func (s *Service) ConfigureServer(cfg *rpc.ServerConfig) {
	// Empty and not nil: no caller acts for others here, not even a gateway.
	cfg.TrustedForwarders = []string{}
	cfg.Authorize = rpc.AuthorizeUnlessKind
	cfg.Rates = s.rates
	cfg.Fairness = fairness.Config{Seats: cmp.Or(s.cfg.MaxInFlight, defaultInFlight), Queues: s.cfg.Queues}
	cfg.MaxStreams = uint32(s.cfg.MaxStreams)
	cfg.Edge = s.cfg.Edge
	cfg.LogLevel = logLevel
	cfg.Object = object
	cfg.Listeners = s.listeners.Listeners
	cfg.Admit = s.listeners.Admit
	cfg.Leave = s.listeners.Leave
	cfg.Tokens = s.tokens
}

func (s *Service) rates(id edge.Identity) edge.Rates {
	if id.Member(pki.GroupNodes) || id.Member(pki.GroupServices) {
		return s.cfg.SystemLimits
	}
	return s.cfg.UserLimits
}

// Run follows the access list and holds the connections until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var reaching sync.WaitGroup
	reaching.Go(func() { s.reach(ctx) })
	reaching.Go(func() { s.tokens.Run(ctx) })
	defer reaching.Wait()
	s.listeners.Run(ctx, s.objects, s.directory)
	<-ctx.Done()
	s.nodes.close()
	s.backends.close()
	return nil
}
