package apiserver

import (
	"testing"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestEndpointsPointToGateways plays the spec "API Server should have Endpoints and EndpointSlices
// pointing to API Server".
func TestEndpointsPointToGateways(t *testing.T) {
	svc, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	for _, gateways := range [][]string{{"192.0.2.1:7000"}, {"192.0.2.1:7000", "192.0.2.2:7000", "[fd00::1]:7000"}} {
		if err := svc.makeKubernetes(ctx, kubernetesSlices(gateways)); err != nil {
			t.Fatal(err)
		}
		e := do[*corev1.Endpoints](t)(client.Get[*corev1.Endpoints](ctx, c, "default", "kubernetes"))
		want := min(len(gateways), 2)
		if len(e.GetSubsets()) != 1 || len(e.GetSubsets()[0].GetAddresses()) != want || e.GetSubsets()[0].GetPorts()[0].GetPort() != 7000 ||
			e.GetMetadata().GetLabels()[labelSkipMirror] != "true" {
			t.Errorf("Endpoints %v of the gateways %v", e, gateways)
		}
	}
}
