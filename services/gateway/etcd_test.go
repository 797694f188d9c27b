package gateway

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/etcdtest"
	etcdv1 "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
)

// turns answers each call of a member by the next of its functions, and each after the last one by
// that.
func turns(all []func(context.Context) error) member[etcdv1.StatusRequest, etcdv1.StatusResponse] {
	var calls atomic.Int64
	return func(ctx context.Context, _ *etcdv1.StatusRequest, _ ...grpc.CallOption) (*etcdv1.StatusResponse, error) {
		if err := all[min(int(calls.Add(1)), len(all))-1](ctx); err != nil {
			return nil, err
		}
		return &etcdv1.StatusResponse{Members: []*etcdv1.MemberStatus{{Leader: true}}}, nil
	}
}

func TestMembersAreAskedInTurn(t *testing.T) {
	p := newEtcdProxy(etcdtest.New(t, 1).Client())
	foreign := func(context.Context, *etcdv1.StatusRequest) (*etcdv1.StatusResponse, error) {
		return &etcdv1.StatusResponse{}, nil
	}
	answers := func(err error) func(context.Context) error {
		return func(context.Context) error { return err }
	}
	hangs := func(ctx context.Context) error { <-ctx.Done(); return status.FromContextError(ctx.Err()).Err() }
	for name, tt := range map[string]struct {
		turns     []func(context.Context) error
		ask, does codes.Code // of a question and of a change
		foreign   bool
	}{
		"well":           {[]func(context.Context) error{answers(nil)}, codes.OK, codes.OK, false},
		"learner":        {[]func(context.Context) error{answers(rpctypes.ErrGRPCNotSupportedForLearner), answers(nil)}, codes.OK, codes.OK, false},
		"only learners":  {[]func(context.Context) error{answers(rpctypes.ErrGRPCNotSupportedForLearner)}, codes.FailedPrecondition, codes.FailedPrecondition, false},
		"gone":           {[]func(context.Context) error{answers(status.Error(codes.Unavailable, "gone")), answers(nil)}, codes.OK, codes.Unavailable, false},
		"all gone":       {[]func(context.Context) error{answers(status.Error(codes.Unavailable, "gone"))}, codes.Unavailable, codes.Unavailable, false},
		"refuses":        {[]func(context.Context) error{answers(apierr.Denied("no"))}, codes.PermissionDenied, codes.PermissionDenied, false},
		"another etcd's": {[]func(context.Context) error{answers(status.Error(codes.Unimplemented, "unknown service"))}, codes.OK, codes.OK, true},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := ask(t.Context(), p, &etcdv1.StatusRequest{}, turns(tt.turns), foreign)
			if status.Code(err) != tt.ask || err == nil && (len(resp.GetMembers()) == 0) != tt.foreign {
				t.Errorf("asked: %v, %v", resp, err)
			}
			resp, err = change(t.Context(), p, &etcdv1.StatusRequest{}, turns(tt.turns), foreign)
			if status.Code(err) != tt.does || err == nil && (len(resp.GetMembers()) == 0) != tt.foreign {
				t.Errorf("changed: %v, %v", resp, err)
			}
		})
	}
	t.Run("one hangs", func(t *testing.T) {
		asked := turns([]func(context.Context) error{hangs, answers(nil)})
		if resp, err := ask(t.Context(), p, &etcdv1.StatusRequest{}, asked, foreign); err != nil || len(resp.GetMembers()) != 1 {
			t.Errorf("%v, %v", resp, err)
		}
	})
	t.Run("all hang", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), etcdHedge/2)
		defer cancel()
		asked := turns([]func(context.Context) error{hangs})
		if _, err := ask(ctx, p, &etcdv1.StatusRequest{}, asked, foreign); !apierr.IsUnavailable(err) && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
