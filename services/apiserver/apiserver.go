// Package apiserver serves the objects of every kind. No other service reads or writes their keys
// in etcd. It checks, completes and stores what clients send, and answers reads and watches from a
// cache that follows etcd. Any number of instances run side by side; they share nothing but etcd.
//
// A write passes resource.go, pipeline/pipeline.go with the phases, pipeline/create.go or its like,
// admission/chain.go and registry/registry.go, and is stored by storage/txn.go. A read passes
// reads.go and storage.
package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/fairness"
	"github.com/xebec-project/xebec/internal/ipalloc"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/admission"
	"github.com/xebec-project/xebec/services/apiserver/apply"
	"github.com/xebec-project/xebec/services/apiserver/pipeline"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// Config is what an operator can set.
type Config struct {
	// ServiceCIDR is the range that cluster IPs are allocated from; in a dual-stack cluster an IPv4
	// and an IPv6 range, with a comma between.
	ServiceCIDR string `yaml:"serviceCIDR" help:"cluster IPs of services: an IPv4 range, for dual stack followed by a comma and an IPv6 range"`
	// ClusterDNS is the IPv4 address in ServiceCIDR that nodes answer DNS on; it is given to no
	// service.
	ClusterDNS string `yaml:"clusterDNS" help:"address in serviceCIDR that nodes answer DNS at"`
	// ServiceAccounts gives service accounts rights, which have none otherwise.
	ServiceAccounts AccountsConfig `yaml:"serviceAccounts"`
	// MaxInFlight bounds the calls worked on at once, over all callers, with the watches that send
	// their initial state; further ones wait. They are divided among the priority levels. 0 is 64 for
	// each processor, at least 256.
	MaxInFlight int `yaml:"maxInFlight" help:"calls worked on at once, over all callers; 0 is 64 for each processor, at least 256"`
	// Queues bounds the calls that wait. 0 is the default.
	Queues fairness.Queues `yaml:"queues"`
	// Storage tunes the watch cache.
	Storage storage.Config `yaml:"storage"`
}

// DefaultConfig is the configuration of a new cluster.
func DefaultConfig() Config {
	return Config{
		ServiceCIDR: "10.96.0.0/16", ClusterDNS: "10.96.0.10",
		Queues: fairness.DefaultQueues(), Storage: storage.Config{MaxTxnOps: storage.ShippedMaxTxnOps},
	}
}

// Validate reports every invalid setting.
func (c Config) Validate() error {
	cidrs, err := ipalloc.ParseFamilies(c.ServiceCIDR)
	if err != nil {
		return fmt.Errorf("serviceCIDR: %w", err)
	}
	dns, err := netip.ParseAddr(c.ClusterDNS)
	if err != nil {
		return fmt.Errorf("clusterDNS: %w", err)
	}
	if !cidrs[0].Contains(dns) {
		return fmt.Errorf("clusterDNS: %s is not in serviceCIDR %s", dns, cidrs[0])
	}
	if dns == ipalloc.First(cidrs[0]) {
		return fmt.Errorf("clusterDNS: %s is the first address of serviceCIDR, which service default/kubernetes has: choose another", dns)
	}
	return errors.Join(c.ServiceAccounts.validate(), fairness.ValidateSeats("maxInFlight", c.MaxInFlight), c.Queues.Validate("queues"))
}

// Service implements ResourceService, LeaseService, DiscoveryService and AccessService.
type Service struct {
	apiv1.UnimplementedResourceServiceServer

	store        *storage.Store
	etcd         *clientv3.Client
	pipeline     *pipeline.Pipeline
	serviceCIDRs []netip.Prefix
	leases       *leaseService
	ready        chan struct{}
	fairness     fairness.Config
	log          *zap.Logger
	// accountsLost is notified when a namespace without its default account was found.
	accountsLost signal
	// watchAge is minWatchAge and recheck recheckInterval, except in tests.
	watchAge, recheck time.Duration
}

