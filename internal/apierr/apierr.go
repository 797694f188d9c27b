// Package apierr makes and reads the errors of the API: gRPC statuses that carry, besides a code
// and a sentence for people, a reason for programs (ErrorInfo) and the details that the reason
// calls for.
//
// Inside a service errors are plain wrapped Go errors; they become one of these once, at the
// border, where From turns whatever is left into INTERNAL. Clients read them with the predicates,
// which look through wrapping.
package apierr

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xebec-project/xebec/internal/scheme"
)

// Domain is the ErrorInfo domain of every error made here.
const Domain = "xebec"

// Reasons, the ErrorInfo values that programs decide by. They are part of the API: add to them,
// never rename.
const (
	// ReasonBadRequest: the request itself, rather than an object in it, makes no sense.
	ReasonBadRequest = "BAD_REQUEST"
	// ReasonInvalid: an object breaks the rules of its kind; BadRequest lists the fields.
	ReasonInvalid = "INVALID"
	// ReasonTooLarge: an object is larger than storage takes.
	ReasonTooLarge = "TOO_LARGE"
	// ReasonUnsupported: the kind or the service has no such operation.
	ReasonUnsupported = "UNSUPPORTED"
	// ReasonNotFound: there is no such object.
	ReasonNotFound = "NOT_FOUND"
	// ReasonAlreadyExists: the name is taken.
	ReasonAlreadyExists = "ALREADY_EXISTS"
	// ReasonConflict: the object is no longer what the caller took it for; read it again and retry.
	ReasonConflict = "CONFLICT"
	// ReasonApplyConflict: the applied fields belong to other managers; BadRequest lists them.
	ReasonApplyConflict = "APPLY_CONFLICT"
	// ReasonUnauthenticated: the caller did not prove who it is.
	ReasonUnauthenticated = "UNAUTHENTICATED"
	// ReasonForbidden: the caller may not do this.
	ReasonForbidden = "FORBIDDEN"
	// ReasonElectionLost: the writer's election has another holder now, or none.
	ReasonElectionLost = "ELECTION_LOST"
	// ReasonConditionFailed: a condition of the write on another object does not hold.
	ReasonConditionFailed = "CONDITION_FAILED"
	// ReasonNamespaceTerminating: nothing new may be made in a namespace that is being deleted.
	ReasonNamespaceTerminating = "NAMESPACE_TERMINATING"
	// ReasonLockout: the access list would cut off its writer, or nodes.
	ReasonLockout = "LOCKOUT"
	// ReasonTooOld: the revision asked for is compacted, or no longer in the watch cache; list again.
	ReasonTooOld = "REVISION_TOO_OLD"
	// ReasonOverloaded: more calls than the server takes; RetryInfo says when to come back.
	ReasonOverloaded = "OVERLOADED"
	// ReasonDisruptionBudget: the disruption budget of a pod allows no eviction now; QuotaFailure
	// names it, and RetryInfo, if there is one, says when its state should be known.
	ReasonDisruptionBudget = "DISRUPTION_BUDGET"
	// ReasonManyBudgets: a pod has more than one disruption budget, so that it cannot be evicted.
	ReasonManyBudgets = "MULTIPLE_DISRUPTION_BUDGETS"
	// ReasonStorageFull: etcd has no space left and takes no writes.
	ReasonStorageFull = "STORAGE_FULL"
	// ReasonTooManyKeys: there are as many keys for tokens as there may be; the oldest have to be
	// forgotten first.
	ReasonTooManyKeys = "TOO_MANY_KEYS"
	// ReasonServiceCIDRFull: every cluster IP is allocated.
	ReasonServiceCIDRFull = "SERVICE_CIDR_FULL"
	// ReasonNodePortsFull: every node port is allocated.
	ReasonNodePortsFull = "NODE_PORTS_FULL"
	// ReasonUnavailable: the server, or what it depends on, can't serve just now; a retry may pass.
	ReasonUnavailable = "UNAVAILABLE"
	// ReasonTimeout: the call's time ran out; whether a write happened is not known.
	ReasonTimeout = "TIMEOUT"
	// ReasonCanceled: the caller gave up.
	ReasonCanceled = "CANCELED"
	// ReasonInternal: a fault of the server.
	ReasonInternal = "INTERNAL"
)

