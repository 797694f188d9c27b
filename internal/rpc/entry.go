package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/xebec-project/xebec/internal/apierr"
)

// unknownMethod stands in metrics and the log for methods that the server does not have, of which callers can think up any
// number.
const unknownMethod = "unknown"

// tap is called with the headers of each call, before the call exists: a caller that it refuses has made the server hold
// nothing. It runs on the goroutine that reads the connection, so it waits for nothing.
func (s *Server) tap(ctx context.Context, info *tap.Info) (_ context.Context, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = s.observer.recovered(ctx, cause)
		}
	}()
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, refuse(codes.Unauthenticated, ReasonNoCertificate, "the connection has no peer")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	connection := connectionOf(p)
	c, owner, err := s.authenticator.identify(p, md)
	if err == nil {
		if full := connection.Authenticated(owner); full != nil {
			s.observer.countRefusal(ReasonConnections)
			err = refuse(codes.ResourceExhausted, ReasonConnections, "%v", full)
		}
	} else if owner == "" && apierr.Code(err) != codes.Unavailable {
		connection.Failed()
	}
	if err != nil {
		method := info.FullMethodName
		if !s.methods[method] {
			method = unknownMethod
		}
		s.observer.early(ctx, &c, method, err)
		return nil, err
	}
	ctx, c.end = context.WithCancelCause(ctx)
	return context.WithValue(ctx, callKey{}, &c), nil
}

// admit decides what can be decided before a call's first message is read: whether its token has been revoked, whether its
// caller makes too many calls, and whether the caller may call the method.
func (s *Server) admit(ctx context.Context, fullMethod string) error {
	c := callFrom(ctx)
	if c == nil {
		return refuse(codes.Unauthenticated, ReasonNoCertificate, "the call was not authenticated")
	}
	if c.token != "" {
		if err := s.cfg.Tokens.Review(ctx, c.token); err != nil {
			return err
		}
	}
	if isPlumbing(fullMethod) {
		return nil
	}
	if err := s.limiter.admit(c.identity); err != nil {
		return err
	}
	return s.authorize(ctx, fullMethod)
}

// enterUnary returns the handler of a method with what comes before its request is read.
func (s *Server) enterUnary(fullMethod string, handler grpc.MethodHandler) grpc.MethodHandler {
	plumbing := isPlumbing(fullMethod)
	return func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		seat, err := s.admitObserved(ctx, fullMethod)
		if err != nil {
			return nil, err
		}
		defer seat.release()
		receive := func(message any) error {
			return s.receive(ctx, plumbing, seat, func() error { return decode(message) })
		}
		return handler(srv, ctx, receive, interceptor)
	}
}

// admitObserved is admit for unary calls, which are observed later. It returns the call's seat, nil for health and
// reflection, which need none.
func (s *Server) admitObserved(ctx context.Context, fullMethod string) (held *seat, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = s.observer.recovered(ctx, cause)
		}
		if err == nil {
			return
		}
		c := callFrom(ctx)
		if c == nil {
			c = &call{}
		}
		s.observer.early(ctx, c, fullMethod, err)
	}()
	if err := s.admit(ctx, fullMethod); err != nil || isPlumbing(fullMethod) {
		return nil, err
	}
	held = s.seats.seat(ctx, IdentityFromContext(ctx), fullMethod)
	return held, held.take(ctx)
}

// receive reads a call's first message when it is the caller's turn, and gives up when it does not arrive in time. While it
// waits for its turn the call holds no seat: requests that do not arrive keep no more seats than the caller has turns.
func (s *Server) receive(ctx context.Context, plumbing bool, seat *seat, read func() error) error {
	c := callFrom(ctx)
	user := c.identity.User
	if plumbing {
		// Health checks do not wait for the caller's other requests.
		user = "health of " + user
	}
	leave, ok := s.gate.TryEnter(user)
	if !ok {
		seat.release()
		var err error
		if leave, err = s.gate.Enter(ctx, user); err != nil {
			return ended(ctx, err)
		}
		if err := seat.take(ctx); err != nil {
			leave()
			return err
		}
	}
	defer leave()
	late := time.AfterFunc(s.cfg.Edge.ReceiveTimeout, func() {
		c.cut(ctx, refuse(codes.DeadlineExceeded, ReasonSlowRequest, "the request did not arrive within %s", s.cfg.Edge.ReceiveTimeout))
	})
	defer late.Stop()
	return ended(ctx, read())
}

// cut ends a call from outside of its handler. The caller gets the status at once: a handler that waits for a message would
// make gRPC answer CANCELED.
func (c *call) cut(ctx context.Context, err error) {
	if stream, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ WriteStatus(*status.Status) error }); ok {
		_ = stream.WriteStatus(status.Convert(err))
	}
	c.end(err)
}

// ended returns why the server itself ended a call, if it did, and err otherwise.
func ended(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return err
}

// enterStream is an interceptor that does for streams what enterUnary does for unary calls, and ends a stream when what its
// caller showed expires or is revoked.
func (s *Server) enterStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx := ss.Context()
	if err := s.admit(ctx, info.FullMethod); err != nil {
		return err
	}
	c := callFrom(ctx)
	if !c.expiry.IsZero() {
		expire := time.AfterFunc(time.Until(c.expiry), func() { c.cut(ctx, expired(c)) })
		defer expire.Stop()
	}
	if c.token != "" {
		defer s.cfg.Tokens.Hold(c.token, func(err error) { c.cut(ctx, err) })()
	}
	plumbing := isPlumbing(info.FullMethod)
	if !plumbing && s.cfg.Starts != nil && s.cfg.Starts(info.FullMethod) {
		c.start = s.seats.seat(ctx, c.identity, info.FullMethod)
		c.start.limit = startLimit
		if err := c.start.take(ctx); err != nil {
			return err
		}
		defer c.start.release()
	}
	return ended(ctx, handler(srv, &enteredStream{ServerStream: ss, server: s, plumbing: plumbing, start: c.start}))
}

// expired says what expired while a stream was open.
func expired(c *call) error {
	if c.token == "" {
		user := c.identity.User
		if c.identity.Forwarder != "" {
			user = c.identity.Forwarder
		}
		return expiredCertificate(user, c.expiry)
	}
	return refuse(codes.Unauthenticated, ReasonExpired, "the token expired on %s", c.expiry.UTC().Format(time.RFC3339))
}

// enteredStream receives its first message when it is the caller's turn. Later ones do not wait: they come when they
// come, and the services that take many of them demand rights.
type enteredStream struct {
	grpc.ServerStream
	server   *Server
	plumbing bool
	start    *seat
	begun    bool
}

// RecvMsg receives a message; one goroutine at a time calls it.
func (e *enteredStream) RecvMsg(message any) error {
	if e.begun {
		return e.ServerStream.RecvMsg(message)
	}
	e.begun = true
	return e.server.receive(e.Context(), e.plumbing, e.start, func() error { return e.ServerStream.RecvMsg(message) })
}
