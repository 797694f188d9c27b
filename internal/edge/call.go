package edge

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
)

// Call is what a server knows of a call in progress. One value of the call's context holds it.
type Call struct {
	// Identity is the caller.
	Identity Identity
	// RequestID identifies the call at every server that it passes.
	RequestID string
	// Token is the caller's bearer token, empty for a certificate.
	Token string
	// Expiry is when the caller's certificate or token expires.
	Expiry time.Time
	// Object names what the call is about, for the log.
	Object string
	// Draining ends when the server begins to stop; nil outside of a server.
	Draining context.Context
	// Start is the seat of a stream that has not sent its initial state; nil for other calls.
	Start *Seat
	// End ends the call as if the caller had given up; the cause is the error for the caller.
	End context.CancelCauseFunc
}

type callKey struct{}

// ContextWithCall returns a context of a call.
func ContextWithCall(ctx context.Context, c *Call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// CallFromContext returns the call that ctx belongs to, nil outside of one.
func CallFromContext(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	return c
}

// IdentityFromContext returns the caller of the call that ctx belongs to, the zero Identity outside
// of one.
func IdentityFromContext(ctx context.Context) Identity {
	if c := CallFromContext(ctx); c != nil {
		return c.Identity
	}
	return Identity{}
}

// ContextWithIdentity returns a context in which id is the caller, for handlers called without a
// server.
func ContextWithIdentity(ctx context.Context, id Identity) context.Context {
	c := Call{}
	if outer := CallFromContext(ctx); outer != nil {
		c = *outer
	}
	c.Identity = id
	return ContextWithCall(ctx, &c)
}

// Ended returns the error with which the server itself ended the call that ctx belongs to, if it
// did, and err otherwise.
func Ended(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return err
}

// expired returns the error of a call whose credential expired while it was open.
func (c *Call) expired() error {
	if c.Token != "" {
		return refuse(codes.Unauthenticated, ReasonExpired, "the token expired on %s", c.Expiry.UTC().Format(time.RFC3339))
	}
	user := c.Identity.User
	if c.Identity.Forwarder != "" {
		user = c.Identity.Forwarder
	}
	return expiredCertificate(user, c.Expiry)
}
