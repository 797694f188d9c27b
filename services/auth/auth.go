// Package auth makes and checks the tokens by which service accounts are known: JWTs signed with
// keys that all instances share, bound to an account and, where asked, to a pod. A token is good
// until it expires or what it is bound to is gone.
//
// Any number of instances run side by side. The keys are in etcd, beside the registrations and not
// among the objects: no reader of objects can read them.
package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/client"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Config is what an operator can set.
type Config struct {
	// Issuer is who signs: the tokens' claim iss, and the audience of tokens for the gateway of this
	// cluster.
	Issuer string `yaml:"issuer" help:"who signs the tokens, and the audience of those for this cluster"`
	// MaxLifetime is the longest that a token is good; who asks for more gets this.
	MaxLifetime time.Duration `yaml:"maxLifetime" help:"longest time that a token is good"`
	// RotateAfter is how long a key signs until a new one is made. Tokens of the old one stay good
	// until they expire.
	RotateAfter time.Duration `yaml:"rotateAfter" help:"how long a key signs until a new one is made"`
}

// DefaultConfig is Kubernetes' issuer, tokens of a day at most, and a new key every thirty days.
func DefaultConfig() Config {
	return Config{Issuer: "https://kubernetes.default.svc.cluster.local", MaxLifetime: 24 * time.Hour, RotateAfter: 30 * 24 * time.Hour}
}

// Validate returns all problems.
func (c *Config) Validate() error {
	var problems []error
	if c.Issuer == "" {
		problems = append(problems, errors.New("issuer: required"))
	}
	if c.MaxLifetime < minLifetime {
		problems = append(problems, fmt.Errorf("maxLifetime: %s is less than %s", c.MaxLifetime, minLifetime))
	}
	if c.RotateAfter < time.Hour {
		problems = append(problems, fmt.Errorf("rotateAfter: %s is less than an hour", c.RotateAfter))
	}
	return errors.Join(problems...)
}

// Deps is what the service is built on; all fields are required.
type Deps struct {
	Log *zap.Logger
	// Etcd holds the keys.
	Etcd *clientv3.Client
	// Client reads accounts and pods.
	Client *client.Client
}

// Service implements TokenService.
type Service struct {
	authv1.UnimplementedTokenServiceServer
	cfg      Config
	log      *zap.Logger
	client   *client.Client
	keys     *keyring
	accounts *client.Informer[*corev1.ServiceAccount]
	pods     *client.Informer[*corev1.Pod]
	ready    chan struct{}
}

// New returns a service that knows nothing until Run.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Service{
		cfg: cfg, log: deps.Log, client: deps.Client, ready: make(chan struct{}),
		keys:     newKeyring(deps.Etcd, cfg, deps.Log),
		accounts: client.NewInformer(deps.Client, client.InformerOptions[*corev1.ServiceAccount]{MetadataOnly: true}),
		pods:     client.NewInformer(deps.Client, client.InformerOptions[*corev1.Pod]{MetadataOnly: true}),
	}, nil
}

// Register adds the service to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) { authv1.RegisterTokenServiceServer(r, s) }

// Ready is closed once the instance has the keys.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// Run keeps the keys, and what tokens are bound to, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.accounts.Run(ctx) })
	group.Go(func() error { return s.pods.Run(ctx) })
	group.Go(func() error { return s.keys.run(ctx, func() { close(s.ready) }) })
	return group.Wait()
}
