package storage

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
)

// spaceRetry is the delay after which a client may try again when etcd is out of space: an
// administrator has to free some.
const spaceRetry = time.Minute

// ShippedMaxTxnOps is the max-txn-ops of the etcd that xebecd runs; an external one often has
// etcd's own default, 128.
const ShippedMaxTxnOps = 10240

// APIError turns an error of this package into one of the API. Errors that it does not know stay as
// they are.
func APIError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrCompacted):
		return apierr.New(codes.OutOfRange, apierr.ReasonTooOld, "the revision is no longer known: list or watch again, without it")
	case errors.Is(err, ErrUnknownKind):
		return apierr.New(codes.NotFound, apierr.ReasonNotFound, err.Error())
	case errors.Is(err, ErrFutureRevision):
		return apierr.BadField("resourceVersion", "is later than any revision that exists")
	case errors.Is(err, ErrContinue):
		return apierr.BadField("continue", "%v; start the list over", err)
	case errors.Is(err, ErrSlowWatcher):
		return apierr.Unavailable("this watch fell too far behind and was ended: resume it from the last resourceVersion it sent")
	case errors.Is(err, ErrLeaseNotFound):
		return apierr.New(codes.NotFound, apierr.ReasonNotFound, "the lease expired, was revoked or never existed: grant another one")
	case errors.Is(err, ErrLeaseTaken):
		return apierr.New(codes.AlreadyExists, apierr.ReasonAlreadyExists,
			"a lease with this id exists and belongs to another owner: choose another leaseId at random")
	case errors.Is(err, ErrUnknownOutcome):
		// Before ErrNoSpace: a write whose outcome is unknown because etcd is full was not refused.
		return apierr.Unavailable("%v", err)
	case errors.Is(err, ErrNoSpace):
		return apierr.StorageFull(spaceRetry)
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return apierr.BadRequest("etcd accepts fewer operations in a transaction than the apiserver is configured for: "+
			"start etcd with --max-txn-ops=%d, or set the apiserver's storage.maxTxnOps", ShippedMaxTxnOps)
	case errors.Is(err, ErrTooLarge):
		return apierr.BadRequest("the write is larger than etcd accepts in one request: %v", err)
	case errors.Is(err, ErrUnavailable):
		return apierr.Unavailable("%v", err)
	}
	return fmt.Errorf("storage: %w", err)
}
