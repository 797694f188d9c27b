package gateway

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/edge/listener"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/version"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
)

const (
	// leastAskTimeout bounds one question to one process when the cluster's status is gathered and the
	// caller has no more time.
	leastAskTimeout = 2 * time.Second
	// askParallel bounds the questions under way.
	askParallel = 16
	// electionNamespace holds the Lease objects that the services' elections are held on.
	electionNamespace = "kube-system"
)

// cluster implements ClusterService.
type cluster struct {
	clusterv1.UnimplementedClusterServiceServer
	tls       *pki.Source
	etcd      *clientv3.Client
	directory *discovery.Directory
	objects   *client.Client
	listeners *listener.Set
}

// WhoAmI returns the caller.
func (c *cluster) WhoAmI(ctx context.Context, _ *clusterv1.WhoAmIRequest) (*clusterv1.WhoAmIResponse, error) {
	id := edge.IdentityFromContext(ctx)
	return &clusterv1.WhoAmIResponse{User: id.User, Groups: id.Groups}, nil
}

// Access returns from where this gateway takes connections, and where the caller comes from.
func (c *cluster) Access(ctx context.Context, _ *clusterv1.AccessRequest) (*clusterv1.AccessResponse, error) {
	state := c.listeners.State()
	resp := &clusterv1.AccessResponse{From: state.From, Private: access(state.Private)}
	if state.Listens {
		resp.Public = access(state.Public)
	}
	if p, ok := peer.FromContext(ctx); ok {
		if source, ok := p.Addr.(listener.Addr); ok {
			resp.Source, resp.Listener, resp.AlwaysAdmitted = source.Addr().String(), source.Listener, source.Master
		}
	}
	return resp, nil
}

func access(r listener.Rule) *clusterv1.Listener {
	return &clusterv1.Listener{Closed: r.Closed, AllowedCidrs: r.Allowed.Strings()}
}

// Version returns the gateway's build.
func (c *cluster) Version(context.Context, *clusterv1.VersionRequest) (*clusterv1.VersionResponse, error) {
	return &clusterv1.VersionResponse{Version: version.Version(), Commit: version.Commit(), GoVersion: version.GoVersion()}, nil
}

// Status asks everyone at once and answers with what came back.
func (c *cluster) Status(ctx context.Context, _ *clusterv1.StatusRequest) (*clusterv1.StatusResponse, error) {
	var (
		resp    clusterv1.StatusResponse
		mu      sync.Mutex // of resp.Problems
		leaders map[string]string
		group   errgroup.Group
		// unregistered are instances that were listed a while ago. On masters they are missing; elsewhere
		// it is unknown whether they should be there.
		unregistered map[*clusterv1.ServiceInstance]bool
	)
	problem := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		resp.Problems = append(resp.Problems, err.Error())
	}
	group.Go(func() (err error) {
		if resp.EtcdMembers, err = c.members(ctx); err != nil {
			problem(err)
		}
		return nil
	})
	group.Go(func() (err error) {
		if resp.Services, unregistered, err = c.instances(ctx); err != nil {
			problem(err)
		}
		return nil
	})
	group.Go(func() (err error) {
		if leaders, err = c.leaders(ctx); err != nil {
			problem(err)
		}
		return nil
	})
	_ = group.Wait()
	resp.Services = slices.DeleteFunc(resp.Services, func(i *clusterv1.ServiceInstance) bool {
		return unregistered[i] && !slices.ContainsFunc(resp.EtcdMembers, func(m *clusterv1.EtcdMember) bool { return m.Name == i.Host })
	})
	for _, instance := range resp.Services {
		instance.Leader = leaders[instance.Service] == instance.Service+"@"+instance.Host
	}
	slices.Sort(resp.Problems)
	return &resp, nil
}

