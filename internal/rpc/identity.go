package rpc

import (
	"context"
	"crypto/x509"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/edge"
)

// Headers by which the gateway hands on on whose behalf it calls. User and group values are percent-encoded.
const (
	HeaderUser      = "x-xebec-user"
	HeaderGroup     = "x-xebec-group"
	HeaderUserAgent = "x-xebec-user-agent"
	// HeaderSource is the caller's address and HeaderListener the gateway's listener that it came in at; neither is sent
	// for callers that access lists always admit.
	HeaderSource   = "x-xebec-source"
	HeaderListener = "x-xebec-listener"
	// HeaderPrefix begins every header that only a trusted forwarder may send.
	HeaderPrefix = "x-xebec-"
)

// Identity is who makes a call.
type Identity struct {
	// User is the common name of the caller's certificate, such as "ann" or "system:node:node-1".
	User string
	// Groups are the organizations of the caller's certificate. They must not be changed.
	Groups []string
	// Forwarder is the user that made the call on the caller's behalf, empty for a direct call.
	Forwarder string
}

// Member tells whether the identity belongs to a group.
func (id Identity) Member(group string) bool { return slices.Contains(id.Groups, group) }

// Caller returns the identity as authorizers know it.
func (id Identity) Caller() authz.Caller { return authz.Caller{User: id.User, Groups: id.Groups} }

// IsZero tells whether this is nobody.
func (id Identity) IsZero() bool { return id.User == "" }

// Outgoing returns the headers that hand the identity on; only a trusted forwarder's are accepted.
func (id Identity) Outgoing(md metadata.MD) {
	md[HeaderUser] = []string{url.PathEscape(id.User)}
	groups := make([]string, len(id.Groups))
	for i, group := range id.Groups {
		groups[i] = url.PathEscape(group)
	}
	md[HeaderGroup] = groups
}

// call is what a server knows of a call in progress; one context value holds all of it.
type call struct {
	identity Identity
	object   string
	draining context.Context
	// token is the bearer token that the caller showed, empty with a certificate.
	token string
	// expiry is when the caller's certificate or token expires.
	expiry time.Time
	// start is the seat of a stream that has not sent what it begins with.
	start *seat
	// end ends the call as if the caller had given up; the cause is what the caller gets for an answer.
	end context.CancelCauseFunc
}

type callKey struct{}

