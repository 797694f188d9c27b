package cli

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// TestDeleteCollections deletes the objects of a kind and namespace by one call, or one by one
// without the right to it.
func TestDeleteCollections(t *testing.T) {
	c := startCluster(t)
	elsewhere := webPod("c", "")
	elsewhere.Metadata.Namespace = "shop"
	clienttest.Seed(c.Server, webPod("a", ""), webPod("b", ""), elsewhere)
	clienttest.Seed(c.Server, webDeployment())
	c.run(t, "delete", "pods", "--all", "--dry-run=server").
		want(t, exit.OK, "pod/a deleted (server dry run)\npod/b deleted (server dry run)\n")
	var requests []*apiv1.DeleteCollectionRequest
	c.Intercept(func(_ string, req proto.Message) error {
		if r, ok := req.(*apiv1.DeleteCollectionRequest); ok {
			requests = append(requests, proto.CloneOf(r))
		}
		return nil
	})
	c.run(t, "delete", "pods,deploy", "-l", "app=web", "--field-selector", "metadata.name!=x", "--grace-period=3", "--cascade=orphan", "--wait=false").
		want(t, exit.OK, "pod/a deleted\npod/b deleted\ndeployment.apps/web deleted\n")
	if len(requests) != 2 || requests[0].GetKind() != "Pod" || requests[1].GetKind() != "Deployment" {
		t.Fatalf("the requests are %v, want one for each kind", requests)
	}
	for _, r := range requests {
		if r.GetNamespace() != "default" || r.GetLabelSelector() != "app=web" || r.GetFieldSelector() != "metadata.name!=x" ||
			r.GetGracePeriodSeconds() != 3 || r.GetPropagationPolicy() != apiv1.PropagationPolicy_PROPAGATION_POLICY_ORPHAN {
			t.Errorf("the request is %v", r)
		}
	}
	if n := c.Calls("Delete"); n != 0 {
		t.Errorf("%d objects were deleted one by one", n)
	}

	c = startCluster(t)
	c.run(t, "delete", "pods", "--all").want(t, exit.OK, "", "No resources found.")
	clienttest.Seed(c.Server, webPod("d", ""), elsewhere)
	c.run(t, "delete", "pods", "--all", "-A").want(t, exit.OK, "pod/d deleted\npod/c deleted\n")
	if n := c.Calls("DeleteCollection"); n != 3 {
		t.Errorf("%d collections were deleted, want one, and one for each namespace", n)
	}

	clienttest.Seed(c.Server, webPod("e", ""), webPod("f", ""))
	refused := map[string]bool{"DeleteCollection": true}
	c.Intercept(func(method string, _ proto.Message) error {
		if refused[method] {
			return apierr.New(codes.PermissionDenied, apierr.ReasonForbidden, "no right to "+method)
		}
		return nil
	})
	c.run(t, "delete", "pods", "--all").want(t, exit.OK, "pod/e deleted\npod/f deleted\n")
	refused["List"] = true
	c.run(t, "delete", "pods", "--all").want(t, exit.Failed, "", "no right to DeleteCollection")
}