// New makes a service for the kinds of a scheme over an etcd client. The caller closes the client
// after Run has returned.
func New(cfg Config, served *scheme.Scheme, etcd *clientv3.Client, log *zap.Logger) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Storage.MaxTxnOps = cmp.Or(cfg.Storage.MaxTxnOps, storage.ShippedMaxTxnOps)
	store, err := storage.New(cfg.Storage, served, etcd, log)
	if err != nil {
		return nil, err
	}
	merger, err := apply.New(served)
	if err != nil {
		return nil, err
	}
	cidrs, err := ipalloc.ParseFamilies(cfg.ServiceCIDR)
	if err != nil {
		return nil, err
	}
	pods := kinds.Of(new(corev1.Pod))
	nodeName, _ := pods.Field("spec.nodeName")
	s := &Service{
		store: store, etcd: etcd, serviceCIDRs: cidrs, leases: &leaseService{store: store}, ready: make(chan struct{}), log: log,
		accountsLost: make(signal, 1), fairness: fairness.Config{Seats: cfg.MaxInFlight, Queues: cfg.Queues},
		watchAge: minWatchAge, recheck: recheckInterval,
	}
	s.pipeline = &pipeline.Pipeline{
		Scheme: served, Codec: codec.New(served), Store: store, MaxTxnOps: cfg.Storage.MaxTxnOps, Merger: merger, CheckLease: s.checkLease,
		Authorizer: authz.Union{
			authz.Administrators{}, authz.Services{}, authz.Nodes{Pods: &podIndex{store, nodeName}},
			authz.Accounts{Readers: users(cfg.ServiceAccounts.Readers), Admins: users(cfg.ServiceAccounts.Admins)}, authz.Authenticated{},
		},
		Registry: registry.New(registry.Config{
			Store: store, ServiceCIDRs: cidrs, ClusterDNS: netip.MustParseAddr(cfg.ClusterDNS), AccountRemoved: s.accountsLost.notify,
		}),
		Admission: admission.New(admission.Config{
			AccountMissing: s.accountsLost.notify, RestrictNode: s.admitNode, RestrictLockout: s.admitLockout,
			PriorityClasses: s.priorityClasses,
			Authorize: func(ctx context.Context, caller authz.Caller, a authz.Attributes) error {
				return s.pipeline.Authorize(ctx, caller, a)
			},
		}),
	}
	return s, nil
}

// Register adds the services to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	apiv1.RegisterResourceServiceServer(r, s)
	apiv1.RegisterLeaseServiceServer(r, s.leases)
	apiv1.RegisterDiscoveryServiceServer(r, &discoveryService{kinds: s.pipeline.Scheme})
	authv1.RegisterAccessServiceServer(r, &accessService{kinds: s.pipeline.Scheme, authorizer: s.pipeline.Authorizer})
}

// Ready returns a channel that closes when the cache holds the cluster's state, so that calls can
// be answered.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// ConfigureServer leaves calls that name a kind to the handlers, which authorize them with the
// object. An instance without a connection to etcd is unhealthy: other instances may have one.
func (s *Service) ConfigureServer(cfg *rpc.ServerConfig) {
	cfg.Authorize = rpc.AuthorizeUnlessKind
	cfg.Healthy = s.store.Ready
	cfg.Fairness = s.fairness
	cfg.Starts = func(fullMethod string) bool { return fullMethod == apiv1.ResourceService_Watch_FullMethodName }
}

// Run keeps the cache until ctx ends. Requests are answered only while it runs.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.store.Run(ctx) })
	g.Go(func() error { return s.prepare(ctx) })
	return g.Wait()
}

