package rpc

import (
	"context"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/retry"
)

// repeatable are the unary calls that change nothing: one that no instance answered goes to another. Writes are not repeated:
// whether they happened is unknown.
var repeatable = map[string]bool{
	"/xebec.api.v1.ResourceService/Get":                   true,
	"/xebec.api.v1.ResourceService/List":                  true,
	"/xebec.auth.v1.AccessService/CheckAccess":            true,
	"/xebec.auth.v1.TokenService/ListKeys":                true,
	"/xebec.auth.v1.TokenService/ReviewToken":             true,
	"/xebec.cluster.v1.ClusterService/Access":             true,
	"/xebec.cluster.v1.ClusterService/Status":             true,
	"/xebec.cluster.v1.ClusterService/Version":            true,
	"/xebec.cluster.v1.ClusterService/WhoAmI":             true,
	"/xebec.control.v1.ControllerService/ListControllers": true,
	"/xebec.etcd.v1.EtcdService/ListMembers":              true,
	"/xebec.etcd.v1.EtcdService/Status":                   true,
	"/xebec.scheduler.v1.SchedulerService/Explain":        true,
}

// attempts is how often a call is made that no instance answers: once per instance of a service on three masters, and once more
// for an instance that comes back.
const attempts = 4

// pauses are those between attempts; how many there are is decided below.
var pauses = retry.Policy{Attempts: math.MaxInt, First: 100 * time.Millisecond, Longest: 500 * time.Millisecond}

// repeat returns an interceptor that makes a call again, within the budget, when no instance answered it and it changes nothing.
// With busy it also makes a call again that a server refused because it has too much to do, whatever the call is, when the server
// asks for that and for as long as the call's deadline allows: what was refused so did not happen.
func repeat(budget *retry.Budget, busy bool) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		_, bounded := ctx.Deadline()
		unanswered := 0
		again := func(err error) bool {
			if apierr.Code(err) == codes.Unavailable {
				unanswered++
				return repeatable[method] && unanswered < attempts
			}
			_, refused := apierr.Busy(err)
			return refused && busy && bounded
		}
		return budget.Do(ctx, pauses, again, func() error { return invoke(ctx, method, req, reply, conn, opts...) })
	}
}
