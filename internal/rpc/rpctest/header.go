package rpctest

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/rpc"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// As is a connection on which every call is made by a user in a group, named by headers in place of
// a certificate. Only a server of HeaderServer believes them.
type As struct {
	grpc.ClientConnInterface
	User, Group string
}

func (a As) outgoing(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "test-user", a.User, "test-group", a.Group)
}

// Invoke makes a unary call as the user.
func (a As) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return a.ClientConnInterface.Invoke(a.outgoing(ctx), method, args, reply, opts...)
}

// NewStream begins a stream as the user.
func (a As) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return a.ClientConnInterface.NewStream(a.outgoing(ctx), desc, method, opts...)
}

// UnaryInterceptor makes a unary call of a connection as the user.
func (a As) UnaryInterceptor(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	return invoker(a.outgoing(ctx), method, req, reply, cc, opts...)
}

// StreamInterceptor begins a stream of a connection as the user.
func (a As) StreamInterceptor(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return streamer(a.outgoing(ctx), desc, cc, method, opts...)
}

// HeaderServer returns a server without TLS whose callers are who As says, for tests of what
// callers may do. It authorizes methods as the apiserver does.
func HeaderServer() *grpc.Server {
	return grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			ctx = identify(ctx)
			if err := rpc.AuthorizeUnlessKind(ctx, edge.IdentityFromContext(ctx), info.FullMethod); err != nil {
				return nil, err
			}
			resp, err := handler(ctx, req)
			return resp, apierr.From(err)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			ctx := identify(ss.Context())
			if err := rpc.AuthorizeUnlessKind(ctx, edge.IdentityFromContext(ctx), info.FullMethod); err != nil {
				return err
			}
			return apierr.From(handler(srv, identified{ss, ctx}))
		}))
}

func identify(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	return edge.ContextWithIdentity(ctx, edge.Identity{User: md.Get("test-user")[0], Groups: md.Get("test-group")})
}

// identified is a stream with its caller's identity, over a transport that has the plain codec and
// no raw frames.
type identified struct {
	grpc.ServerStream
	ctx context.Context
}

func (s identified) Context() context.Context { return s.ctx }

// SendMsg sends a raw frame as the event of a watch that it holds.
func (s identified) SendMsg(m any) error {
	if f, ok := m.(*rpc.Frame); ok {
		resp := &apiv1.WatchResponse{}
		if err := proto.Unmarshal(f.Bytes(), resp); err != nil {
			return err
		}
		m = resp
	}
	return s.ServerStream.SendMsg(m)
}
