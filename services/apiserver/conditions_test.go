package apiserver

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func configMapRef(name string) *apiv1.ObjectReference {
	return &apiv1.ObjectReference{Kind: "ConfigMap", Namespace: "default", Name: name}
}

// TestConditions makes every kind of write under conditions that hold and under one that does not.
func TestConditions(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	r := apiv1.NewResourceServiceClient(as{ClientConnInterface: conn, User: "alice", Group: authz.GroupAdmins})
	made := do[*corev1.ConfigMap](t)(client.Create(ctx, c, configMap("other")))
	created := made.GetMetadata().GetResourceVersion()
	changed := do[*corev1.ConfigMap](t)(client.Patch[*corev1.ConfigMap](ctx, c, "default", "other", []byte(`{"data":{"a":"b"}}`)))
	version := changed.GetMetadata().GetResourceVersion()
	condition := func(name string, e apiv1.Expectation, version string) *apiv1.Condition {
		return &apiv1.Condition{Object: configMapRef(name), Expectation: e, ResourceVersion: version}
	}
	holding := []*apiv1.Condition{
		condition("other", apiv1.Expectation_EXPECTATION_EXISTS, ""), condition("none", apiv1.Expectation_EXPECTATION_ABSENT, ""),
		condition("other", apiv1.Expectation_EXPECTATION_AT_REVISION, version), condition("other", apiv1.Expectation_EXPECTATION_CREATED_AT, created),
	}
	broken := map[string]*apiv1.Condition{
		"does not exist":                                condition("none", apiv1.Expectation_EXPECTATION_EXISTS, ""),
		"which exists":                                  condition("other", apiv1.Expectation_EXPECTATION_ABSENT, ""),
		"is not at resourceVersion " + created:          condition("other", apiv1.Expectation_EXPECTATION_AT_REVISION, created),
		"was not created at resourceVersion " + version: condition("other", apiv1.Expectation_EXPECTATION_CREATED_AT, version),
	}
	object := packed(t, configMap("a"))
	for _, tt := range []struct {
		what  string
		write func(conditions []*apiv1.Condition, dryRun bool) error
	}{
		{"create", func(cs []*apiv1.Condition, dry bool) error {
			_, err := r.Create(ctx, &apiv1.CreateRequest{Object: object, Conditions: cs, DryRun: dry})
			return err
		}},
		{"update that changes nothing", func(cs []*apiv1.Condition, dry bool) error {
			_, err := r.Update(ctx, &apiv1.UpdateRequest{Object: object, Conditions: cs, DryRun: dry})
			return err
		}},
		{"patch", func(cs []*apiv1.Condition, dry bool) error {
			_, err := r.Patch(ctx, &apiv1.PatchRequest{
				Object: configMapRef("a"), Type: apiv1.PatchType_PATCH_TYPE_MERGE, Patch: []byte(`{"data":{"x":"y"}}`), Conditions: cs, DryRun: dry,
			})
			return err
		}},
		{"apply", func(cs []*apiv1.Condition, dry bool) error {
			_, err := r.Apply(ctx, &apiv1.ApplyRequest{Object: object, FieldManager: "m", Conditions: cs, DryRun: dry})
			return err
		}},
		{"transaction", func(cs []*apiv1.Condition, dry bool) error {
			_, err := r.Transact(ctx, &apiv1.TransactRequest{Conditions: cs, DryRun: dry, Operations: []*apiv1.Operation{
				{Operation: &apiv1.Operation_Create{Create: &apiv1.CreateRequest{Object: packed(t, configMap("b"))}}},
			}})
			return err
		}},
		{"delete collection", func(cs []*apiv1.Condition, dry bool) error {
			_, err := r.DeleteCollection(ctx, &apiv1.DeleteCollectionRequest{
				Kind: "ConfigMap", Namespace: "default", FieldSelector: "metadata.name=b", Conditions: cs, DryRun: dry,
			})
			return err
		}},
		{"delete", func(cs []*apiv1.Condition, dry bool) error {
			_, err := r.Delete(ctx, &apiv1.DeleteRequest{Object: configMapRef("a"), Conditions: cs, DryRun: dry})
			return err
		}},
	} {
		for why, c := range broken {
			for _, dry := range []bool{true, false} {
				err := tt.write(append(holding[:len(holding):len(holding)], c), dry)
				if apierr.Reason(err) != apierr.ReasonConditionFailed || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), `configmaps "default/`) {
					t.Errorf("%s, dry run %v: %v, want a failed condition: %s", tt.what, dry, err, why)
				}
			}
		}
		if err := tt.write(holding, true); err != nil {
			t.Errorf("dry run of %s: %v", tt.what, err)
		}
		if err := tt.write(holding, false); err != nil {
			t.Errorf("%s: %v", tt.what, err)
		}
	}
}

// TestConditionErrors has conditions that make no sense, and of callers that may not know of the
// object.
func TestConditionErrors(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	waitNamespace(t, admin(conn))
	create := func(user, group string, cs ...*apiv1.Condition) error {
		r := apiv1.NewResourceServiceClient(as{ClientConnInterface: conn, User: user, Group: group})
		_, err := r.Create(t.Context(), &apiv1.CreateRequest{Object: packed(t, configMap("a")), Conditions: cs})
		return err
	}
	exists := apiv1.Expectation_EXPECTATION_EXISTS
	many := make([]*apiv1.Condition, 101)
	for i := range many {
		many[i] = &apiv1.Condition{Object: configMapRef("a"), Expectation: exists}
	}
	for want, cs := range map[string][]*apiv1.Condition{
		"no kind":                   {{Object: &apiv1.ObjectReference{Kind: "Pony", Name: "a"}, Expectation: exists}},
		"object: is required":       {{Expectation: exists}},
		"expectation: is required":  {{Object: configMapRef("a")}},
		"must be empty":             {{Object: configMapRef("a"), Expectation: exists, ResourceVersion: "4"}},
		"is not a resourceVersion":  {{Object: configMapRef("a"), Expectation: apiv1.Expectation_EXPECTATION_AT_REVISION, ResourceVersion: "x"}},
		"must not be more than 100": many,
	} {
		if err := create("alice", authz.GroupAdmins, cs...); apierr.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	r := apiv1.NewResourceServiceClient(as{ClientConnInterface: conn, User: "xebec:endpoints", Group: authz.GroupServices})
	secret := &apiv1.Condition{Object: &apiv1.ObjectReference{Kind: "Secret", Namespace: "default", Name: "a"}, Expectation: exists}
	event := &corev1.Event{Metadata: configMap("e").GetMetadata()}
	_, err := r.Create(t.Context(), &apiv1.CreateRequest{Object: packed(t, event), Conditions: []*apiv1.Condition{secret}})
	if !apierr.IsForbidden(err) || !strings.Contains(err.Error(), "conditions[0]") {
		t.Errorf("a condition on what the caller may not read: %v", err)
	}
	inner := &apiv1.Operation{Operation: &apiv1.Operation_Create{Create: &apiv1.CreateRequest{
		Object: packed(t, configMap("a")), Conditions: []*apiv1.Condition{{Object: configMapRef("b"), Expectation: exists}},
	}}}
	all := apiv1.NewResourceServiceClient(as{ClientConnInterface: conn, User: "alice", Group: authz.GroupAdmins})
	if _, err := all.Transact(context.Background(), &apiv1.TransactRequest{Operations: []*apiv1.Operation{inner}}); apierr.Code(err) != codes.InvalidArgument {
		t.Errorf("conditions of an operation: %v", err)
	}
}
