package edge

import (
	"context"
	"crypto/x509"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// TokenAuthenticator authenticates callers by their bearer tokens.
type TokenAuthenticator interface {
	// Verify returns the identity that a token proves and when the token expires, from the token
	// itself and what is cached. It is called while the connection waits, before any of the call's
	// messages is read, and must not block. When fresh is false too many tokens of the caller's
	// address were invalid: a token that is not cached is refused unverified. The error goes to the
	// caller.
	Verify(token string, fresh bool) (Identity, time.Time, error)
	// Review returns an error when a token that was verified has been revoked; it may ask over the
	// network. The error goes to the caller.
	Review(ctx context.Context, token string) error
	// Hold calls end, with the error for the caller, when the token is revoked before release is
	// called. It serves long calls.
	Hold(token string, end func(error)) (release func())
}

// Authenticator authenticates the caller of a call.
type Authenticator struct {
	// Forwarders are the users that may call on behalf of others.
	Forwarders []string
	// Tokens authenticates callers without a certificate; nil: every caller needs a certificate.
	Tokens TokenAuthenticator
}

// Authenticate returns the call that begins with these headers on a connection, with its caller and
// its request id: the caller is the one that the verified certificate names or, when that is a
// trusted forwarder's, the one that the forwarder names. Without a certificate, leaf being nil, it
// is the one that the bearer token names. Authenticate does not block. owner is the user that the
// connection belongs to, empty when it is unknown. The connection may be nil.
func (a Authenticator) Authenticate(connection *Connection, leaf *x509.Certificate, headers Headers) (c Call, owner string, err error) {
	if leaf == nil {
		c, err = a.byToken(connection, headers)
		owner = c.Identity.User
	} else {
		c, owner, err = a.byCertificate(leaf, headers)
	}
	id, invalid := requestID(headers)
	if c.RequestID = id; err == nil {
		err = invalid
	}
	return c, owner, err
}

func (a Authenticator) byCertificate(leaf *x509.Certificate, headers Headers) (c Call, owner string, err error) {
	id := CertificateIdentity(leaf)
	c = Call{Identity: id, Expiry: leaf.NotAfter}
	if id.User == "" {
		return c, "", refuse(codes.Unauthenticated, ReasonNoCertificate, "the client certificate has no common name, which would be the user")
	}
	if !time.Now().Before(leaf.NotAfter) {
		return c, id.User, expiredCertificate(id.User, leaf.NotAfter)
	}
	if isForwarded(headers) {
		c.Identity, err = forwarded(id, headers, a.Forwarders)
	}
	return c, id.User, err
}

func expiredCertificate(user string, at time.Time) error {
	return refuse(codes.Unauthenticated, ReasonExpired, "the client certificate of %q expired on %s: connect again with a new one",
		user, at.UTC().Format(time.RFC3339))
}

// byToken returns the call of a caller without a certificate, which cannot act for others.
func (a Authenticator) byToken(connection *Connection, headers Headers) (Call, error) {
	if a.Tokens == nil {
		return Call{}, refuse(codes.Unauthenticated, ReasonNoCertificate, "a client certificate is required")
	}
	for name := range headers {
		if strings.HasPrefix(name, HeaderPrefix) {
			return Call{}, refuse(codes.PermissionDenied, ReasonForgedIdentity, "a caller with a token may not send header %s", name)
		}
	}
	values := headers[HeaderAuthorization]
	if len(values) == 0 {
		return Call{}, refuse(codes.Unauthenticated, ReasonNoCertificate, "a client certificate or a token is required")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "bearer") || token == "" {
		return Call{}, refuse(codes.Unauthenticated, ReasonBadToken, "header %s must be one bearer token", HeaderAuthorization)
	}
	id, expiry, err := a.Tokens.Verify(token, connection.MayTry())
	if err == nil && id.User == "" {
		err = refuse(codes.Unauthenticated, ReasonBadToken, "the token names no user")
	}
	if err != nil {
		return Call{}, err
	}
	return Call{Identity: id, Token: token, Expiry: expiry}, nil
}
