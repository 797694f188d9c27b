package cli

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/object"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

func webBudget() *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: &policyv1.PodDisruptionBudgetSpec{
			MinAvailable: object.Text("50%"), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			UnhealthyPodEvictionPolicy: proto.String("AlwaysAllow"),
		},
		Status: &policyv1.PodDisruptionBudgetStatus{
			ObservedGeneration: 1, CurrentHealthy: 2, DesiredHealthy: 2, ExpectedPods: 3,
			Conditions: []*metav1.Condition{{Type: "DisruptionAllowed", Status: "False", Reason: "InsufficientPods"}},
		},
	}
}

func TestCreatePodDisruptionBudget(t *testing.T) {
	c := startCluster(t)
	c.run(t, "create", "pdb", "web", "--selector=app=web,tier!=test,canary", "--min-available=50%").want(t, exit.OK, "poddisruptionbudget.policy/web created\n")
	c.run(t, "get", "pdb", "web", "-o", "jsonpath={.spec}").want(t, exit.OK,
		`{"minAvailable":"50%","selector":{"matchExpressions":[{"key":"canary","operator":"Exists"},`+
			`{"key":"tier","operator":"NotIn","values":["test"]}],"matchLabels":{"app":"web"}}}`)
	c.run(t, "create", "pdb", "api", "--selector=app=api", "--max-unavailable=1").want(t, exit.OK, "poddisruptionbudget.policy/api created\n")
	c.run(t, "get", "pdb", "api", "-o", "jsonpath={.spec}").want(t, exit.OK, `{"maxUnavailable":1,"selector":{"matchLabels":{"app":"api"}}}`)
	for want, args := range map[string][]string{
		"--selector is required": {"--min-available=1"},
		"exactly one of --min-available and --max-unavailable is required": {"--selector=a=b"},
		"invalid --selector value":           {"--selector=a in b", "--min-available=1"},
		"want =, !=, in, notin, KEY or !KEY": {"--selector=a>1", "--min-available=1"},
	} {
		c.run(t, append([]string{"create", "pdb", "x"}, args...)...).want(t, exit.Usage, "", want)
	}
}

func TestDescribePodDisruptionBudget(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, webBudget())
	c.run(t, "describe", "pdb", "web").golden(t, "describe-poddisruptionbudget-web")
}

// TestDrainSaysWhatItWaitsFor has a budget that refuses, and an administrator who ignores it.
func TestDrainSaysWhatItWaitsFor(t *testing.T) {
	c := startCluster(t)
	p := webPod("web-1", "node-1")
	clienttest.Seed(c.Server, testNode("node-1", true))
	clienttest.Seed(c.Server, p)
	clienttest.Seed(c.Server, webBudget())
	c.Intercept(func(_ string, req proto.Message) error {
		if _, ok := req.(*apiv1.EvictRequest); ok {
			return apierr.TooManyDisruptions("web", 0, "The disruption budget web needs 2 healthy pods and has 2 currently")
		}
		return nil
	})
	c.run(t, "drain", "node-1", "--force", "--delete-emptydir-data", "--timeout=100ms").want(t, exit.Timeout, "node/node-1 cordoned\n",
		"pod default/web-1 waits for disruption budget web, which allows 0 disruptions: 2 of 3 pods are healthy, and 2 must be",
		"timed out waiting for eviction of 1 pods")
	c.run(t, "drain", "node-1", "--force", "--delete-emptydir-data", "--dry-run").want(t, exit.Failed, "node/node-1 already cordoned (server dry run)\n",
		"1 pods cannot be evicted now:\n  default/web-1 waits for disruption budget web")
	removed := make(chan struct{})
	go func() {
		defer close(removed)
		for c.Calls("Delete") == 0 {
			select {
			case <-t.Context().Done():
				return
			case <-time.After(time.Millisecond):
			}
		}
		clienttest.Remove(c.Server, p)
	}()
	c.run(t, "drain", "node-1", "--force", "--delete-emptydir-data", "--disable-eviction").
		want(t, exit.OK, "node/node-1 already cordoned\npod/web-1 deleted\nnode/node-1 drained\n", "deleting pod default/web-1")
	<-removed
}
