package edge

import (
	"crypto/x509"
	"net/url"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/authz"
)

// Headers with which a gateway passes on who makes a call. User and group values are
// percent-encoded.
const (
	HeaderUser      = "x-xebec-user"
	HeaderGroup     = "x-xebec-group"
	HeaderUserAgent = "x-xebec-user-agent"
	// HeaderSource is the caller's address and HeaderListener the listener that accepted its
	// connection. Neither is sent for callers that access lists always admit.
	HeaderSource   = "x-xebec-source"
	HeaderListener = "x-xebec-listener"
	// HeaderPrefix begins every header that only a trusted forwarder may send.
	HeaderPrefix = "x-xebec-"
	// HeaderAuthorization carries a bearer token.
	HeaderAuthorization = "authorization"
)

// Headers are those of a call, with names in lower case, as gRPC's metadata has them.
type Headers map[string][]string

// Identity is who makes a call.
type Identity struct {
	// User is the common name of the caller's certificate, such as "ann" or "system:node:node-1".
	User string
	// Groups are the organizations of the caller's certificate. They must not be changed.
	Groups []string
	// Forwarder is the user that made the call on the caller's behalf, empty for a direct call.
	Forwarder string
}

// Member reports whether the identity belongs to a group.
func (id Identity) Member(group string) bool { return slices.Contains(id.Groups, group) }

// Caller returns the identity as authorizers know it.
func (id Identity) Caller() authz.Caller { return authz.Caller{User: id.User, Groups: id.Groups} }

// IsZero reports whether the caller is unknown.
func (id Identity) IsZero() bool { return id.User == "" }

// CertificateIdentity returns the identity that a certificate names.
func CertificateIdentity(cert *x509.Certificate) Identity {
	return Identity{User: cert.Subject.CommonName, Groups: cert.Subject.Organization}
}

// Forward sets the headers that pass the identity on. Servers accept them from trusted forwarders
// only.
func (id Identity) Forward(headers Headers) {
	headers[HeaderUser] = []string{url.PathEscape(id.User)}
	groups := make([]string, len(id.Groups))
	for i, group := range id.Groups {
		groups[i] = url.PathEscape(group)
	}
	headers[HeaderGroup] = groups
}

// isForwarded reports whether a call's headers name another caller than the connection's.
func isForwarded(headers Headers) bool {
	for _, name := range [...]string{HeaderUser, HeaderGroup, HeaderUserAgent, HeaderSource, HeaderListener} {
		if headers[name] != nil {
			return true
		}
	}
	return false
}

// forwarded returns the identity that the headers of a forwarder name.
func forwarded(forwarder Identity, headers Headers, trusted []string) (Identity, error) {
	if !slices.Contains(trusted, forwarder.User) {
		return forwarder, refuse(codes.PermissionDenied, ReasonForgedIdentity,
			"%q may not act on behalf of others: remove the %s* headers from the call", forwarder.User, HeaderPrefix)
	}
	users, groups := headers[HeaderUser], headers[HeaderGroup]
	if len(users) != 1 || users[0] == "" {
		return forwarder, refuse(codes.PermissionDenied, ReasonForgedIdentity,
			"%q forwarded %d users, want one in header %s", forwarder.User, len(users), HeaderUser)
	}
	id := Identity{Forwarder: forwarder.User}
	var err error
	if id.User, err = url.PathUnescape(users[0]); err != nil {
		return forwarder, refuse(codes.PermissionDenied, ReasonForgedIdentity, "header %s: %v", HeaderUser, err)
	}
	for _, group := range groups {
		unescaped, err := url.PathUnescape(group)
		if err != nil {
			return forwarder, refuse(codes.PermissionDenied, ReasonForgedIdentity, "header %s: %v", HeaderGroup, err)
		}
		id.Groups = append(id.Groups, unescaped)
	}
	return id, nil
}
