package gateway

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/etcdadmin"
	etcdv1 "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
)

// etcdHedge is how long a member may take to answer a read until another member is asked as well.
const etcdHedge = 3 * time.Second

// etcdProxy forwards EtcdService to the members of etcd, which serve it to gateways on behalf of
// administrators: a gateway's own certificate allows neither to read keys nor to change members. An
// external etcd does not know the service, and there the gateway does what its certificate allows.
type etcdProxy struct {
	etcdv1.UnimplementedEtcdServiceServer
	client *clientv3.Client
	// members calls the members in turn, by gRPC's round robin.
	members etcdv1.EtcdServiceClient
	foreign *etcdadmin.Service
}

func newEtcdProxy(client *clientv3.Client) *etcdProxy {
	return &etcdProxy{client: client, members: etcdv1.NewEtcdServiceClient(client.ActiveConnection()), foreign: etcdadmin.New(client)}
}

// member and own are a method of a member and of the gateway itself.
type (
	member[Req, Resp any] func(ctx context.Context, in *Req, options ...grpc.CallOption) (*Resp, error)
	own[Req, Resp any]    func(ctx context.Context, in *Req) (*Resp, error)
)

// change calls a member, and another one when the first is a learner.
func change[Req, Resp any](ctx context.Context, p *etcdProxy, in *Req, member member[Req, Resp], own own[Req, Resp]) (*Resp, error) {
	out, err := outgoing(ctx)
	if err != nil {
		return nil, err
	}
	var resp *Resp
	for range max(2, 2*len(p.client.Endpoints())) {
		if resp, err = member(metadata.NewOutgoingContext(ctx, out), in); !refusedUnseen(err) {
			break
		}
	}
	return settle(ctx, in, resp, err, own)
}

// ask calls a member, and others as well when it fails or does not answer soon.
func ask[Req, Resp any](ctx context.Context, p *etcdProxy, in *Req, call member[Req, Resp], own own[Req, Resp]) (*Resp, error) {
	type answer struct {
		resp *Resp
		err  error
	}
	var asking sync.WaitGroup
	defer asking.Wait()
	calls, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer)
	more := time.NewTimer(0)
	defer more.Stop()
	left, running := max(2, 2*len(p.client.Endpoints())), 0
	var last error
	for {
		select {
		case <-more.C:
			if left == 0 {
				continue
			}
			left, running = left-1, running+1
			more.Reset(etcdHedge)
			asking.Go(func() {
				var a answer
				a.resp, a.err = change(calls, p, in, call, own)
				select {
				case answers <- a:
				case <-calls.Done():
				}
			})
		case a := <-answers:
			running--
			if code := status.Code(a.err); code != codes.Unavailable && code != codes.DeadlineExceeded {
				return a.resp, a.err
			}
			last = a.err
			if running == 0 && left == 0 {
				return nil, last
			}
			more.Reset(0)
		case <-ctx.Done():
			if last == nil {
				last = apierr.Unavailable("no member of etcd answers: %v", ctx.Err())
			}
			return nil, last
		}
	}
}

// settle returns what a member answered or, where it does not know the service, what the gateway
// does itself.
func settle[Req, Resp any](ctx context.Context, in *Req, resp *Resp, err error, own own[Req, Resp]) (*Resp, error) {
	switch {
	case status.Code(err) == codes.Unimplemented:
		return own(ctx, in)
	case err != nil:
		return nil, noMember(err)
	}
	return resp, nil
}

// noMember adds a reason to a status that gRPC itself made; a member's status stays as it is.
func noMember(err error) error {
	if st := status.Convert(err); st.Code() == codes.Unavailable && len(st.Details()) == 0 {
		return apierr.Unavailable("no member of etcd answers: %s", st.Message())
	}
	return err
}

// refusedUnseen says whether a member refused a call without any effect because it is a learner.
func refusedUnseen(err error) bool {
	return err != nil && status.Convert(err).Message() == status.Convert(rpctypes.ErrGRPCNotSupportedForLearner).Message()
}

// ListMembers returns the members as etcd has them.
func (p *etcdProxy) ListMembers(ctx context.Context, in *etcdv1.ListMembersRequest) (*etcdv1.ListMembersResponse, error) {
	return ask(ctx, p, in, p.members.ListMembers, p.foreign.ListMembers)
}

// Status returns how each member is.
func (p *etcdProxy) Status(ctx context.Context, in *etcdv1.StatusRequest) (*etcdv1.StatusResponse, error) {
	return ask(ctx, p, in, p.members.Status, p.foreign.Status)
}

// AddMember adds a member.
func (p *etcdProxy) AddMember(ctx context.Context, in *etcdv1.AddMemberRequest) (*etcdv1.AddMemberResponse, error) {
	return change(ctx, p, in, p.members.AddMember, p.foreign.AddMember)
}

// PromoteMember gives a learner its vote.
func (p *etcdProxy) PromoteMember(ctx context.Context, in *etcdv1.PromoteMemberRequest) (*etcdv1.PromoteMemberResponse, error) {
	return change(ctx, p, in, p.members.PromoteMember, p.foreign.PromoteMember)
}

// RemoveMember removes a member.
func (p *etcdProxy) RemoveMember(ctx context.Context, in *etcdv1.RemoveMemberRequest) (*etcdv1.RemoveMemberResponse, error) {
	return change(ctx, p, in, p.members.RemoveMember, p.foreign.RemoveMember)
}

// MoveLeader lets another member lead.
func (p *etcdProxy) MoveLeader(ctx context.Context, in *etcdv1.MoveLeaderRequest) (*etcdv1.MoveLeaderResponse, error) {
	return change(ctx, p, in, p.members.MoveLeader, p.foreign.MoveLeader)
}

// Defragment defragments one member.
func (p *etcdProxy) Defragment(ctx context.Context, in *etcdv1.DefragmentRequest) (*etcdv1.DefragmentResponse, error) {
	return change(ctx, p, in, p.members.Defragment, p.foreign.Defragment)
}

// DisarmAlarms ends all alarms.
func (p *etcdProxy) DisarmAlarms(ctx context.Context, in *etcdv1.DisarmAlarmsRequest) (*etcdv1.DisarmAlarmsResponse, error) {
	return change(ctx, p, in, p.members.DisarmAlarms, p.foreign.DisarmAlarms)
}

// Snapshot copies the database of one member.
func (p *etcdProxy) Snapshot(in *etcdv1.SnapshotRequest, stream grpc.ServerStreamingServer[etcdv1.SnapshotResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	out, err := outgoing(ctx)
	if err != nil {
		return err
	}
	var snapshot grpc.ServerStreamingClient[etcdv1.SnapshotResponse]
	var part *etcdv1.SnapshotResponse
	for range max(2, 2*len(p.client.Endpoints())) {
		if snapshot, err = p.members.Snapshot(metadata.NewOutgoingContext(ctx, out), in); err == nil {
			part, err = snapshot.Recv()
		}
		if !refusedUnseen(err) {
			break
		}
	}
	if status.Code(err) == codes.Unimplemented {
		return p.foreign.Snapshot(in, stream)
	}
	for ; err == nil; part, err = snapshot.Recv() {
		if err := stream.Send(part); err != nil {
			return err
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return noMember(err)
}
