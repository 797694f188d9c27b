// Package etcd runs a member of the cluster's etcd inside this process, set up the way the
// apiserver needs it: mutual TLS for peers and clients, a role for each client by its certificate,
// automatic compaction, a quota, large transactions, and elections that bring writes back within a
// second of a crash.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/xebec-project/xebec/internal/etcdadmin"
	"github.com/xebec-project/xebec/internal/metrics"
	etcdv1 "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
)

// checkInterval is how often the member's state is looked at.
const checkInterval = 250 * time.Millisecond

// Service is a member of etcd.
type Service struct {
	cfg    Config
	log    *zap.Logger
	health *health.Server
	ready  chan struct{}
}

// New returns a member that does not run yet.
func New(cfg Config, log *zap.Logger) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	s := &Service{cfg: cfg, log: log, health: health.NewServer(), ready: make(chan struct{})}
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	return s, nil
}

// Register registers the member's health, which is SERVING while it knows a leader and no alarm is
// raised, unless the server brings a health service of its own.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	if server, ok := r.(interface {
		GetServiceInfo() map[string]grpc.ServiceInfo
	}); ok {
		if _, has := server.GetServiceInfo()[healthpb.Health_ServiceDesc.ServiceName]; has {
			return
		}
	}
	healthpb.RegisterHealthServer(r, s.health)
}

// Ready is closed when the member has found a leader for the first time.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// Run runs the member until ctx ends, and then hands its leadership over and stops; it returns nil
// then. A member that finds no leader, or whose disk stalls, goes on trying; only faults that last,
// such as an address in use or a damaged database, are errors.
func (s *Service) Run(ctx context.Context) error {
	// Ends the streams of clients when the member stops. etcd itself waits for them for seconds.
	streams, endStreams := context.WithCancel(context.Background())
	defer endStreams()
	// etcd tells in detail what it does at Info; what people should see of it is logged by watch.
	log := s.log
	if !log.Core().Enabled(zapcore.DebugLevel) {
		log = log.WithOptions(zap.IncreaseLevel(zapcore.WarnLevel))
	}
	options := []grpc.ServerOption{grpc.ChainStreamInterceptor(endWith(streams))}
	guard := newGuard(s.log)
	if !s.cfg.Client.IsZero() {
		options = append(options, grpc.ChainUnaryInterceptor(guard.unary), grpc.ChainStreamInterceptor(guard.stream))
	}
	if err := s.cfg.checkIdentity(); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	cfg, err := s.cfg.embedded(log, options...)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	own, err := s.ownClient(log)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer own.Close()
	cfg.ServiceRegister = func(r *grpc.Server) { etcdv1.RegisterEtcdServiceServer(r, etcdadmin.New(own)) }
	s.log.Info("Starting etcd", zap.String(metrics.KeyMember, s.cfg.Name), zap.String(metrics.KeyDataDir, s.cfg.DataDir),
		zap.String(metrics.KeyPeerURL, s.cfg.PeerURL), zap.String(metrics.KeyClientURL, s.cfg.ClientURL))
	member, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	guard.serve(member.Server)
	defer func() {
		s.health.Shutdown()
		// Before the clients are cut off, so that they find the new leader at once.
		if err := member.Server.TryTransferLeadershipOnShutdown(); err != nil {
			s.log.Warn("Could not hand etcd's leadership over", zap.Error(err))
		}
		endStreams()
		member.Close()
		s.log.Info("Stopped etcd", zap.String(metrics.KeyMember, s.cfg.Name))
	}()
	return s.watch(ctx, member)
}

// ownClient returns a client of this very member, with its own certificate. It connects when it is
// used.
func (s *Service) ownClient(log *zap.Logger) (*clientv3.Client, error) {
	config, err := s.cfg.client()
	if err != nil {
		return nil, err
	}
	config.Logger = log.WithOptions(zap.IncreaseLevel(zapcore.ErrorLevel))
	return clientv3.New(config)
}

// watch follows the member's state until ctx ends or the member fails.
func (s *Service) watch(ctx context.Context, member *embed.Etcd) error {
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	state := state{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-member.Err():
			return fmt.Errorf("etcd: %w", err)
		case <-member.Server.StopNotify():
			return errors.New("etcd stopped by itself; its log says why")
		case <-ticker.C:
		}
		now := stateOf(member)
		s.tell(state, now)
		state = now
	}
}

// state is what people and health checks want to know of a member.
type state struct {
	leader, self uint64
	alarms       []pb.AlarmType
}

func stateOf(member *embed.Etcd) state {
	st := state{leader: member.Server.Lead(), self: uint64(member.Server.MemberID())}
	for _, a := range member.Server.Alarms() {
		if !slices.Contains(st.alarms, a.Alarm) {
			st.alarms = append(st.alarms, a.Alarm)
		}
	}
	slices.Sort(st.alarms)
	return st
}

// tell logs what changed and sets the health.
func (s *Service) tell(was, now state) {
	if was.leader != now.leader {
		switch now.leader {
		case 0:
			s.log.Warn("Etcd has no leader: no quorum of members answers, or this member's disk has stalled")
		case now.self:
			s.log.Info("This member leads etcd")
		default:
			s.log.Info("This member follows etcd's leader", zap.String(metrics.KeyLeader, fmt.Sprintf("%x", now.leader)))
		}
	}
	for _, a := range now.alarms {
		if slices.Contains(was.alarms, a) {
			continue
		}
		switch a {
		case pb.AlarmType_NOSPACE:
			s.log.Error("Etcd has reached its quota and refuses writes. Delete objects, or raise quotaBytes on every member; "+
				"then compact and defragment the members, and disarm the alarm NOSPACE", zap.Int64(metrics.KeyQuotaBytes, s.cfg.QuotaBytes))
		case pb.AlarmType_CORRUPT:
			s.log.Error("Etcd's members hold different data. Stop the member that differs, remove it from the cluster, delete its "+
				"data directory and add it again; then disarm the alarm CORRUPT", zap.String(metrics.KeyDataDir, s.cfg.DataDir))
		default:
			s.log.Error("Etcd raised an alarm", zap.Stringer(metrics.KeyAlarm, a))
		}
	}
	for _, a := range was.alarms {
		if !slices.Contains(now.alarms, a) {
			s.log.Info("Etcd's alarm is off", zap.Stringer(metrics.KeyAlarm, a))
		}
	}
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if now.leader != 0 {
		select {
		case <-s.ready:
		default:
			close(s.ready)
		}
		if len(now.alarms) == 0 {
			status = healthpb.HealthCheckResponse_SERVING
		}
	}
	s.health.SetServingStatus("", status)
}

// endWith returns an interceptor that ends streams with done, in the way that makes clients go to
// another member.
func endWith(done context.Context) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		stop := context.AfterFunc(done, cancel)
		defer stop()
		err := handler(srv, endingStream{stream, ctx})
		if done.Err() != nil {
			return rpctypes.ErrGRPCStopped
		}
		return err
	}
}

type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context is the stream's context, which ends with the member.
func (s endingStream) Context() context.Context { return s.ctx }
