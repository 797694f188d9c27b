package rpc

import (
	"context"
	"net/netip"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/xebec-project/xebec/internal/edge"
)

// Draining returns a channel that closes when the server that handles ctx's call begins to stop.
// Handlers of streams that the client can resume end them then, with Unavailable, before they are
// cut off. It is nil outside of a server.
func Draining(ctx context.Context) <-chan struct{} {
	if c := edge.CallFromContext(ctx); c != nil && c.Draining != nil {
		return c.Draining.Done()
	}
	return nil
}

// OnDraining calls f in a goroutine of its own when the server that handles ctx's call begins to
// stop, unless stop is called before. The caller must call stop. It saves streams a goroutine that
// waits for Draining.
func OnDraining(ctx context.Context, f func()) (stop func() bool) {
	if c := edge.CallFromContext(ctx); c != nil && c.Draining != nil {
		return context.AfterFunc(c.Draining, f)
	}
	return func() bool { return true }
}

// EndOfStart declares that the stream that ctx belongs to has sent its initial state and costs
// little from now on: a watch that has sent its snapshot. It releases the seat of a method of
// ServerConfig.Starts, and does nothing for others and when called again.
func EndOfStart(ctx context.Context) {
	if c := edge.CallFromContext(ctx); c != nil {
		c.Start.Release()
	}
}

// UserAgent returns the user agent of the program that made the call, as the gateway received it.
func UserAgent(ctx context.Context) string {
	// The header is from a trusted forwarder: authentication refuses it from others.
	for _, header := range []string{edge.HeaderUserAgent, "user-agent"} {
		if values := metadata.ValueFromIncomingContext(ctx, header); len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

// Source returns the address from which the caller reached a gateway, and at which of its
// listeners, for access lists: the zero address for a caller that they always admit, and for a call
// that came by no gateway.
func Source(ctx context.Context) (source netip.Addr, listener string) {
	// The headers are from a trusted forwarder: authentication refuses them from others.
	values, listeners := metadata.ValueFromIncomingContext(ctx, edge.HeaderSource), metadata.ValueFromIncomingContext(ctx, edge.HeaderListener)
	if len(values) != 1 || len(listeners) != 1 {
		return netip.Addr{}, ""
	}
	source, err := netip.ParseAddr(values[0])
	if err != nil {
		return netip.Addr{}, ""
	}
	return source, listeners[0]
}

// Authenticate returns a call that another kind of server handles, such as etcd's, with its caller
// and its request id: the caller is the one that the verified certificate names or, when that is
// one of forwarders', the one that the forwarder names. An expired certificate is refused.
func Authenticate(ctx context.Context, forwarders ...string) (edge.Call, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return edge.Call{}, errNoPeer
	}
	md, _ := metadata.FromIncomingContext(ctx)
	info, _ := p.AuthInfo.(credentials.TLSInfo)
	c, _, err := edge.Authenticator{Forwarders: forwarders}.Authenticate(nil, leafOf(info), edge.Headers(md))
	return c, err
}

// PassRequestID returns a context whose outgoing calls have the id of the call that ctx belongs to.
// Connections of Dial do so by themselves, but for those of ClientConfig.ForOthers.
func PassRequestID(ctx context.Context) context.Context {
	id := edge.RequestID(ctx)
	if id == "" {
		return ctx
	}
	if md, ok := metadata.FromOutgoingContext(ctx); ok && len(md[edge.HeaderRequestID]) > 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, edge.HeaderRequestID, id)
}

// passUnary and passStream are PassRequestID as interceptors.
func passUnary(
	ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	return invoke(PassRequestID(ctx), method, req, reply, conn, opts...)
}

func passStream(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return open(PassRequestID(ctx), desc, conn, method, opts...)
}
