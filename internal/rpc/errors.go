package rpc

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is the domain of every error's ErrorInfo.
const Domain = "xebec"

// Reasons of errors that servers return before a handler runs, in ErrorInfo.
const (
	// ReasonNoCertificate: the caller showed no certificate that names someone.
	ReasonNoCertificate = "NO_CERTIFICATE"
	// ReasonForgedIdentity: the caller claimed to act for someone else and is no trusted forwarder.
	ReasonForgedIdentity = "FORGED_IDENTITY"
	// ReasonForbidden: the caller may not call the method.
	ReasonForbidden = "FORBIDDEN"
	// ReasonRateLimited: the caller makes too many calls; RetryInfo says when to try again.
	ReasonRateLimited = "RATE_LIMITED"
	// ReasonOverloaded: the server works on too many calls; RetryInfo says when to try again.
	ReasonOverloaded = "OVERLOADED"
	// ReasonPanic: the handler failed in a way its author did not foresee.
	ReasonPanic = "PANIC"
)

// refuse returns a status error with an ErrorInfo.
func refuse(code codes.Code, reason, format string, args ...any) error {
	return withDetails(code, fmt.Sprintf(format, args...), &errdetails.ErrorInfo{Reason: reason, Domain: Domain})
}

// refuseFor is refuse with a RetryInfo that tells when to try again.
func refuseFor(delay time.Duration, reason, format string, args ...any) error {
	return withDetails(codes.ResourceExhausted, fmt.Sprintf(format, args...),
		&errdetails.ErrorInfo{Reason: reason, Domain: Domain},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
}

func withDetails(code codes.Code, message string, details ...protoadapt.MessageV1) error {
	st, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		// Only an OK status or details that don't encode can do that.
		return status.Error(code, message)
	}
	return st.Err()
}
