package storage

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Errors that callers tell apart with errors.Is. All but ErrUnavailable say for certain that
// nothing was written.
var (
	// ErrNotFound: no such object.
	ErrNotFound = errors.New("not found")
	// ErrUnknownKind: the kind is not registered, or no longer.
	ErrUnknownKind = errors.New("kind is not served")
	// ErrCompacted: the requested revision is no longer known; list or watch again.
	ErrCompacted = errors.New("revision is no longer known")
	// ErrFutureRevision: the requested revision does not exist yet.
	ErrFutureRevision = errors.New("revision does not exist yet")
	// ErrFutureTime: the requested time is in the future.
	ErrFutureTime = errors.New("time is in the future")
	// ErrContinue: the continue token is malformed or belongs to another list.
	ErrContinue = errors.New("continue token is not valid for this list")
	// ErrSlowWatcher: the watcher did not keep up and was ended; it may resume from the last revision
	// it received.
	ErrSlowWatcher = errors.New("watcher is too slow")
	// ErrLeaseNotFound: the lease expired, was revoked, or never existed.
	ErrLeaseNotFound = errors.New("lease not found")
	// ErrLeaseTaken: the id chosen for a lease is that of another owner's lease.
	ErrLeaseTaken = errors.New("the lease's id is taken")
	// ErrNoSpace: etcd has reached its quota. Compact, defragment, and disarm the alarm, or raise the
	// quota.
	ErrNoSpace = errors.New("etcd is out of space")
	// ErrTooLarge: the write exceeds what etcd takes in one request, in bytes or in operations.
	ErrTooLarge = errors.New("write is too large for etcd")
	// ErrUnavailable: etcd or the cache did not answer in time. For a write the error's text says
	// whether the outcome is known, as does errors.Is(err, ErrUnknownOutcome).
	ErrUnavailable = errors.New("storage is unavailable")
	// ErrUnknownOutcome: the write may have happened, and may even happen later. It comes with
	// ErrUnavailable.
	ErrUnknownOutcome = errors.New("the outcome of the write is unknown")
)

// NotWritten is the Index of a ConflictError over a key that the transaction does not write: that
// of a condition.
const NotWritten = -1

// ConflictError names the write or condition of a transaction whose key is not in the expected
// state. Nothing was written.
type ConflictError struct {
	// Index is the write's place in Txn.Writes, or NotWritten.
	Index int
	// Key is the key of the write or the condition.
	Key Key
	// Exists says whether the key exists now.
	Exists bool
	// Revision is the key's modification revision now, 0 when it does not exist.
	Revision int64
}

// Error describes the conflict.
func (e *ConflictError) Error() string {
	what := "condition"
	if e.Index != NotWritten {
		what = fmt.Sprintf("write %d", e.Index)
	}
	if !e.Exists {
		return fmt.Sprintf("%s: %s does not exist", what, e.Key)
	}
	return fmt.Sprintf("%s: %s exists at revision %d", what, e.Key, e.Revision)
}

// PreconditionError says which precondition of a transaction does not hold. Nothing was written.
type PreconditionError struct {
	// Index is the precondition's place in Txn.Preconditions.
	Index int
	// Condition is the precondition.
	Condition Condition
}

// Error names the key.
func (e *PreconditionError) Error() string {
	return fmt.Sprintf("precondition %d on %s does not hold", e.Index, e.Condition.Key)
}

// readError maps an error of etcd's client to this package's.
func readError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrCompacted):
		return ErrCompacted
	case errors.Is(err, rpctypes.ErrFutureRev):
		return ErrFutureRevision
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return ErrLeaseNotFound
	case errors.Is(err, rpctypes.ErrNoSpace):
		return ErrNoSpace
	case errors.Is(err, context.Canceled):
		return err
	case transient(err):
		return fmt.Errorf("%w: etcd: %w", ErrUnavailable, err)
	}
	return fmt.Errorf("etcd: %w", err)
}

// writeError is readError for a request that may have changed something: what etcd did not clearly
// refuse may have happened.
func writeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrTooManyOps), overGRPCLimit(err):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.Is(err, rpctypes.ErrTooManyRequests):
		// Refused before it was proposed.
		return fmt.Errorf("%w: etcd: %w", ErrUnavailable, err)
	case errors.Is(err, context.Canceled), transient(err):
		return fmt.Errorf("%w: %w: etcd: %w", ErrUnavailable, ErrUnknownOutcome, err)
	}
	return readError(err)
}

// overGRPCLimit reports whether the request was refused by gRPC for its size, before etcd saw it.
func overGRPCLimit(err error) bool {
	var etcdErr rpctypes.EtcdError
	return !errors.As(err, &etcdErr) && status.Code(err) == codes.ResourceExhausted
}

// transient reports whether err says that etcd could not answer, as opposed to that it refused.
func transient(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, clientv3.ErrNoAvailableEndpoints) {
		return true
	}
	code := status.Code(err)
	var etcdErr rpctypes.EtcdError
	if errors.As(err, &etcdErr) {
		code = etcdErr.Code()
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted, codes.Internal, codes.Unknown:
		return true
	}
	return errors.Is(err, rpctypes.ErrTooManyRequests)
}
