package rpc

import (
	"context"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/method"
	"github.com/xebec-project/xebec/internal/retry"
)

// attempts is how often a call is made that no instance answers: once per instance of a service on
// three masters, and once more for an instance that comes back.
const attempts = 4

// pauses are those between attempts; how many there are is decided below.
var pauses = retry.Policy{Attempts: math.MaxInt, First: 100 * time.Millisecond, Longest: 500 * time.Millisecond}

// repeat returns an interceptor that repeats a call, within the budget, when no instance answered
// it and the method's rules allow it: whether an unanswered write happened is unknown. It also
// repeats a call of any method that an overloaded server refused, when the server asks for that and
// as long as the call's deadline allows: a refused call did not happen. It repeats nothing that its
// caller repeats (retry.ByCaller).
func repeat(budget *retry.Budget) grpc.UnaryClientInterceptor {
	return func(
		ctx context.Context, fullMethod string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		_, bounded := ctx.Deadline()
		unanswered := 0
		again := func(err error) bool {
			if retry.IsByCaller(ctx) {
				return false
			}
			if apierr.Code(err) == codes.Unavailable {
				unanswered++
				return method.Rules(fullMethod).GetIdempotent() && unanswered < attempts
			}
			_, refused := apierr.Busy(err)
			return refused && bounded
		}
		return budget.Do(ctx, pauses, again, func() error { return invoke(ctx, fullMethod, req, reply, conn, opts...) })
	}
}
