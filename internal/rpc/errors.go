package rpc

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xebec-project/xebec/internal/apierr"
)

// Reasons of errors that servers return before a handler runs, in ErrorInfo, beside those of package apierr.
const (
	// ReasonNoCertificate: the caller showed no certificate that names someone.
	ReasonNoCertificate = "NO_CERTIFICATE"
	// ReasonBadToken: the caller's bearer token is not good.
	ReasonBadToken = "BAD_TOKEN"
	// ReasonExpired: the caller's certificate or token has expired, before the call or while it was open.
	ReasonExpired = "CREDENTIAL_EXPIRED"
	// ReasonForgedIdentity: the caller claimed to act for someone else and is no trusted forwarder.
	ReasonForgedIdentity = "FORGED_IDENTITY"
	// ReasonRateLimited: the caller makes too many calls; RetryInfo says when to try again.
	ReasonRateLimited = "RATE_LIMITED"
	// ReasonConnections: the caller has too many connections open.
	ReasonConnections = "TOO_MANY_CONNECTIONS"
	// ReasonSlowRequest: the request did not arrive in time.
	ReasonSlowRequest = "SLOW_REQUEST"
	// ReasonPanic: the handler failed in a way its author did not foresee.
	ReasonPanic = "PANIC"
)

// refuse returns a status error with a reason.
func refuse(code codes.Code, reason, format string, args ...any) error {
	return apierr.New(code, reason, fmt.Sprintf(format, args...))
}

// refuseFor is refuse with a RetryInfo that tells when to try again.
func refuseFor(delay time.Duration, reason, format string, args ...any) error {
	return apierr.New(codes.ResourceExhausted, reason, fmt.Sprintf(format, args...),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
}
