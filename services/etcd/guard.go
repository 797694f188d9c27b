package etcd

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/lease"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
)

// guard lets the clients of a member do what their roles allow. It checks every call from the
// network. A role follows from the client's certificate; nothing of it is stored in etcd.
type guard struct {
	log *zap.Logger
	// leases answers for the keys of a lease; nil until the member runs.
	leases atomic.Pointer[lessor]
	// refused bounds what is logged of calls that were refused.
	refused rate.Sometimes
}

// lessor is the part of a member that knows leases.
type lessor interface {
	LeaseTimeToLive(context.Context, *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error)
}

func newGuard(log *zap.Logger) *guard {
	return &guard{log: log, refused: rate.Sometimes{First: 20, Interval: time.Second}}
}

// serve tells the guard which member it guards.
func (g *guard) serve(member lessor) { g.leases.Store(&member) }

// admit returns who calls a method and the role, or an error when the role does not allow it.
func (g *guard) admit(ctx context.Context, method string) (edge.Identity, role, error) {
	// A gateway's call on behalf of an administrator names both; the role is the gateway's.
	c, err := rpc.Authenticate(ctx, pki.ServiceUser("gateway"))
	id := c.Identity
	if err != nil {
		return id, role{}, err
	}
	caller := id
	if id.Forwarder != "" {
		caller = edge.Identity{User: id.Forwarder, Groups: []string{pki.GroupServices}}
	}
	r := roleOf(caller)
	if err := r.mayCall(caller, method); err != nil {
		return caller, r, g.refuse(caller, method, err)
	}
	if strings.HasPrefix(method, adminPrefix) {
		if !id.Member(pki.GroupMasters) && !r.all {
			err := apierr.Denied("%q may not look at etcd's members or change them: it needs group %s", id.User, pki.GroupMasters)
			return id, r, g.refuse(id, method, err)
		}
		g.log.Info("Administrator's call", zap.String(metrics.KeyCaller, id.User), zap.String(metrics.KeyForwarder, id.Forwarder),
			zap.String(metrics.KeyMethod, method), zap.String(metrics.KeyRequestID, c.RequestID))
	}
	return caller, r, nil
}

// refuse logs, within bounds, that a call was refused, and returns why.
func (g *guard) refuse(id edge.Identity, method string, err error) error {
	g.refused.Do(func() {
		g.log.Warn("Refused a call", zap.String(metrics.KeyCaller, id.User), zap.String(metrics.KeyMethod, method), zap.Error(err))
	})
	return err
}

// ask returns an error unless the role allows what a message is about.
func (g *guard) ask(ctx context.Context, id edge.Identity, r role, method string, message any) error {
	err := r.mayAsk(id, message)
	if err == nil && !r.all && !r.leases {
		for _, leaseID := range leasesOf(message) {
			if err = g.owns(ctx, id, r, leaseID); err != nil {
				break
			}
		}
	}
	if err != nil {
		return g.refuse(id, method, err)
	}
	return nil
}

// owns returns an error when a lease holds keys that the role may not write. To revoke the lease
// would delete them, to renew it would keep them, and to put another key under it would prevent
// their owner from using it.
func (g *guard) owns(ctx context.Context, id edge.Identity, r role, leaseID int64) error {
	leases := g.leases.Load()
	if leases == nil {
		return apierr.Unavailable("this member of etcd has just started")
	}
	req := &pb.LeaseTimeToLiveRequest{ID: leaseID, Keys: true}
	resp, err := (*leases).LeaseTimeToLive(ctx, req)
	// A member waits a second for what it has not applied yet, and a busy one needs longer. To refuse
	// the call would make its caller repeat more than this.
	for errors.Is(err, etcderrors.ErrTimeoutWaitAppliedIndex) && ctx.Err() == nil {
		resp, err = (*leases).LeaseTimeToLive(ctx, req)
	}
	switch {
	case errors.Is(err, lease.ErrLeaseNotFound):
		return nil // etcd answers so itself
	case err != nil:
		return apierr.Unavailable("the keys of lease %x are not known: %v", leaseID, err)
	}
	for _, key := range resp.GetKeys() {
		if permit(id, "write", r.write, key, nil) != nil {
			return apierr.Denied("etcd: %q may not use lease %x, which holds %.200q", id.User, leaseID, key)
		}
	}
	return nil
}

// unary checks calls of one request.
func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	id, r, err := g.admit(ctx, info.FullMethod)
	if err == nil {
		err = g.ask(ctx, id, r, info.FullMethod, req)
	}
	if err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

// stream checks calls of many requests, and each of those.
func (g *guard) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	id, r, err := g.admit(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	if r.all {
		return handler(srv, stream)
	}
	return handler(srv, &guardedStream{ServerStream: stream, guard: g, id: id, role: r, method: info.FullMethod})
}

// guardedStream checks what it receives.
type guardedStream struct {
	grpc.ServerStream
	guard  *guard
	id     edge.Identity
	role   role
	method string
	// renews is the lease that was last looked at: a stream of renewals is about the same one, again
	// and again.
	renews int64
	// sending serializes SendMsg.
	sending sync.Mutex
}

// RecvMsg receives a message that the role allows. A watch that it does not allow is cancelled, as
// etcd does, so that the other watches of the stream go on. Any other refusal ends the stream.
func (s *guardedStream) RecvMsg(message any) error {
	for {
		if err := s.ServerStream.RecvMsg(message); err != nil {
			return err
		}
		keepAlive, ok := message.(*pb.LeaseKeepAliveRequest)
		if ok && keepAlive.GetID() == s.renews && s.renews != 0 {
			return nil
		}
		err := s.guard.ask(s.Context(), s.id, s.role, s.method, message)
		if watch, ok := message.(*pb.WatchRequest); ok && watch.GetCreateRequest() != nil && status.Code(err) == codes.PermissionDenied {
			if err := s.SendMsg(cancelledWatch(err)); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if ok {
			s.renews = keepAlive.GetID()
		}
		return nil
	}
}

// SendMsg sends a message. Two goroutines may: the one that receives, of a refused watch, and the
// handler's.
func (s *guardedStream) SendMsg(message any) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.ServerStream.SendMsg(message)
}

// cancelledWatch is the response to a request for a watch that is refused. Clients find etcd's own
// error in the reason.
func cancelledWatch(refusal error) *pb.WatchResponse {
	return &pb.WatchResponse{
		Header: &pb.ResponseHeader{}, WatchId: clientv3.InvalidWatchID, Created: true, Canceled: true,
		CancelReason: rpctypes.ErrPermissionDenied.Error() + ": " + status.Convert(refusal).Message(),
	}
}
