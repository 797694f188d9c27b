package apiserver

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/etcdtest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// TestRightsComeFirst sends requests that are invalid or expensive to parse. Callers without rights
// are refused for their missing rights, before the request is parsed. Callers with rights get an
// error that says what is wrong.
func TestRightsComeFirst(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	waitNamespace(t, admin(conn))
	object := packed(t, configMap("a"))
	object.Value = append(object.GetValue(), 0x12, 0x02, 0xff, 0xff) // the data are no message
	ref := &apiv1.ObjectReference{Kind: "ConfigMap", Namespace: "default", Name: "a"}
	long := strings.Repeat("a in (b,c),", 345000) // 3.8 MB
	deep := []byte(strings.Repeat(`{"a":`, 9000) + "1" + strings.Repeat("}", 9000))
	many := []byte("[" + strings.Repeat(`{"op":"remove","path":"/data/k"},`, 60000) + `{"op":"remove","path":"/data/k"}]`)

	type clients struct {
		resources apiv1.ResourceServiceClient
		leases    apiv1.LeaseServiceClient
	}
	calls := map[string]func(context.Context, clients) error{
		"get of the past": func(ctx context.Context, c clients) error {
			_, err := c.resources.Get(ctx, &apiv1.GetRequest{Object: ref, AtTime: &timestamppb.Timestamp{Nanos: -1}})
			return err
		},
		"list by a long label selector": func(ctx context.Context, c clients) error {
			_, err := c.resources.List(ctx, &apiv1.ListRequest{Kind: "ConfigMap", LabelSelector: long})
			return err
		},
		"list by a long field selector": func(ctx context.Context, c clients) error {
			_, err := c.resources.List(ctx, &apiv1.ListRequest{Kind: "ConfigMap", FieldSelector: strings.Repeat("metadata.name!=a,", 200000)})
			return err
		},
		"list by many labels": func(ctx context.Context, c clients) error {
			_, err := c.resources.List(ctx, &apiv1.ListRequest{Kind: "ConfigMap", LabelSelector: strings.Repeat("!a,", 5000) + "!a"})
			return err
		},
		"list by a wrong selector": func(ctx context.Context, c clients) error {
			_, err := c.resources.List(ctx, &apiv1.ListRequest{Kind: "ConfigMap", LabelSelector: "="})
			return err
		},
		"watch": func(ctx context.Context, c clients) error {
			stream, err := c.resources.Watch(ctx, &apiv1.WatchRequest{Kind: "ConfigMap", LabelSelector: long})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"delete collection": func(ctx context.Context, c clients) error {
			_, err := c.resources.DeleteCollection(ctx, &apiv1.DeleteCollectionRequest{Kind: "ConfigMap", Namespace: "default", LabelSelector: long})
			return err
		},
		"create": func(ctx context.Context, c clients) error {
			_, err := c.resources.Create(ctx, &apiv1.CreateRequest{Object: object})
			return err
		},
		"update": func(ctx context.Context, c clients) error {
			_, err := c.resources.Update(ctx, &apiv1.UpdateRequest{Object: object})
			return err
		},
		"apply": func(ctx context.Context, c clients) error {
			_, err := c.resources.Apply(ctx, &apiv1.ApplyRequest{Object: object, FieldManager: "m"})
			return err
		},
		"transact": func(ctx context.Context, c clients) error {
			_, err := c.resources.Transact(ctx, &apiv1.TransactRequest{Operations: []*apiv1.Operation{{Operation: &apiv1.Operation_Create{Create: &apiv1.CreateRequest{Object: object}}}}})
			return err
		},
		"deep merge patch": func(ctx context.Context, c clients) error {
			_, err := c.resources.Patch(ctx, &apiv1.PatchRequest{Object: ref, Type: apiv1.PatchType_PATCH_TYPE_MERGE, Patch: deep})
			return err
		},
		"JSON patch of many operations": func(ctx context.Context, c clients) error {
			_, err := c.resources.Patch(ctx, &apiv1.PatchRequest{Object: ref, Type: apiv1.PatchType_PATCH_TYPE_JSON, Patch: many})
			return err
		},
		"revoke of a lease": func(ctx context.Context, c clients) error {
			_, err := c.leases.Revoke(ctx, &apiv1.RevokeRequest{LeaseId: -1})
			return err
		},
		"renewal of a lease": func(ctx context.Context, c clients) error {
			stream, err := c.leases.KeepAlive(ctx)
			if err == nil {
				_ = stream.Send(&apiv1.KeepAliveRequest{LeaseId: -1})
				_, err = stream.Recv()
			}
			return err
		},
	}
	as := func(user, group string) clients {
		c := as{ClientConnInterface: conn, User: user, Group: group}
		return clients{apiv1.NewResourceServiceClient(c), apiv1.NewLeaseServiceClient(c)}
	}
	// The object that updates and patches are about.
	if _, err := as("alice", authz.GroupAdmins).resources.Create(t.Context(), &apiv1.CreateRequest{Object: packed(t, configMap("a"))}); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			for _, c := range []clients{as(authz.AccountUser("a", "web"), authz.GroupAccounts), as("mallory", "strangers")} {
				if err := call(t.Context(), c); !apierr.IsForbidden(err) {
					t.Errorf("without rights: %.500v, want a refusal", err)
				}
			}
			err := call(t.Context(), as("alice", authz.GroupAdmins))
			if apierr.Reason(err) != apierr.ReasonBadRequest {
				t.Errorf("with rights: %.500v, want BAD_REQUEST", err)
			}
			if err != nil && len(err.Error()) > 4096 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
	t.Run("a node", func(t *testing.T) {
		c := as("system:node:node-1", authz.GroupNodes).resources
		for _, k := range []string{"Pod", "Secret"} {
			if _, err := c.List(t.Context(), &apiv1.ListRequest{Kind: k, Namespace: "default", LabelSelector: long}); !apierr.IsForbidden(err) {
				t.Errorf("%s: %.500v, want a refusal", k, err)
			}
		}
		list := &apiv1.ListRequest{Kind: "Pod", FieldSelector: "spec.nodeName=node-1", LabelSelector: long}
		if _, err := c.List(t.Context(), list); apierr.Reason(err) != apierr.ReasonBadRequest {
			t.Errorf("its own pods: %.500v, want BAD_REQUEST", err)
		}
	})
}