// Metadata keys of ErrorInfo, set where the error is about one object.
const (
	MetadataGroup = "group"
	MetadataKind  = "kind"
	MetadataName  = "name"
)

// New makes an error of any code and reason. Further details may follow; an ErrorInfo among them is
// a mistake, since New adds one.
func New(code codes.Code, reason, message string, details ...protoadapt.MessageV1) error {
	return build(code, reason, message, nil, details...)
}

func build(code codes.Code, reason, message string, meta map[string]string, details ...protoadapt.MessageV1) error {
	// Bytes that are not UTF-8 can't travel in a status: the call would end without any details. And a
	// message goes in a header, whose length peers limit.
	st := status.New(code, clip(message, maxMessage))
	info := &errdetails.ErrorInfo{Reason: reason, Domain: Domain, Metadata: meta}
	full, err := st.WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if err != nil {
		return st.Err()
	}
	return full.Err()
}

func object(k *scheme.Kind, name string) map[string]string {
	m := map[string]string{MetadataGroup: k.Group, MetadataKind: k.Name}
	if name != "" {
		m[MetadataName] = shorten(name)
	}
	return m
}

// BadRequest says that the request itself makes no sense: INVALID_ARGUMENT. The violation names no
// field; use BadField where one is to blame.
func BadRequest(format string, args ...any) error {
	return New(codes.InvalidArgument, ReasonBadRequest, fmt.Sprintf(format, args...))
}

// BadField says that one field of the request makes no sense: INVALID_ARGUMENT.
func BadField(field, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	return New(codes.InvalidArgument, ReasonBadRequest, field+": "+text, &errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{
			Field: strings.ToValidUTF8(field, "\uFFFD"), Description: strings.ToValidUTF8(text, "\uFFFD"), Reason: "VALUE_INVALID",
		}},
	})
}

// TooLarge says that an object is larger than storage takes: INVALID_ARGUMENT. Sizes are in bytes.
func TooLarge(k *scheme.Kind, name string, size, limit int) error {
	return build(codes.InvalidArgument, ReasonTooLarge,
		fmt.Sprintf("%s %q is too large: %d bytes, at most %d can be stored", k.Resource(), name, size, limit), object(k, name))
}

// Unsupported says that there is no such operation, or not on this kind: UNIMPLEMENTED.
func Unsupported(format string, args ...any) error {
	return New(codes.Unimplemented, ReasonUnsupported, fmt.Sprintf(format, args...))
}

// NotFound says that there is no such object: NOT_FOUND.
func NotFound(k *scheme.Kind, name string) error {
	return build(codes.NotFound, ReasonNotFound, fmt.Sprintf("%s %q not found", k.Resource(), name), object(k, name))
}

// AlreadyExists says that the name is taken: ALREADY_EXISTS.
func AlreadyExists(k *scheme.Kind, name string) error {
	return build(codes.AlreadyExists, ReasonAlreadyExists, fmt.Sprintf("%s %q already exists", k.Resource(), name), object(k, name))
}

// Conflict says that a resourceVersion or another precondition no longer holds: ABORTED. Why
// completes the sentence; when empty it says that the object has been modified.
func Conflict(k *scheme.Kind, name, why string) error {
	if why == "" {
		why = "the object has been modified; please apply your changes to the latest version and try again"
	}
	return build(codes.Aborted, ReasonConflict,
		fmt.Sprintf("Operation cannot be fulfilled on %s %q: %s", k.Resource(), name, why), object(k, name))
}

// FieldConflict is a field that an apply wants to set and another manager owns.
type FieldConflict struct {
	// Field is the path of the field: spec.replicas.
	Field string
	// Manager owns it.
	Manager string
}