// prepare waits for the cache, declares the service ready, creates the namespaces that every
// cluster has, and keeps their default accounts, the service for pods, the system's priority
// classes and flow control until ctx ends.
func (s *Service) prepare(ctx context.Context) error {
	if err := s.store.WaitReady(ctx); err != nil {
		return nil //nolint:nilerr // ctx ended
	}
	if err := s.checkTxnOps(ctx); err != nil {
		return err
	}
	close(s.ready)
	k := kinds.Of(new(corev1.Namespace))
	for _, name := range core.PermanentNamespaces {
		for {
			err := s.makeNamespace(ctx, k, name)
			if err == nil || apierr.IsAlreadyExists(err) {
				break
			}
			s.log.Warn("Failed to create namespace", zap.String(metrics.KeyNamespace, name), zap.Error(err))
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}
	var keeping sync.WaitGroup
	keeping.Go(func() { s.keepAccounts(ctx) })
	keeping.Go(func() { s.keepKubernetes(ctx) })
	keeping.Go(func() { s.keepObjects(ctx, "priority classes", s.makePriorityClasses) })
	keeping.Go(func() { s.keepObjects(ctx, "flow control", s.makeFlowControl) })
	keeping.Wait()
	return nil
}

// checkTxnOps returns an error when etcd accepts fewer operations in a transaction than the
// configuration says: large transactions of clients would fail later. An etcd that does not answer
// is asked only once.
func (s *Service) checkTxnOps(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// Conditions that never hold: etcd counts them before it evaluates any.
	never := clientv3.Compare(clientv3.Version("/xebec/max-txn-ops"), "<", 0)
	_, err := s.etcd.Txn(ctx).If(slices.Repeat([]clientv3.Cmp{never}, s.pipeline.MaxTxnOps)...).Commit()
	if errors.Is(err, rpctypes.ErrTooManyOps) {
		return fmt.Errorf("etcd accepts fewer operations in a transaction than storage.maxTxnOps, %d: "+
			"start etcd with --max-txn-ops=%d, or set storage.maxTxnOps to etcd's limit, which is 128 by default",
			s.pipeline.MaxTxnOps, storage.ShippedMaxTxnOps)
	}
	if err != nil && ctx.Err() == nil {
		s.log.Warn("Failed to check etcd's limit of operations in a transaction", zap.Error(err))
	}
	return nil
}

func (s *Service) makeNamespace(ctx context.Context, k *scheme.Kind, name string) error {
	if _, ok := s.store.GetCached(registry.KeyOf(k, "", name)); ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return s.createOwn(ctx, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: name}})
}

// self is the caller of the writes that the apiserver makes itself.
var self = authz.Caller{User: "xebec:apiserver", Groups: []string{authz.GroupAdmins}}

// createOwn creates an object that the apiserver keeps itself.
func (s *Service) createOwn(ctx context.Context, o scheme.Object) error {
	a, err := anypb.New(o)
	if err != nil {
		return err
	}
	_, err = s.pipeline.Create(ctx, self, &apiv1.CreateRequest{Object: a})
	return err
}

// keepOwn creates an object that the apiserver keeps itself, or updates the stored one if change,
// which makes it the wanted one, reports that it differed. An object that is as wanted costs no
// read and no write. That another instance created it meanwhile is no error.
func keepOwn[T scheme.Object](ctx context.Context, s *Service, wanted T, change func(stored T) bool) error {
	k := kinds.Of(wanted)
	stored, ok := s.store.GetCached(registry.KeyOfObject(k, wanted))
	if !ok {
		if err := s.createOwn(ctx, wanted); !apierr.IsAlreadyExists(err) {
			return err
		}
		return nil
	}
	o, err := registry.Decode(k, stored)
	if err != nil {
		return err
	}
	if !change(o.(T)) {
		return nil
	}
	a, err := anypb.New(o)
	if err != nil {
		return err
	}
	_, err = s.pipeline.Update(ctx, self, &apiv1.UpdateRequest{Object: a})
	return err
}

// callerOf returns the authenticated caller of a request.
func callerOf(ctx context.Context) authz.Caller {
	return edge.IdentityFromContext(ctx).Caller()
}

// authorize checks the right of the caller of a read.
func (s *Service) authorize(ctx context.Context, r authz.Attributes) error {
	return s.pipeline.Authorize(ctx, callerOf(ctx), r)
}
