package cli

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
)

// busyFor returns how long a server that refused a call before it did any of it asks to wait; false for other errors.
func busyFor(err error) (time.Duration, bool) {
	if apierr.Code(err) != codes.ResourceExhausted || apierr.Reason(err) == apierr.ReasonStorageFull {
		return 0, false
	}
	return apierr.RetryAfter(err)
}

// patient makes a call again that a busy server refused, when the server says, for as long as the call's deadline allows.
// What was refused so did not happen, also when it is a write.
func patient(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	for {
		err := invoke(ctx, method, req, reply, conn, opts...)
		wait, busy := busyFor(err)
		if !busy {
			return err
		}
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) <= wait {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}
