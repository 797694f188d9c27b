package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/retry"
	"github.com/xebec-project/xebec/internal/rpc"
)

// Limits of the requests that one process has under way at etcd. The limiter stays between them as
// etcd's latency allows.
const (
	etcdLeast   = 16
	etcdMost    = 512
	etcdInitial = 64
)

// etcdAttempts is how often a request is made: once per member of a cluster of five.
var etcdAttempts = retry.Policy{Attempts: 5, First: 50 * time.Millisecond, Longest: 400 * time.Millisecond}

// dialEtcd makes a client that connects in the background.
func dialEtcd(cfg EtcdConfig, log *zap.Logger, registry prometheus.Registerer) (*clientv3.Client, error) {
	limiter := adaptivelimiter.NewBuilder[any]().WithLimits(etcdLeast, etcdMost, etcdInitial).Build()
	config, err := etcdConfig(cfg, log, limiter)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	registry.MustRegister(
		prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: metrics.EtcdLimit, Help: "Requests to etcd that this process has under way at most."},
			number(limiter.Limit),
		),
		prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: metrics.EtcdInFlight, Help: "Requests to etcd that this process has under way."},
			number(limiter.Inflight),
		),
		prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: metrics.EtcdWaiting, Help: "Requests to etcd that wait for their turn."},
			number(limiter.Queued),
		),
	)
	return client, nil
}

// etcdConfig is the configuration of every service's client.
func etcdConfig(cfg EtcdConfig, log *zap.Logger, limiter adaptivelimiter.AdaptiveLimiter[any]) (clientv3.Config, error) {
	config := clientv3.Config{
		Endpoints:         cfg.Endpoints,
		DialKeepAliveTime: 10 * time.Second,
		// A member that hangs is given up by this; one whose host vanished, by the dialer. A member that
		// starves for processor time answers late, and a new connection would cost it more.
		DialKeepAliveTimeout: 10 * time.Second,
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(rpc.ContextDialer(rpc.DefaultSilence)),
			grpc.WithConnectParams(rpc.ConnectParams()),
			// In place of the client's own, which repeats a request up to 100 times and logs each.
			grpc.WithUnaryInterceptor(etcdRequests(limiter, retry.Process)),
		},
		MaxCallSendMsgSize: 8 << 20,
		MaxCallRecvMsgSize: 64 << 20,
		Logger:             log.Named("etcd").WithOptions(zap.IncreaseLevel(zap.WarnLevel)),
	}
	if cfg.Files.IsZero() {
		return config, nil
	}
	source, err := pki.NewSource(cfg.Files)
	if err != nil {
		return config, err
	}
	// etcd's authority signs servers' certificates for its members alone.
	config.TLS = source.ClientConfig(pki.AnyServer)
	config.DialOptions = append(config.DialOptions, grpc.WithTransportCredentials(rpc.AdaptiveCredentials(credentials.NewTLS(config.TLS))))
	return config, nil
}

func number(of func() int) func() float64 { return func() float64 { return float64(of()) } }

// etcdReads are the requests that change nothing.
var etcdReads = map[string]bool{
	pb.KV_Range_FullMethodName:              true,
	pb.Lease_LeaseTimeToLive_FullMethodName: true,
	pb.Cluster_MemberList_FullMethodName:    true,
	pb.Maintenance_Status_FullMethodName:    true,
}

// fromLearner reports whether a member refused a request because it has joined the cluster a moment
// ago. Another takes it, and nothing has happened.
func fromLearner(err error) bool {
	refused := status.Convert(rpctypes.ErrGRPCNotSupportedForLearner)
	s, ok := status.FromError(err)
	return ok && s.Code() == refused.Code() && s.Message() == refused.Message()
}

// etcdRequests returns an interceptor that has no more requests under way than etcd answers in good
// time, by the limiter, and makes one again, within the budget, that no member answered and that
// changes nothing, unless its caller repeats it (retry.ByCaller). A request whose caller gives up
// while it waits for its turn is not made.
func etcdRequests(limiter adaptivelimiter.AdaptiveLimiter[any], budget *retry.Budget) grpc.UnaryClientInterceptor {
	return func(
		ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		again := func(err error) bool {
			return fromLearner(err) || etcdReads[method] && status.Code(err) == codes.Unavailable && !retry.IsByCaller(ctx)
		}
		return budget.Do(ctx, etcdAttempts, again, func() error {
			permit, err := limiter.AcquirePermit(ctx)
			if err != nil {
				return status.FromContextError(err).Err()
			}
			err = invoke(ctx, method, req, reply, conn, opts...)
			if status.Code(err) == codes.Unavailable {
				permit.Drop() // refused at once: it says nothing about how long requests take
			} else {
				permit.Record()
			}
			return err
		})
	}
}
