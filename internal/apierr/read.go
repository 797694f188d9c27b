package apierr

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// statusOf finds the status in an error, through any wrapping.
func statusOf(err error) (*status.Status, bool) {
	var s grpcStatus
	if err == nil || !errors.As(err, &s) {
		return nil, false
	}
	return s.GRPCStatus(), true
}

// Code is the gRPC code of an error: OK for nil, CANCELED and DEADLINE_EXCEEDED for the ends of a
// context, UNKNOWN for errors without a status.
func Code(err error) codes.Code {
	if st, ok := statusOf(err); ok {
		return st.Code()
	}
	switch {
	case err == nil:
		return codes.OK
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	return codes.Unknown
}

// Info is the ErrorInfo of an error, nil when it has none.
func Info(err error) *errdetails.ErrorInfo {
	return detail[*errdetails.ErrorInfo](err)
}

func detail[T any](err error) T {
	var none T
	st, ok := statusOf(err)
	if !ok {
		return none
	}
	for _, d := range st.Details() {
		if t, ok := d.(T); ok {
			return t
		}
	}
	return none
}

// Reason is the reason that programs decide by: the one the server gave, or else what follows from
// the code. It is empty for nil and for errors that never were a status.
func Reason(err error) string {
	if info := Info(err); info.GetReason() != "" {
		return info.GetReason()
	}
	switch c := Code(err); c {
	case codes.OK, codes.Unknown:
		return ""
	default:
		return reasonOfCode(c)
	}
}

// Message is the sentence for people, without the code that gRPC puts in front, and with whatever
// the error was wrapped in. It is empty for nil.
func Message(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if st, ok := statusOf(err); ok {
		if st.Message() == "" {
			return strings.ReplaceAll(text, st.Err().Error(), strings.ToLower(st.Code().String()))
		}
		return strings.ReplaceAll(text, st.Err().Error(), st.Message())
	}
	return text
}

// Violations are the fields that broke a rule, in the server's order; nil when the error names
// none.
func Violations(err error) []Violation {
	bad := detail[*errdetails.BadRequest](err)
	var out []Violation
	for _, v := range bad.GetFieldViolations() {
		out = append(out, Violation{Field: v.GetField(), Description: v.GetDescription(), Type: typeOf(v.GetReason())})
	}
	return out
}

func typeOf(reason string) field.ErrorType {
	for t, r := range violationReasons {
		if r == reason {
			return t
		}
	}
	return ""
}

// RetryAfter is how long the server asks the caller to wait before the next attempt; false when it
// doesn't say.
func RetryAfter(err error) (time.Duration, bool) {
	info := detail[*errdetails.RetryInfo](err)
	if info.GetRetryDelay() == nil {
		return 0, false
	}
	return info.GetRetryDelay().AsDuration(), true
}

// RequestID is the id under which the logs of the servers have the call, empty when unknown.
func RequestID(err error) string {
	return detail[*errdetails.RequestInfo](err).GetRequestId()
}

// IsNotFound reports that there is no such object.
func IsNotFound(err error) bool { return Code(err) == codes.NotFound }

// IsAlreadyExists reports that the name is taken.
func IsAlreadyExists(err error) bool { return Code(err) == codes.AlreadyExists }

// IsConflict reports that the object has changed since the caller read it, or that others own the
// applied fields.
func IsConflict(err error) bool { return Code(err) == codes.Aborted }

// IsInvalid reports that an object breaks the rules of its kind.
func IsInvalid(err error) bool { return Reason(err) == ReasonInvalid }

// IsBadRequest reports that an object or the request itself breaks a rule: a retry of the same
// can't pass.
func IsBadRequest(err error) bool { return Code(err) == codes.InvalidArgument }

// IsForbidden reports that the caller may not do this.
func IsForbidden(err error) bool { return Code(err) == codes.PermissionDenied }

// IsUnauthenticated reports that the caller did not prove who it is.
func IsUnauthenticated(err error) bool { return Code(err) == codes.Unauthenticated }

// IsTooOld reports that a revision is compacted: list again.
func IsTooOld(err error) bool { return Code(err) == codes.OutOfRange }

// IsElectionLost reports that a fenced write came too late.
func IsElectionLost(err error) bool { return Reason(err) == ReasonElectionLost }

// IsConditionFailed reports that a condition of the write on another object does not hold.
func IsConditionFailed(err error) bool { return Reason(err) == ReasonConditionFailed }

// Busy reports that a server refused a call before it did any of it, a write too, and how long it
// asks the caller to wait.
func Busy(err error) (wait time.Duration, ok bool) {
	if Code(err) != codes.ResourceExhausted || Reason(err) == ReasonStorageFull || Reason(err) == ReasonDisruptionBudget {
		return 0, false
	}
	return RetryAfter(err)
}

// IsUnavailable reports that the call could not be served just now.
func IsUnavailable(err error) bool { return Code(err) == codes.Unavailable }

// IsRetryable reports that the same call may pass later without anything being done about it. A
// write that failed so may nevertheless have happened, unless the server refused it as overloaded.
func IsRetryable(err error) bool {
	switch Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	case codes.ResourceExhausted:
		return Reason(err) == ReasonOverloaded
	}
	return false
}
