package edge

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xebec-project/xebec/internal/apierr"
)

// Reasons of the errors that an entry returns, in ErrorInfo, besides those of package apierr.
const (
	// ReasonNoCertificate: the caller presented no certificate with a common name, and no token.
	ReasonNoCertificate = "NO_CERTIFICATE"
	// ReasonBadToken: the caller's bearer token is invalid.
	ReasonBadToken = "BAD_TOKEN"
	// ReasonExpired: the caller's certificate or token expired, before the call or during it.
	ReasonExpired = "CREDENTIAL_EXPIRED"
	// ReasonForgedIdentity: the caller claimed to act for another user and is no trusted forwarder.
	ReasonForgedIdentity = "FORGED_IDENTITY"
	// ReasonRateLimited: the caller makes too many calls; RetryInfo has the time to wait.
	ReasonRateLimited = "RATE_LIMITED"
	// ReasonConnections: the caller has too many connections open.
	ReasonConnections = "TOO_MANY_CONNECTIONS"
	// ReasonSlowRequest: the request did not arrive in time.
	ReasonSlowRequest = "SLOW_REQUEST"
)

// refuse returns a status error with a reason.
func refuse(code codes.Code, reason, format string, args ...any) error {
	return apierr.New(code, reason, fmt.Sprintf(format, args...))
}

// refuseFor is refuse with a RetryInfo that has the time to wait.
func refuseFor(delay time.Duration, reason, format string, args ...any) error {
	return apierr.New(codes.ResourceExhausted, reason, fmt.Sprintf(format, args...),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
}