// ApplyConflict says that other managers own fields which an apply wants to change: ABORTED.
func ApplyConflict(k *scheme.Kind, name string, conflicts []FieldConflict) error {
	var b strings.Builder
	noun := "conflicts"
	if len(conflicts) == 1 {
		noun = "conflict"
	}
	fmt.Fprintf(&b, "Apply of %s %q failed with %d %s", k.Resource(), name, len(conflicts), noun)
	bad := &errdetails.BadRequest{}
	for i, c := range conflicts {
		b.WriteString([]string{": ", ", "}[min(i, 1)])
		fmt.Fprintf(&b, "%s is owned by %q", c.Field, c.Manager)
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field:       strings.ToValidUTF8(c.Field, "\uFFFD"),
			Description: strings.ToValidUTF8(fmt.Sprintf("conflict with %q", c.Manager), "\uFFFD"),
			Reason:      ReasonConflict,
		})
	}
	b.WriteString("; force the apply to take them over, or leave them out")
	return build(codes.Aborted, ReasonApplyConflict, b.String(), object(k, name), bad)
}

// Unauthenticated says that the caller did not prove who it is: UNAUTHENTICATED.
func Unauthenticated(format string, args ...any) error {
	return New(codes.Unauthenticated, ReasonUnauthenticated, fmt.Sprintf(format, args...))
}

// Forbidden says that the caller may not do this to an object, or, without a name, to objects of
// this kind: PERMISSION_DENIED. Why says who may not do what.
func Forbidden(k *scheme.Kind, name, why string) error {
	what := k.Resource()
	if name != "" {
		what += " " + strconv.Quote(name)
	}
	return build(codes.PermissionDenied, ReasonForbidden, what+" is forbidden: "+why, object(k, name))
}

// Denied says that the caller may not make this call at all: PERMISSION_DENIED.
func Denied(format string, args ...any) error {
	return New(codes.PermissionDenied, ReasonForbidden, fmt.Sprintf(format, args...))
}

// FailedPrecondition says that a policy or the state of the system blocks the call:
// FAILED_PRECONDITION. The subject is what it is about: a namespace, an election, a node.
func FailedPrecondition(reason, subject, format string, args ...any) error {
	text := strings.ToValidUTF8(fmt.Sprintf(format, args...), "\uFFFD")
	return New(codes.FailedPrecondition, reason, text, &errdetails.PreconditionFailure{
		Violations: []*errdetails.PreconditionFailure_Violation{{
			Type: reason, Subject: strings.ToValidUTF8(subject, "\uFFFD"), Description: text,
		}},
	})
}

// ElectionLost says that a fenced write came from a holder whose election is over:
// FAILED_PRECONDITION. The election is named by its Lease, namespace/name.
func ElectionLost(election string) error {
	return FailedPrecondition(ReasonElectionLost, election, "election %s was lost: its lease is not the one this writer holds", election)
}

// NamespaceTerminating says that nothing new may be made in a namespace that is being deleted:
// FAILED_PRECONDITION.
func NamespaceTerminating(k *scheme.Kind, name, namespace string) error {
	return FailedPrecondition(ReasonNamespaceTerminating, namespace,
		"%s %q is forbidden: unable to create new content in namespace %s because it is being terminated", k.Resource(), name, namespace)
}

