package cli

import (
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/edge"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// TestWatchesOfBusyServers follows objects although the server refuses the first watches.
func TestWatchesOfBusyServers(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, webPod("web-1", ""))
	began, refused := time.Now(), 0
	c.Intercept(func(_ string, req proto.Message) error {
		if _, watch := req.(*apiv1.WatchRequest); watch && refused < 2 {
			refused++
			return apierr.New(codes.ResourceExhausted, edge.ReasonRateLimited, "too many", &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
		}
		return nil
	})
	r := c.run(t, "wait", "pod/web-1", "--for=jsonpath={.metadata.name}=web-1", "--timeout=20s")
	if took := time.Since(began); r.code != exit.OK || refused != 2 || took < 2*time.Second {
		t.Errorf("code %d after %d refusals and %s: %s", r.code, refused, took, r.err)
	}
}