// members returns the etcd members, each with its own answer or why there is none.
func (c *cluster) members(ctx context.Context) ([]*clusterv1.EtcdMember, error) {
	short, cancel := context.WithTimeout(ctx, askTimeout(ctx))
	defer cancel()
	list, err := c.etcd.MemberList(short)
	if err != nil {
		return nil, fmt.Errorf("list the members of etcd: %w", err)
	}
	members := make([]*clusterv1.EtcdMember, len(list.Members))
	var group errgroup.Group
	group.SetLimit(askParallel)
	for i, m := range list.Members {
		member := &clusterv1.EtcdMember{Name: m.Name}
		members[i] = member
		if len(m.ClientURLs) == 0 {
			member.Error = "it has not started yet"
			continue
		}
		member.Endpoint = m.ClientURLs[0]
		group.Go(func() error {
			short, cancel := context.WithTimeout(ctx, askTimeout(ctx))
			defer cancel()
			st, err := c.etcd.Status(short, member.Endpoint)
			if err != nil {
				member.Error = err.Error()
				return nil
			}
			member.Healthy = len(st.Errors) == 0 && st.Leader != 0
			member.Leader = st.Leader == m.ID
			member.DbSizeBytes = st.DbSize
			member.RaftIndex = st.RaftIndex
			switch {
			case len(st.Errors) > 0:
				member.Error = st.Errors[0]
			case st.Leader == 0:
				member.Error = "it knows no leader"
			}
			return nil
		})
	}
	_ = group.Wait()
	slices.SortFunc(members, func(a, b *clusterv1.EtcdMember) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Endpoint, b.Endpoint))
	})
	return members, nil
}

// instances returns the registered instances, each with its health, and those that were registered
// a while ago, which are not healthy: no client calls them. An instance whose host was cut off
// registers some seconds after its host is back.
func (c *cluster) instances(ctx context.Context) ([]*clusterv1.ServiceInstance, map[*clusterv1.ServiceInstance]bool, error) {
	registered, err := c.directory.Instances(ctx)
	if err != nil {
		return nil, nil, err
	}
	lapsed := slices.DeleteFunc(c.directory.Lapsed(), func(l discovery.Lapsed) bool {
		return slices.ContainsFunc(registered, func(r discovery.Instance) bool { return r.Service == l.Service && r.Host == l.Host })
	})
	instances := make([]*clusterv1.ServiceInstance, 0, len(registered)+len(lapsed))
	unregistered := map[*clusterv1.ServiceInstance]bool{}
	var group errgroup.Group
	group.SetLimit(askParallel)
	add := func(r discovery.Instance, answer func(*clusterv1.ServiceInstance, error)) *clusterv1.ServiceInstance {
		instance := &clusterv1.ServiceInstance{Service: r.Service, Host: r.Host, Endpoint: r.Addr, Version: r.Version}
		instances = append(instances, instance)
		group.Go(func() error {
			answer(instance, c.check(ctx, r))
			return nil
		})
		return instance
	}
	for _, r := range registered {
		add(r, func(i *clusterv1.ServiceInstance, err error) {
			if i.Healthy = err == nil; err != nil {
				i.Error = status.Convert(err).Message()
			}
		})
	}
	for _, l := range lapsed {
		unregistered[add(l.Instance, func(i *clusterv1.ServiceInstance, err error) {
			what := "but it answers"
			if err != nil {
				what = status.Convert(err).Message()
			}
			i.Error = fmt.Sprintf("not registered for %d s: %s", int(time.Since(l.Since).Seconds()), what)
		})] = true
	}
	_ = group.Wait()
	return instances, unregistered, nil
}

// askTimeout returns the time for one question: a quarter of what the caller has, so that who gives
// a busy cluster more time gets its answers.
func askTimeout(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return leastAskTimeout
	}
	return max(leastAskTimeout, time.Until(deadline)/4)
}

// check asks one instance for its health, over a connection of its own: what is asked is whether it
// can be reached.
func (c *cluster) check(ctx context.Context, instance discovery.Instance) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout(ctx))
	defer cancel()
	conn, err := rpc.Dial(instance.Addr, rpc.ClientConfig{
		TLS:        c.tls,
		ServerUser: pki.ServiceUser(instance.Service),
		UserAgent:  userAgent,
		// An instance that says NOT_SERVING must be reported, not avoided.
		Options: []grpc.DialOption{grpc.WithDisableHealthCheck()},
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("its health is %s", resp.GetStatus())
	}
	return nil
}

// leaders returns the holder of each service's election, such as "scheduler@master-1".
func (c *cluster) leaders(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout(ctx))
	defer cancel()
	leases, _, err := client.List[*coordinationv1.Lease](ctx, c.objects, client.ListOptions{Namespace: electionNamespace})
	if err != nil {
		return nil, fmt.Errorf("list the elections: %w", err)
	}
	leaders := make(map[string]string, len(leases))
	for _, lease := range leases {
		leaders[lease.GetMetadata().GetName()] = lease.GetSpec().GetHolderIdentity()
	}
	return leaders, nil
}
