package rpc

import (
	"context"
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

// attempts is how often a call is made: once per instance of a service on three masters, and once more for an instance that
// comes back.
var attempts = retry.Policy{Attempts: 4, First: 100 * time.Millisecond, Longest: 500 * time.Millisecond}

// repeat returns an interceptor that makes a call again, within the budget, when no instance answered it and it changes nothing,
// and, with overloaded, when the server refused it because it has too much to do: such a call has not happened, whatever it is.
func repeat(budget *retry.Budget, overloaded bool) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		again := func(err error) bool {
			switch apierr.Code(err) {
			case codes.Unavailable:
				return repeatable[method]
			case codes.ResourceExhausted:
				_, asked := apierr.RetryAfter(err)
				return overloaded && asked && apierr.IsOverloaded(err)
			}
			return false
		}
		return budget.Do(ctx, attempts, again, func() error { return invoke(ctx, method, req, reply, conn, opts...) })
	}
}
