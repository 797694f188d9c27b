package apiserver

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds/flowcontrol"
	"github.com/xebec-project/xebec/internal/scheme"
	flowcontrolv1 "github.com/xebec-project/xebec/proto/xebec/flowcontrol/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestFlowControl plays the steps of Kubernetes' specs of the group.
func TestFlowControl(t *testing.T) {
	svc, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1))
	c := admin(conn)
	waitNamespace(t, c)
	meta := func(name string) *metav1.ObjectMeta {
		return &metav1.ObjectMeta{Name: name, Labels: map[string]string{"special": "yes"}}
	}
	t.Run("API priority and fairness should support FlowSchema API operations", func(t *testing.T) {
		playFlowControl(t, c, func(name string) *flowcontrolv1.FlowSchema {
			return &flowcontrolv1.FlowSchema{Metadata: meta(name), Spec: &flowcontrolv1.FlowSchemaSpec{
				MatchingPrecedence:         10000,
				PriorityLevelConfiguration: &flowcontrolv1.PriorityLevelConfigurationReference{Name: "global-default"},
				DistinguisherMethod:        &flowcontrolv1.FlowDistinguisherMethod{Type: "ByUser"},
				Rules: []*flowcontrolv1.PolicyRulesWithSubjects{{
					Subjects:         []*flowcontrolv1.Subject{{Kind: "User", User: &flowcontrolv1.UserSubject{Name: "example-e2e-non-existent-user"}}},
					NonResourceRules: []*flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"*"}, NonResourceUrls: []string{"*"}}},
				}},
			}}
		}, `{"matchingPrecedence":9999}`, func(s *flowcontrolv1.FlowSchema) bool { return s.GetSpec().GetMatchingPrecedence() == 9999 },
			func(s *flowcontrolv1.FlowSchema) int { return len(s.GetStatus().GetConditions()) })
	})
	t.Run("API priority and fairness should support PriorityLevelConfiguration API operations", func(t *testing.T) {
		playFlowControl(t, c, func(name string) *flowcontrolv1.PriorityLevelConfiguration {
			return &flowcontrolv1.PriorityLevelConfiguration{Metadata: meta(name), Spec: &flowcontrolv1.PriorityLevelConfigurationSpec{
				Type: "Limited", Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
					NominalConcurrencyShares: proto.Int32(2), LimitResponse: &flowcontrolv1.LimitResponse{Type: "Reject"},
				},
			}}
		}, `{"limited":{"nominalConcurrencyShares":4}}`, func(l *flowcontrolv1.PriorityLevelConfiguration) bool {
			return l.GetSpec().GetLimited().GetNominalConcurrencyShares() == 4
		}, func(l *flowcontrolv1.PriorityLevelConfiguration) int { return len(l.GetStatus().GetConditions()) })
	})
	t.Run("mandatory objects are kept", func(t *testing.T) {
		ctx := t.Context()
		waitMandatory(t, c)
		_, err := client.Patch[*flowcontrolv1.FlowSchema](ctx, c, "", "exempt", []byte(`{"spec":{"matchingPrecedence":2}}`))
		refusedAs(t, err, "spec: Invalid value: spec of 'exempt' must equal the fixed value")
		_, err = client.Patch[*flowcontrolv1.PriorityLevelConfiguration](ctx, c, "", "catch-all", []byte(`{"spec":{"limited":{"lendablePercent":7}}}`))
		refusedAs(t, err, "spec of 'catch-all' must equal the fixed value")
		exempt := []byte(`{"metadata":{"annotations":null},"spec":{"exempt":{"lendablePercent":7}}}`)
		do[*flowcontrolv1.PriorityLevelConfiguration](t)(client.Patch[*flowcontrolv1.PriorityLevelConfiguration](ctx, c, "", "exempt", exempt))
		do[bool](t)(client.Delete[*flowcontrolv1.FlowSchema](ctx, c, "", "catch-all"))
		deadline := time.Now().Add(time.Minute)
		for {
			if err := svc.makeFlowControl(ctx); err != nil {
				t.Fatal(err)
			}
			_, err := client.Get[*flowcontrolv1.FlowSchema](ctx, c, "", "catch-all")
			level := do[*flowcontrolv1.PriorityLevelConfiguration](t)(client.Get[*flowcontrolv1.PriorityLevelConfiguration](ctx, c, "", "exempt"))
			if level.GetSpec().GetExempt().GetLendablePercent() != 7 {
				t.Fatalf("the settings of the level exempt were restored: %v", level)
			}
			if err == nil && flowcontrol.IsKept(level.GetMetadata()) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("not restored: %v, %v", err, level)
			}
		}
	})
}

// waitMandatory waits for the objects that every cluster has.
func waitMandatory(t *testing.T, c *client.Client) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for _, s := range flowcontrol.MandatoryFlowSchemas() {
		for {
			_, err := client.Get[*flowcontrolv1.FlowSchema](t.Context(), c, "", s.GetMetadata().GetName())
			if err == nil {
				break
			}
			if !apierr.IsNotFound(err) || time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
}

// playFlowControl creates, reads, changes and deletes objects of a kind.
func playFlowControl[T scheme.Object](t *testing.T, c *client.Client, make func(name string) T, spec string, patched func(T) bool, conditions func(T) int) {
	t.Helper()
	ctx := t.Context()
	var warnings []string
	for _, name := range []string{"e2e-1", "e2e-2", "e2e-3"} {
		do[T](t)(client.Create(ctx, c, make(name), client.Warnings(&warnings)))
	}
	if len(warnings) != 3 {
		t.Errorf("warnings are %q, want one for each object", warnings)
	}
	selected := client.ListOptions{LabelSelector: "special=yes"}
	expectListed[T](t, c, selected, "e2e-1", "e2e-2", "e2e-3")
	o := do[T](t)(client.Patch[T](ctx, c, "", "e2e-1", []byte(`{"metadata":{"annotations":{"patched":"true"}},"spec":`+spec+`}`)))
	if !patched(o) || o.GetMetadata().GetGeneration() != 2 {
		t.Errorf("patched: %v", o)
	}
	o = client.Clone(o)
	o.GetMetadata().Annotations["updated"] = "true"
	if o = do[T](t)(client.Update(ctx, c, o)); o.GetMetadata().GetAnnotations()["updated"] != "true" {
		t.Errorf("updated: %v", o)
	}
	condition := `{"metadata":{"annotations":{"status":"true"}},"status":{"conditions":[{"type":"PatchStatusFailed","status":"False","reason":"Patched"}]}}`
	o = do[T](t)(client.Patch[T](ctx, c, "", "e2e-1", []byte(condition), client.Subresource("status")))
	if conditions(o) != 1 || o.GetMetadata().GetAnnotations()["status"] != "" || !patched(o) {
		t.Errorf("after a patch of the status: %v", o)
	}
	do[bool](t)(client.Delete[T](ctx, c, "", "e2e-1"))
	expectListed[T](t, c, selected, "e2e-2", "e2e-3")
	if _, err := client.DeleteCollection[T](ctx, c, selected); err != nil {
		t.Fatal(err)
	}
	expectListed[T](t, c, selected)
}