// Overloaded says that the server takes no more calls just now: RESOURCE_EXHAUSTED. The caller is
// asked to wait for retryAfter.
func Overloaded(retryAfter time.Duration, format string, args ...any) error {
	return New(codes.ResourceExhausted, ReasonOverloaded, fmt.Sprintf(format, args...),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
}

// StorageFull says that etcd has no space left: RESOURCE_EXHAUSTED. A retry helps only after the
// operator has made room, so retryAfter should be long.
func StorageFull(retryAfter time.Duration) error {
	return New(codes.ResourceExhausted, ReasonStorageFull,
		"storage is full: etcd takes no writes until it is compacted and defragmented, or its quota is raised, and the alarm is disarmed",
		&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
}

// Unavailable says that the call can't be served just now, and a retry may pass: UNAVAILABLE.
func Unavailable(format string, args ...any) error {
	return New(codes.Unavailable, ReasonUnavailable, fmt.Sprintf(format, args...))
}

// Internal says that the server is at fault: INTERNAL.
func Internal(format string, args ...any) error {
	return New(codes.Internal, ReasonInternal, fmt.Sprintf(format, args...))
}

// From makes a status error of any error, at the border of a service. Errors that have a status
// keep it, with what they were wrapped in as part of the message; the ends of a context become
// CANCELED and DEADLINE_EXCEEDED; all else is INTERNAL. From(nil) is nil.
func From(err error) error {
	if err == nil {
		return nil
	}
	var s grpcStatus
	switch {
	case errors.As(err, &s) && s.GRPCStatus().Code() != codes.OK:
		st := s.GRPCStatus()
		if hasInfo(st) {
			if e, ok := err.(grpcStatus); ok {
				return e.GRPCStatus().Err()
			}
			p := st.Proto()
			p.Message = strings.ToValidUTF8(strings.ReplaceAll(err.Error(), st.Err().Error(), st.Message()), "\uFFFD")
			return status.ErrorProto(p)
		}
		return New(st.Code(), reasonOfCode(st.Code()), Message(err), detailsOf(st)...)
	case errors.Is(err, context.Canceled):
		return New(codes.Canceled, ReasonCanceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return New(codes.DeadlineExceeded, ReasonTimeout, err.Error())
	}
	return New(codes.Internal, ReasonInternal, err.Error())
}

// AtOperation says which operation of a transaction an error is about: the message is prefixed with
// the operation's path, operations[3], and so is every field violation. Code, reason and the other
// details stay.
func AtOperation(err error, index int) error {
	if err == nil {
		return nil
	}
	path := fmt.Sprintf("operations[%d]", index)
	st, _ := status.FromError(From(err))
	p := st.Proto()
	p.Message = path + ": " + p.GetMessage()

	meta := map[string]string{}
	var details []protoadapt.MessageV1
	bad := &errdetails.BadRequest{}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			maps.Copy(meta, d.GetMetadata())
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				if v.GetField() == "" {
					v.Field = path
				} else {
					v.Field = path + "." + v.GetField()
				}
				bad.FieldViolations = append(bad.FieldViolations, v)
			}
		case protoadapt.MessageV1:
			details = append(details, d)
		}
	}
	if len(bad.GetFieldViolations()) == 0 {
		bad.FieldViolations = []*errdetails.BadRequest_FieldViolation{{Field: path, Description: st.Message(), Reason: Reason(st.Err())}}
	}
	return build(st.Code(), Reason(st.Err()), p.GetMessage(), meta, append(details, bad)...)
}

type grpcStatus interface{ GRPCStatus() *status.Status }

func detailsOf(st *status.Status) []protoadapt.MessageV1 {
	var out []protoadapt.MessageV1
	for _, d := range st.Details() {
		if m, ok := d.(protoadapt.MessageV1); ok {
			out = append(out, m)
		}
	}
	return out
}

func hasInfo(st *status.Status) bool {
	for _, d := range st.Details() {
		if _, ok := d.(*errdetails.ErrorInfo); ok {
			return true
		}
	}
	return false
}

// reasonOfCode is the reason of a status that came without one, from gRPC itself or from a server
// that is not ours.
func reasonOfCode(c codes.Code) string {
	switch c {
	case codes.InvalidArgument:
		return ReasonBadRequest
	case codes.NotFound:
		return ReasonNotFound
	case codes.AlreadyExists:
		return ReasonAlreadyExists
	case codes.Aborted:
		return ReasonConflict
	case codes.Unauthenticated:
		return ReasonUnauthenticated
	case codes.PermissionDenied:
		return ReasonForbidden
	case codes.OutOfRange:
		return ReasonTooOld
	case codes.ResourceExhausted:
		return ReasonOverloaded
	case codes.Unavailable:
		return ReasonUnavailable
	case codes.DeadlineExceeded:
		return ReasonTimeout
	case codes.Canceled:
		return ReasonCanceled
	case codes.Unimplemented:
		return ReasonUnsupported
	}
	return ReasonInternal
}