func callFrom(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// IdentityFromContext returns the caller of the RPC that ctx belongs to, the zero Identity outside of one.
func IdentityFromContext(ctx context.Context) Identity {
	if c := callFrom(ctx); c != nil {
		return c.identity
	}
	return Identity{}
}

// ContextWithIdentity returns a context in which id is the caller, for handlers called without a server.
func ContextWithIdentity(ctx context.Context, id Identity) context.Context {
	c := call{}
	if outer := callFrom(ctx); outer != nil {
		c = *outer
	}
	c.identity = id
	return context.WithValue(ctx, callKey{}, &c)
}

// Draining returns a channel that closes when the server that handles ctx's call begins to stop. Handlers of streams
// that the client can resume end them then, with Unavailable, rather than be cut off. It is nil outside of a server.
func Draining(ctx context.Context) <-chan struct{} {
	if c := callFrom(ctx); c != nil && c.draining != nil {
		return c.draining.Done()
	}
	return nil
}

// OnDraining calls f in a goroutine of its own when the server that handles ctx's call begins to stop, unless stop is
// called before; stop is to be called in any case. It spares streams a goroutine that waits for Draining.
func OnDraining(ctx context.Context, f func()) (stop func() bool) {
	if c := callFrom(ctx); c != nil && c.draining != nil {
		return context.AfterFunc(c.draining, f)
	}
	return func() bool { return true }
}

// UserAgent returns the user agent of the program that made the call, seen through the gateway.
func UserAgent(ctx context.Context) string {
	// The header is from a trusted forwarder, or authentication had refused the call.
	for _, header := range []string{HeaderUserAgent, "user-agent"} {
		if values := metadata.ValueFromIncomingContext(ctx, header); len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

// Source returns the address from which the caller reached a gateway, and at which of its listeners, as far as access
// lists are about it: the zero address for one that they always admit, and for a call that came by no gateway.
func Source(ctx context.Context) (source netip.Addr, listener string) {
	// The headers are from a trusted forwarder, or authentication had refused the call.
	values, listeners := metadata.ValueFromIncomingContext(ctx, HeaderSource), metadata.ValueFromIncomingContext(ctx, HeaderListener)
	if len(values) != 1 || len(listeners) != 1 {
		return netip.Addr{}, ""
	}
	source, err := netip.ParseAddr(values[0])
	if err != nil {
		return netip.Addr{}, ""
	}
	return source, listeners[0]
}

// CertificateIdentity returns whom a certificate names.
func CertificateIdentity(cert *x509.Certificate) Identity {
	return Identity{User: cert.Subject.CommonName, Groups: cert.Subject.Organization}
}

// authenticator finds out who calls.
type authenticator struct {
	forwarders []string
	tokens     TokenAuthenticator
}

// Identify returns the caller of a call that a server of another make handles, such as etcd's: whom the verified certificate names
// or, when that is one of forwarders', whom the forwarder names. An expired certificate is refused.
func Identify(ctx context.Context, forwarders ...string) (Identity, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, refuse(codes.Unauthenticated, ReasonNoCertificate, "the connection has no peer")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	c, _, err := authenticator{forwarders: forwarders}.identify(p, md)
	return c.identity, err
}

// identify returns the caller from a call's headers: whom the verified certificate names or, when that is a trusted
// forwarder's, whom the forwarder names. It waits for nothing. owner is whose connection it is.
func (a authenticator) identify(p *peer.Peer, md metadata.MD) (c call, owner string, err error) {
	var connection *edge.Connection
	var leaf *x509.Certificate
	switch info := p.AuthInfo.(type) {
	case connectionInfo:
		connection = info.connection
		leaf = info.leaf()
	case credentials.TLSInfo:
		leaf = connectionInfo{TLSInfo: info}.leaf()
	}
	if leaf == nil {
		c, err = a.byToken(connection, md)
		return c, c.identity.User, err
	}
	id := CertificateIdentity(leaf)
	c = call{identity: id, expiry: leaf.NotAfter}
	if id.User == "" {
		return c, "", refuse(codes.Unauthenticated, ReasonNoCertificate, "the client certificate has no common name, so it names nobody")
	}
	if !time.Now().Before(leaf.NotAfter) {
		return c, id.User, expiredCertificate(id.User, leaf.NotAfter)
	}
	users, groups := md[HeaderUser], md[HeaderGroup]
	if users == nil && groups == nil && md[HeaderUserAgent] == nil && md[HeaderSource] == nil && md[HeaderListener] == nil {
		return c, id.User, nil
	}
	c.identity, err = a.forwarded(id, users, groups)
	return c, id.User, err
}

// forwarded returns the identity that a certificate's holder hands on.
func (a authenticator) forwarded(id Identity, users, groups []string) (Identity, error) {
	if !slices.Contains(a.forwarders, id.User) {
		return id, refuse(codes.PermissionDenied, ReasonForgedIdentity,
			"%q may not act on behalf of others: remove the %s* headers from the call", id.User, HeaderPrefix)
	}
	if len(users) != 1 || users[0] == "" {
		return id, refuse(codes.PermissionDenied, ReasonForgedIdentity,
			"%q handed on %d users, want one in %s", id.User, len(users), HeaderUser)
	}
	forwarded := Identity{Forwarder: id.User}
	var err error
	if forwarded.User, err = url.PathUnescape(users[0]); err != nil {
		return id, refuse(codes.PermissionDenied, ReasonForgedIdentity, "header %s: %v", HeaderUser, err)
	}
	for _, group := range groups {
		unescaped, err := url.PathUnescape(group)
		if err != nil {
			return id, refuse(codes.PermissionDenied, ReasonForgedIdentity, "header %s: %v", HeaderGroup, err)
		}
		forwarded.Groups = append(forwarded.Groups, unescaped)
	}
	return forwarded, nil
}

func expiredCertificate(user string, at time.Time) error {
	return refuse(codes.Unauthenticated, ReasonExpired, "the client certificate of %q expired on %s: connect again with a new one",
		user, at.UTC().Format(time.RFC3339))
}

// HeaderAuthorization carries a bearer token.
const HeaderAuthorization = "authorization"

// TokenAuthenticator knows callers by their bearer tokens.
type TokenAuthenticator interface {
	// Verify returns whose a token is and until when it is good, from the token itself and what is known of it. It is called
	// while the connection waits, before any of the call's messages is read, and must not wait for anything. When fresh is
	// false too many tokens of the caller's address were wrong: a token that is not known yet is refused without a look. The
	// error goes to the caller.
	Verify(token string, fresh bool) (Identity, time.Time, error)
	// Review says whether a token that was verified is still good or has been revoked; it may ask over the network. The error
	// goes to the caller.
	Review(ctx context.Context, token string) error
	// Hold calls end, with what the caller is to get, when the token is revoked before release is called. It serves streams,
	// which last.
	Hold(token string, end func(error)) (release func())
}

// byToken returns whose token comes with a call without a certificate. Nobody who comes so acts for others.
func (a authenticator) byToken(connection *edge.Connection, md metadata.MD) (call, error) {
	if a.tokens == nil {
		return call{}, refuse(codes.Unauthenticated, ReasonNoCertificate, "a client certificate is required")
	}
	for key := range md {
		if strings.HasPrefix(key, HeaderPrefix) {
			return call{}, refuse(codes.PermissionDenied, ReasonForgedIdentity, "a caller with a token may not send header %s", key)
		}
	}
	values := md[HeaderAuthorization]
	if len(values) == 0 {
		return call{}, refuse(codes.Unauthenticated, ReasonNoCertificate, "a client certificate or a token is required")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "bearer") || token == "" {
		return call{}, refuse(codes.Unauthenticated, ReasonBadToken, "header %s must be one bearer token", HeaderAuthorization)
	}
	id, expiry, err := a.tokens.Verify(token, connection.MayTry())
	if err == nil && id.User == "" {
		err = refuse(codes.Unauthenticated, ReasonBadToken, "the token names nobody")
	}
	if err != nil {
		return call{}, err
	}
	return call{identity: id, token: token, expiry: expiry}, nil
}
