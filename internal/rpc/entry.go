package rpc

import (
	"context"
	"crypto/x509"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/method"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// unknownMethod stands in metrics and the log for methods that the server does not have, of which
// callers can invent any number.
const unknownMethod = "unknown"

// connectionInfo is what a server knows of a connection.
type connectionInfo struct {
	credentials.TLSInfo
	connection *edge.Connection
}

// leafOf returns the verified certificate of the client, nil when it presented none.
func leafOf(info credentials.TLSInfo) *x509.Certificate {
	if len(info.State.VerifiedChains) == 0 {
		return nil
	}
	return info.State.VerifiedChains[0][0]
}

// entryCredentials make TLS handshakes within the limits of an entry, which logs those that fail:
// gRPC does not.
type entryCredentials struct {
	credentials.TransportCredentials
	entry *edge.Entry
}

// ServerHandshake implements credentials.TransportCredentials.
func (c entryCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	var secure net.Conn
	var info connectionInfo
	connection, err := c.entry.Handshake(raw, func(conn net.Conn) (*x509.Certificate, error) {
		var auth credentials.AuthInfo
		var err error
		if secure, auth, err = c.TransportCredentials.ServerHandshake(conn); err != nil {
			return nil, err
		}
		info.TLSInfo, _ = auth.(credentials.TLSInfo)
		return leafOf(info.TLSInfo), nil
	})
	if err != nil {
		return nil, nil, err
	}
	// gRPC lifts the deadline when the connection is ready; from then on the entry watches it.
	info.connection = connection
	return secure, info, nil
}

// Clone implements credentials.TransportCredentials.
func (c entryCredentials) Clone() credentials.TransportCredentials {
	c.TransportCredentials = c.TransportCredentials.Clone()
	return c
}

// tap is called with the headers of each call, before the call exists: a caller that it refuses has
// made the server hold nothing. It runs on the goroutine that reads the connection, so it must not
// block.
func (s *Server) tap(ctx context.Context, info *tap.Info) (_ context.Context, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = s.observer.recovered(ctx, cause)
		}
	}()
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, errNoPeer
	}
	md, _ := metadata.FromIncomingContext(ctx)
	known, _ := p.AuthInfo.(connectionInfo)
	c, err := s.entry.Authenticate(known.connection, leafOf(known.TLSInfo), edge.Headers(md))
	if err != nil {
		method := info.FullMethodName
		if !s.methods[method] {
			method = unknownMethod
		}
		return nil, s.observer.early(ctx, &c, method, err)
	}
	ctx, c.End = context.WithCancelCause(ctx)
	return edge.ContextWithCall(ctx, &c), nil
}

// admit decides what can be decided before a call's first message is read: whether its token has
// been revoked, whether its caller makes too many calls, and whether the caller may call the
// method.
func (s *Server) admit(ctx context.Context, fullMethod string) error {
	c := edge.CallFromContext(ctx)
	if c == nil {
		return errNoPeer
	}
	infrastructure := isInfrastructure(fullMethod)
	if err := s.entry.Admit(ctx, c, infrastructure); err != nil || infrastructure {
		return err
	}
	return s.cfg.Authorize(ctx, c.Identity, fullMethod)
}

// isAboutLeases reports whether a call has the priority of Lease objects, if its caller may claim
// it.
func isAboutLeases(ctx context.Context, fullMethod string) bool {
	return method.Rules(fullMethod).GetPriority() == metav1.CallPriority_CALL_PRIORITY_LEASES ||
		len(metadata.ValueFromIncomingContext(ctx, edge.HeaderLease)) > 0
}

// enterUnary returns the handler of a method with the checks that come before its request is read.
func (s *Server) enterUnary(fullMethod string, handler grpc.MethodHandler) grpc.MethodHandler {
	infrastructure := isInfrastructure(fullMethod)
	return func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		seat, err := s.admitObserved(ctx, fullMethod)
		if err != nil {
			return nil, err
		}
		defer seat.Release()
		receive := func(message any) error {
			return s.receive(ctx, infrastructure, seat, func() error { return decode(message) })
		}
		return handler(srv, ctx, receive, interceptor)
	}
}

// admitObserved is admit for unary calls, which are observed later. It returns the call's seat, nil
// for health and reflection, which need none.
func (s *Server) admitObserved(ctx context.Context, fullMethod string) (seat *edge.Seat, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = s.observer.recovered(ctx, cause)
		}
		if err == nil {
			return
		}
		c := edge.CallFromContext(ctx)
		if c == nil {
			c = &edge.Call{}
		}
		err = s.observer.early(ctx, c, fullMethod, err)
	}()
	if err := s.admit(ctx, fullMethod); err != nil || isInfrastructure(fullMethod) {
		return nil, err
	}
	seat = s.entry.Seat(edge.CallFromContext(ctx), isAboutLeases(ctx, fullMethod))
	return seat, seat.Take(ctx)
}

// receive reads a call's first message when it is the caller's turn, and gives up when it does not
// arrive in time.
func (s *Server) receive(ctx context.Context, infrastructure bool, seat *edge.Seat, read func() error) error {
	c := edge.CallFromContext(ctx)
	leave, err := s.entry.Receive(ctx, c, seat, infrastructure)
	if err != nil {
		return err
	}
	defer leave()
	limit := s.entry.ReceiveTimeout()
	late := time.AfterFunc(limit, func() {
		end(ctx, c, refuse(codes.DeadlineExceeded, edge.ReasonSlowRequest, "the request did not arrive within %s", limit))
	})
	defer late.Stop()
	return edge.Ended(ctx, read())
}

// end ends a call from outside of its handler. The caller gets the status immediately: a handler
// that waits for a message would make gRPC answer CANCELED.
func end(ctx context.Context, c *edge.Call, err error) {
	err = withRequestID(err, c.RequestID)
	if stream, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ WriteStatus(*status.Status) error }); ok {
		_ = stream.WriteStatus(status.Convert(err))
	}
	c.End(err)
}

// enterStream is an interceptor that does for streams what enterUnary does for unary calls, and
// ends a stream when its caller's credential expires or is revoked.
func (s *Server) enterStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx := ss.Context()
	if err := s.admit(ctx, info.FullMethod); err != nil {
		return err
	}
	c := edge.CallFromContext(ctx)
	defer s.entry.Hold(c, func(err error) { end(ctx, c, err) })()
	infrastructure := isInfrastructure(info.FullMethod)
	if !infrastructure && s.cfg.Starts != nil && s.cfg.Starts(info.FullMethod) {
		c.Start = s.entry.StartSeat(c, isAboutLeases(ctx, info.FullMethod))
		if err := c.Start.Take(ctx); err != nil {
			return err
		}
		defer c.Start.Release()
	}
	return edge.Ended(ctx, handler(srv, &enteredStream{ServerStream: ss, server: s, infrastructure: infrastructure, start: c.Start}))
}

// enteredStream receives its first message when it is the caller's turn. Later messages do not
// wait: the services that receive many of them require rights.
type enteredStream struct {
	grpc.ServerStream
	server         *Server
	infrastructure bool
	start          *edge.Seat
	begun          bool
}

// RecvMsg receives a message; one goroutine at a time calls it.
func (e *enteredStream) RecvMsg(message any) error {
	if e.begun {
		return e.ServerStream.RecvMsg(message)
	}
	e.begun = true
	return e.server.receive(e.Context(), e.infrastructure, e.start, func() error { return e.ServerStream.RecvMsg(message) })
}
