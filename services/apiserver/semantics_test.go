package apiserver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap/zaptest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// do fails the test unless a call succeeds.
func do[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func packed(t *testing.T, o scheme.Object) *anypb.Any {
	t.Helper()
	return do[*anypb.Any](t)(anypb.New(o))
}

func deploymentNamed(t *testing.T, name string) *appsv1.Deployment {
	t.Helper()
	return decode[*appsv1.Deployment](t, fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":%q,"namespace":"default"},
		"spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`, name))
}

func TestSemantics(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	conn := start(t, etcd)
	c := admin(conn)
	ctx := t.Context()
	waitNamespace(t, c)

	t.Run("spec and status have writers of their own", func(t *testing.T) {
		d := do[*appsv1.Deployment](t)(client.Create(ctx, c, deploymentNamed(t, "parts")))
		if d.GetMetadata().GetGeneration() != 1 {
			t.Errorf("generation %d of a new object", d.GetMetadata().GetGeneration())
		}
		both := client.Clone(d)
		both.Spec.Replicas = proto.Int32(7)
		both.Metadata.Labels = map[string]string{"new": "label"}
		both.Status = &appsv1.DeploymentStatus{Replicas: 3}
		d = do[*appsv1.Deployment](t)(client.UpdateStatus(ctx, c, both))
		if d.GetSpec().GetReplicas() != 1 || len(d.GetMetadata().GetLabels()) != 0 || d.GetStatus().GetReplicas() != 3 || d.GetMetadata().GetGeneration() != 1 {
			t.Errorf("after a status update: %v", d)
		}
		both.Metadata.ResourceVersion = d.Metadata.ResourceVersion
		both.Status.Replicas = 9
		d = do[*appsv1.Deployment](t)(client.Update(ctx, c, both))
		if d.GetSpec().GetReplicas() != 7 || d.GetStatus().GetReplicas() != 3 || d.GetMetadata().GetGeneration() != 2 {
			t.Errorf("after an update: %v", d)
		}
		labelled := do[*appsv1.Deployment](t)(client.Patch[*appsv1.Deployment](ctx, c, "default", "parts", []byte(`{"metadata":{"labels":{"x":"y"}},"status":{"replicas":11}}`)))
		if labelled.GetMetadata().GetGeneration() != 2 || labelled.GetStatus().GetReplicas() != 3 {
			t.Errorf("a label made generation %d, status %v", labelled.GetMetadata().GetGeneration(), labelled.GetStatus())
		}
		mine := client.Clone(labelled)
		mine.Metadata.Uid, mine.Metadata.CreationTimestamp, mine.Metadata.Generation = "", nil, 40
		if kept := do[*appsv1.Deployment](t)(client.Update(ctx, c, mine)); kept.GetMetadata().GetUid() != d.Metadata.Uid || kept.GetMetadata().GetGeneration() != 2 || kept.GetMetadata().GetCreationTimestamp() == nil {
			t.Errorf("the client's word counted for %v", kept.GetMetadata())
		}
		if _, err := client.UpdateStatus(ctx, c, configMap("none")); err == nil {
			t.Error("a kind without status took one")
		}
	})

	t.Run("patches", func(t *testing.T) {
		do[*corev1.ConfigMap](t)(client.Create(ctx, c, configMap("patched")))
		cm := do[*corev1.ConfigMap](t)(client.Patch[*corev1.ConfigMap](ctx, c, "default", "patched", []byte(`{"data":{"k":null,"new":"1"}}`)))
		if len(cm.GetData()) != 1 || cm.GetData()["new"] != "1" {
			t.Errorf("after a merge patch: %v", cm.GetData())
		}
		cm = do[*corev1.ConfigMap](t)(client.Patch[*corev1.ConfigMap](ctx, c, "default", "patched",
			[]byte(`[{"op":"test","path":"/data/new","value":"1"},{"op":"add","path":"/data/more","value":"2"},{"op":"remove","path":"/data/new"}]`), client.JSONPatch))
		if len(cm.GetData()) != 1 || cm.GetData()["more"] != "2" {
			t.Errorf("after a JSON patch: %v", cm.GetData())
		}
		copies := `[{"op":"add","path":"/data/more","value":"` + strings.Repeat("x", 64<<10) + `"}`
		for i := range 100 {
			copies += fmt.Sprintf(`,{"op":"copy","from":"/data","path":"/data/c%d"}`, i)
		}
		for _, tt := range []struct {
			name, patch string
			json        bool
			is          func(error) bool
			want        string
		}{
			{"no object", `[]`, false, apierr.IsBadRequest, "patch"},
			{"not JSON", `{`, false, apierr.IsBadRequest, "patch"},
			{"another name", `{"metadata":{"name":"other"}}`, false, apierr.IsBadRequest, "must not change"},
			{"another kind", `{"kind":"Secret"}`, false, apierr.IsBadRequest, "patch"},
			{"an unknown field", `{"dataa":{"k":"v"}}`, false, apierr.IsBadRequest, "dataa"},
			{"a wrong type", `{"data":{"k":1}}`, false, apierr.IsBadRequest, "data"},
			{"a stale version", `{"metadata":{"resourceVersion":"1"}}`, false, apierr.IsConflict, "resourceVersion"},
			{"another uid", `{"metadata":{"uid":"1"}}`, false, apierr.IsConflict, "uid"},
			{"a test that fails", `[{"op":"test","path":"/data/more","value":"3"}]`, true, apierr.IsBadRequest, "patch"},
			{"a path that is not there", `[{"op":"remove","path":"/data/absent"}]`, true, apierr.IsBadRequest, "patch"},
			{"copies of copies", copies + `]`, true, apierr.IsBadRequest, "patch"},
		} {
			var opts []client.PatchOption
			if tt.json {
				opts = append(opts, client.JSONPatch)
			}
			if _, err := client.Patch[*corev1.ConfigMap](ctx, c, "default", "patched", []byte(tt.patch), opts...); !tt.is(err) || !strings.Contains(apierr.Message(err), tt.want) {
				t.Errorf("%s: %v, want it to mention %q", tt.name, err, tt.want)
			}
		}
		if now := do[*corev1.ConfigMap](t)(client.Get[*corev1.ConfigMap](ctx, c, "default", "patched")); !proto.Equal(now, cm) {
			t.Errorf("a refused patch changed it: %v", now)
		}
		// Patches that name no version never conflict, however many there are at once.
		var at sync.WaitGroup
		for n := range 20 {
			at.Go(func() {
				if _, err := client.Patch[*corev1.ConfigMap](ctx, c, "default", "patched", fmt.Appendf(nil, `{"data":{"n%d":"1"}}`, n)); err != nil {
					t.Error(err)
				}
			})
		}
		at.Wait()
		if now := do[*corev1.ConfigMap](t)(client.Get[*corev1.ConfigMap](ctx, c, "default", "patched")); len(now.GetData()) != 21 {
			t.Errorf("%d of 21 keys after concurrent patches", len(now.GetData()))
		}
	})

	t.Run("collections", func(t *testing.T) {
		for n := range 6 {
			cm := configMap(fmt.Sprint("many-", n))
			cm.Metadata.Labels = map[string]string{"of": "many", "odd": fmt.Sprint(n % 2)}
			if n == 5 {
				cm.Metadata.Finalizers = []string{"example.com/hold"}
			}
			do[*corev1.ConfigMap](t)(client.Create(ctx, c, cm))
		}
		if _, err := client.DeleteCollection[*corev1.ConfigMap](ctx, c, client.ListOptions{LabelSelector: "of=many"}); !apierr.IsBadRequest(err) {
			t.Errorf("over all namespaces: %v", err)
		}
		odd := client.ListOptions{Namespace: "default", LabelSelector: "of=many,odd=1"}
		var deleted []string
		for _, o := range do[[]*apiv1.DeletedObject](t)(client.DeleteCollection[*corev1.ConfigMap](ctx, c, odd)) {
			deleted = append(deleted, fmt.Sprint(o.GetNamespace(), "/", o.GetName(), " ", o.GetUid() != "", " ", o.GetRemoved()))
		}
		if want := []string{"default/many-1 true true", "default/many-3 true true", "default/many-5 true false"}; !slices.Equal(deleted, want) {
			t.Errorf("deleted are %q, want %q", deleted, want)
		}
		left, _, err := client.List[*corev1.ConfigMap](ctx, c, client.ListOptions{Namespace: "default", LabelSelector: "of=many"})
		if err != nil || len(left) != 4 || left[3].GetMetadata().GetDeletionTimestamp() == nil {
			t.Errorf("left are %v, %v", left, err)
		}
	})

	t.Run("a policy takes the place of another", func(t *testing.T) {
		finalizers := func(policy client.DeleteOption) string {
			t.Helper()
			if _, err := client.Delete[*corev1.ConfigMap](ctx, c, "default", "policy", policy); err != nil {
				t.Fatal(err)
			}
			return strings.Join(do[*corev1.ConfigMap](t)(client.Get[*corev1.ConfigMap](ctx, c, "default", "policy")).GetMetadata().GetFinalizers(), " ")
		}
		cm := configMap("policy")
		cm.Metadata.Finalizers = []string{"example.com/hold"}
		do[*corev1.ConfigMap](t)(client.Create(ctx, c, cm))
		for _, step := range []struct {
			policy client.DeleteOption
			want   string
		}{
			{client.Foreground, "example.com/hold foregroundDeletion"},
			{client.Orphan, "example.com/hold orphan"},
			{client.IfUID(""), "example.com/hold orphan"}, // none named
			{client.Background, "example.com/hold"},
		} {
			if got := finalizers(step.policy); got != step.want {
				t.Errorf("finalizers are %q, want %q", got, step.want)
			}
		}
		if _, err := client.Patch[*corev1.ConfigMap](ctx, c, "default", "policy", []byte(`{"metadata":{"finalizers":["example.com/hold","example.com/late"]}}`)); err == nil {
			t.Error("a finalizer was added to an object that is being deleted")
		}
	})

	t.Run("preconditions of a delete", func(t *testing.T) {
		cm := do[*corev1.ConfigMap](t)(client.Create(ctx, c, configMap("pre")))
		if _, err := client.Delete[*corev1.ConfigMap](ctx, c, "default", "pre", client.IfUID("other")); !apierr.IsConflict(err) {
			t.Errorf("another uid: %v", err)
		}
		if _, err := client.Delete[*corev1.ConfigMap](ctx, c, "default", "pre", client.IfResourceVersion("1")); !apierr.IsConflict(err) {
			t.Errorf("another version: %v", err)
		}
		if _, err := client.Delete[*corev1.ConfigMap](ctx, c, "default", "pre", client.IfUID(cm.Metadata.Uid), client.IfResourceVersion(cm.Metadata.ResourceVersion)); err != nil {
			t.Error(err)
		}
		for _, ns := range core.PermanentNamespaces {
			if _, err := client.Delete[*corev1.Namespace](ctx, c, "", ns); !apierr.IsForbidden(err) {
				t.Errorf("deletion of namespace %s: %v", ns, err)
			}
		}
	})

	t.Run("dry runs write nothing", func(t *testing.T) {
		cm := do[*corev1.ConfigMap](t)(client.Create(ctx, c, configMap("dry")))
		ref := &apiv1.ObjectReference{Kind: "ConfigMap", Namespace: "default", Name: "dry"}
		changed := client.Clone(cm)
		changed.Data["k"] = "dry"
		alice := c.WithFieldManager("alice")
		// What the store writes by itself, to know the time of revisions, is not of the dry runs.
		revisions := func() map[string]int64 {
			out := map[string]int64{}
			for _, kv := range do[*clientv3.GetResponse](t)(etcd.Client().Get(ctx, storage.Root, clientv3.WithPrefix(), clientv3.WithKeysOnly())).Kvs {
				if string(kv.Key) != storage.Root+"clock" {
					out[string(kv.Key)] = kv.ModRevision
				}
			}
			return out
		}
		before := revisions()
		if len(before) == 0 {
			t.Fatal("etcd has no keys")
		}
		for name, call := range map[string]func() error{
			"create": func() error { _, err := client.Create(ctx, c, configMap("dry-2"), client.DryRun); return err },
			"update": func() error { _, err := client.Update(ctx, c, changed, client.DryRun); return err },
			"patch": func() error {
				_, err := client.Patch[*corev1.ConfigMap](ctx, c, "default", "dry", []byte(`{"data":{"k":"p"}}`), client.DryRun)
				return err
			},
			"apply": func() error { _, _, err := client.Apply(ctx, alice, configMap("dry-3"), client.DryRun); return err },
			"delete": func() error {
				_, err := client.Delete[*corev1.ConfigMap](ctx, c, "default", "dry", client.DryRun)
				return err
			},
			"collection": func() error {
				_, err := client.DeleteCollection[*corev1.ConfigMap](ctx, c, client.ListOptions{Namespace: "default"}, client.DryRun)
				return err
			},
			"service": func() error { _, err := client.Create(ctx, c, service("dry"), client.DryRun); return err },
			"transact": func() error {
				_, err := c.Resources().Transact(ctx, &apiv1.TransactRequest{DryRun: true, Operations: []*apiv1.Operation{
					{Operation: &apiv1.Operation_Create{Create: &apiv1.CreateRequest{Object: packed(t, configMap("dry-4"))}}},
					{Operation: &apiv1.Operation_Delete{Delete: &apiv1.DeleteRequest{Object: ref}}},
				}})
				return err
			},
		} {
			if err := call(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if after := revisions(); !maps.Equal(after, before) {
			t.Errorf("dry runs changed the revisions of keys from %v to %v", before, after)
		}
		if _, err := client.Create(ctx, c, configMap("dry"), client.DryRun); !apierr.IsAlreadyExists(err) {
			t.Errorf("a dry run of what would fail: %v", err)
		}
	})

	t.Run("managed fields are the server's", func(t *testing.T) {
		forged := configMap("forged")
		forged.Metadata.ManagedFields = []*metav1.ManagedFieldsEntry{{Manager: "mallory", Operation: "Apply", FieldsV1: &metav1.FieldsV1{Raw: []byte("no JSON")}}}
		cm := do[*corev1.ConfigMap](t)(client.Create(ctx, c, forged))
		if len(cm.GetMetadata().GetManagedFields()) != 0 {
			t.Errorf("created with %v", cm.GetMetadata().GetManagedFields())
		}
		cm.Metadata.ManagedFields = forged.Metadata.ManagedFields
		cm.Data["k"] = "forged"
		cm = do[*corev1.ConfigMap](t)(client.Update(ctx, c, cm))
		if len(cm.GetMetadata().GetManagedFields()) != 0 {
			t.Errorf("updated with %v", cm.GetMetadata().GetManagedFields())
		}
		if _, _, err := client.Apply(ctx, c.WithFieldManager("alice"), configMap("forged"), client.Force); err != nil {
			t.Error(err)
		}
	})

	t.Run("transactions", func(t *testing.T) {
		ops := make([]client.Operation, client.MaxOperations)
		for n := range ops {
			ops[n] = client.OpCreate(configMap(fmt.Sprint("t-", n)))
		}
		if _, err := client.Transact(ctx, c, ops...); err != nil {
			t.Errorf("%d operations: %v", client.MaxOperations, err)
		}
		for name, tt := range map[string]struct {
			ops  []client.Operation
			want string
		}{
			"none":          {nil, "1 to 500"},
			"too many":      {append(ops, client.OpCreate(configMap("one-more"))), "1 to 500"},
			"twice the one": {[]client.Operation{client.OpCreate(configMap("twice")), client.OpCreate(configMap("twice"))}, "written by operations[0] already"},
			"one address":   {[]client.Operation{client.OpCreate(at(service("a-1"), "10.96.7.7")), client.OpCreate(at(service("a-2"), "10.96.7.7"))}, "10.96.7.7"},
			"no such pod":   {[]client.Operation{client.OpCreate(configMap("with-bind")), client.OpBind("default", "absent", "", "node-1")}, "operations[1]"},
		} {
			if _, err := client.Transact(ctx, c, tt.ops...); err == nil || !strings.Contains(apierr.Message(err), tt.want) {
				t.Errorf("%s: %v, want it to mention %q", name, err, tt.want)
			}
		}
		if _, err := client.Get[*corev1.ConfigMap](ctx, c, "default", "with-bind"); !apierr.IsNotFound(err) {
			t.Errorf("half a transaction was done: %v", err)
		}
	})

	t.Run("the address of DNS is allocated to no service", func(t *testing.T) {
		if _, err := client.Create(ctx, c, at(service("dns"), "10.96.0.10")); !apierr.IsInvalid(err) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("reads at a time", func(t *testing.T) {
		// The clock that tells times ticks every two seconds.
		shown := func(want bool) (at time.Time) {
			t.Helper()
			for {
				at = time.Now()
				_, err := client.GetAt[*corev1.ConfigMap](ctx, c, "default", "then", client.At{Time: at})
				if err == nil && want || !want && apierr.IsNotFound(err) {
					return at
				}
				if err != nil && !apierr.IsNotFound(err) && !apierr.IsTooOld(err) {
					t.Fatal(err)
				}
			}
		}
		do[*corev1.ConfigMap](t)(client.Create(ctx, c, configMap("then")))
		then := shown(true)
		do[bool](t)(client.Delete[*corev1.ConfigMap](ctx, c, "default", "then"))
		shown(false)
		do[*corev1.ConfigMap](t)(client.GetAt[*corev1.ConfigMap](ctx, c, "default", "then", client.At{Time: then}))
		past, _, err := client.List[*corev1.ConfigMap](ctx, c, client.ListOptions{Namespace: "default", FieldSelector: "metadata.name=then", At: client.At{Time: then}})
		if err != nil || len(past) != 1 {
			t.Errorf("listed %v, %v", past, err)
		}
		for name, at := range map[string]client.At{"future": {Time: time.Now().Add(time.Hour)}, "twice": {Time: then, Revision: "5"}} {
			if _, err := client.GetAt[*corev1.ConfigMap](ctx, c, "default", "then", at); !apierr.IsBadRequest(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := client.GetAt[*corev1.ConfigMap](ctx, c, "default", "then", client.At{Time: then.Add(-time.Hour)}); !apierr.IsTooOld(err) || !strings.Contains(apierr.Message(err), "the oldest time that can be read is 20") {
			t.Errorf("before the cluster was: %v", err)
		}
	})

	t.Run("watches filter transitions", func(t *testing.T) {
		labelled := func(value string) []byte { return fmt.Appendf(nil, `{"metadata":{"labels":{"show":%q}}}`, value) }
		cm := do[*corev1.ConfigMap](t)(client.Create(ctx, c, configMap("shy")))
		first := cm.Metadata.ResourceVersion
		var revisions []string
		for _, value := range []string{"yes", "no", "yes"} {
			revisions = append(revisions, do[*corev1.ConfigMap](t)(client.Patch[*corev1.ConfigMap](ctx, c, "default", "shy", labelled(value))).Metadata.ResourceVersion)
		}
		do[*corev1.ConfigMap](t)(client.Patch[*corev1.ConfigMap](ctx, c, "default", "shy", []byte(`{"data":{"k":"w"}}`)))
		do[bool](t)(client.Delete[*corev1.ConfigMap](ctx, c, "default", "shy"))
		var got []string
		for e, err := range client.Watch[*corev1.ConfigMap](ctx, c, client.WatchOptions{Namespace: "default", LabelSelector: "show=yes", ResourceVersion: first}) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Type != apiv1.EventType_EVENT_TYPE_BOOKMARK {
				got = append(got, strings.TrimPrefix(e.Type.String(), "EVENT_TYPE_"))
			}
			if len(got) == 5 {
				break
			}
		}
		if want := "ADDED DELETED ADDED MODIFIED DELETED"; strings.Join(got, " ") != want {
			t.Errorf("events %v, want %s", got, want)
		}
		// The past can be read as long as etcd has it.
		if then := do[*corev1.ConfigMap](t)(client.GetAt[*corev1.ConfigMap](ctx, c, "default", "shy", client.At{Revision: revisions[1]})); then.GetMetadata().GetLabels()["show"] != "no" {
			t.Errorf("at %s it was %v", revisions[1], then.GetMetadata())
		}
		for _, tt := range []struct {
			revision string
			is       func(error) bool
		}{{"99999999", apierr.IsBadRequest}, {"-1", apierr.IsBadRequest}, {"yesterday", apierr.IsBadRequest}} {
			if _, err := client.GetAt[*corev1.ConfigMap](ctx, c, "default", "shy", client.At{Revision: tt.revision}); !tt.is(err) {
				t.Errorf("at revision %s: %v", tt.revision, err)
			}
		}
		now := do[*clientv3.GetResponse](t)(etcd.Client().Get(ctx, "x")).Header.Revision
		do[*clientv3.CompactResponse](t)(etcd.Client().Compact(ctx, now))
		if _, err := client.GetAt[*corev1.ConfigMap](ctx, c, "default", "shy", client.At{Revision: revisions[1]}); !apierr.IsTooOld(err) || !strings.Contains(apierr.Message(err), "revision "+revisions[1]+" is not available any more") {
			t.Errorf("at a compacted revision: %v", err)
		}
		// This apiserver still knows the changes itself; one that starts now does not.
		other := admin(start(t, etcd))
		for _, err := range client.Watch[*corev1.ConfigMap](ctx, other, client.WatchOptions{ResourceVersion: "1"}) {
			if !apierr.IsTooOld(err) {
				t.Errorf("a watch from a compacted revision: %v", err)
			}
			break
		}
		// One whose last revision has not come yet knew a cluster that was restored since.
		for _, err := range client.Watch[*corev1.ConfigMap](ctx, other, client.WatchOptions{ResourceVersion: "99999999"}) {
			if !apierr.IsTooOld(err) {
				t.Errorf("a watch from a revision that does not exist: %v", err)
			}
			break
		}
	})

	t.Run("leases", func(t *testing.T) {
		node1 := client.New(as{ClientConnInterface: conn, User: "system:node:node-1", Group: authz.GroupNodes})
		node2 := client.New(as{ClientConnInterface: conn, User: "system:node:node-2", Group: authz.GroupNodes})
		lease := do[*client.Lease](t)(client.KeepLease(ctx, node1, 5*time.Second, nil))
		beat := func(name string) *coordinationv1.Lease {
			return &coordinationv1.Lease{Metadata: &metav1.ObjectMeta{Namespace: "kube-node-lease", Name: name}}
		}
		if _, err := client.Create(ctx, node2, beat("node-2"), client.UnderLease(lease.ID())); !apierr.IsForbidden(err) {
			t.Errorf("under another's lease: %v", err)
		}
		if _, err := client.Create(ctx, node2, beat("node-2"), client.UnderLease(4711)); !apierr.IsNotFound(err) {
			t.Errorf("under no lease: %v", err)
		}
		if _, err := c.Leases().Revoke(ctx, &apiv1.RevokeRequest{LeaseId: 0}); !apierr.IsBadRequest(err) {
			t.Errorf("revoking none: %v", err)
		}
		if _, err := client.New(as{ClientConnInterface: conn, User: "system:node:node-2", Group: authz.GroupNodes}).Leases().Revoke(ctx, &apiv1.RevokeRequest{LeaseId: lease.ID()}); !apierr.IsForbidden(err) {
			t.Errorf("revoking another's: %v", err)
		}
		o := do[*coordinationv1.Lease](t)(client.Create(ctx, node1, beat("node-1"), client.UnderLease(lease.ID())))
		o.Spec = &coordinationv1.LeaseSpec{HolderIdentity: proto.String("updated")}
		do[*coordinationv1.Lease](t)(client.Update(ctx, node1, o))
		do[*coordinationv1.Lease](t)(client.Patch[*coordinationv1.Lease](ctx, node1, "kube-node-lease", "node-1", []byte(`{"metadata":{"labels":{"a":"b"}}}`)))
		if err := lease.Revoke(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Get[*coordinationv1.Lease](ctx, c, "kube-node-lease", "node-1"); !apierr.IsNotFound(err) {
			t.Errorf("an updated object outlived its lease: %v", err)
		}
	})

	t.Run("what a node may", func(t *testing.T) {
		n := client.New(as{ClientConnInterface: conn, User: "system:node:node-1", Group: authz.GroupNodes})
		for _, name := range []string{"used", "unused"} {
			do[*corev1.Secret](t)(client.Create(ctx, c, &corev1.Secret{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string][]byte{"k": []byte("v")}}))
		}
		do[*corev1.Namespace](t)(client.Create(ctx, c, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "team"}}))
		do[*corev1.Secret](t)(client.Create(ctx, c, &corev1.Secret{Metadata: &metav1.ObjectMeta{Namespace: "team", Name: "used"}}))
		p := pod("reader")
		p.Spec.Containers[0].EnvFrom = []*corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: &corev1.LocalObjectReference{Name: "used"}}}}
		do[*corev1.Pod](t)(client.Create(ctx, c, p))
		secret := func(namespace, name string) error {
			_, err := client.Get[*corev1.Secret](ctx, n, namespace, name)
			return err
		}
		if err := secret("default", "used"); !apierr.IsForbidden(err) {
			t.Errorf("before the pod is bound to it: %v", err)
		}
		do[*client.Result](t)(client.Transact(ctx, c, client.OpBind("default", "reader", "", "node-1")))
		if err := secret("default", "used"); err != nil {
			t.Error(err)
		}
		for _, s := range [][2]string{{"default", "unused"}, {"team", "used"}, {"default", "absent"}} {
			if err := secret(s[0], s[1]); !apierr.IsForbidden(err) {
				t.Errorf("secret %s: %v", s, err)
			}
		}
		if _, _, err := client.List[*corev1.Secret](ctx, n, client.ListOptions{FieldSelector: "metadata.name=used"}); !apierr.IsForbidden(err) {
			t.Errorf("every secret of that name: %v", err)
		}
		// Its pods: the status only, and it learns that they are gone.
		status := do[*corev1.Pod](t)(client.Get[*corev1.Pod](ctx, n, "default", "reader"))
		status.Status.Phase = "Running"
		do[*corev1.Pod](t)(client.UpdateStatus(ctx, n, status))
		do[bool](t)(client.Delete[*corev1.Pod](ctx, n, "default", "reader", client.GracePeriod(0)))
		if _, err := client.UpdateStatus(ctx, n, status); !apierr.IsNotFound(err) {
			t.Errorf("the status of a pod that is gone: %v", err)
		}
		if _, err := client.Delete[*corev1.Pod](ctx, n, "default", "reader"); !apierr.IsNotFound(err) {
			t.Errorf("deleting a pod that is gone: %v", err)
		}
		if err := secret("default", "used"); !apierr.IsForbidden(err) {
			t.Errorf("after the pod is gone: %v", err)
		}
		// Its own node, but neither its taints nor its range.
		me := do[*corev1.Node](t)(client.Create(ctx, n, &corev1.Node{Metadata: &metav1.ObjectMeta{Name: "node-1"}}))
		me.Metadata.Labels = map[string]string{"a": "b"}
		me = do[*corev1.Node](t)(client.Update(ctx, n, me))
		me.Spec = &corev1.NodeSpec{Taints: []*corev1.Taint{{Key: "mine", Effect: "NoSchedule"}}}
		if _, err := client.Update(ctx, n, me); !apierr.IsForbidden(err) {
			t.Errorf("tainting itself: %v", err)
		}
		me.Spec = &corev1.NodeSpec{PodCidr: "10.244.9.0/24", PodCidrs: []string{"10.244.9.0/24"}}
		if _, err := client.Update(ctx, n, me); !apierr.IsForbidden(err) {
			t.Errorf("choosing its range: %v", err)
		}
	})

	t.Run("fences that are none", func(t *testing.T) {
		for _, revision := range []string{"", "0", "x"} {
			fenced := c.WithFence(&apiv1.Fence{Namespace: "kube-system", Name: "absent", CreateRevision: revision})
			if _, err := client.Create(ctx, fenced, configMap("unfenced")); !apierr.IsBadRequest(err) {
				t.Errorf("revision %q: %v", revision, err)
			}
		}
		if _, err := client.Create(ctx, c.WithFence(&apiv1.Fence{Namespace: "kube-system", Name: "absent", CreateRevision: "5"}), configMap("unfenced")); !apierr.IsElectionLost(err) {
			t.Errorf("an election without a leader: %v", err)
		}
	})
}

func at(svc *corev1.Service, ip string) *corev1.Service {
	svc.Spec.ClusterIp = ip
	return svc
}

// TestSmallEtcd has an etcd with etcd's default limits: the apiserver reports that when it starts.
// With the limit configured, it refuses larger transactions and says how to fix them.
func TestSmallEtcd(t *testing.T) {
	etcd := etcdtest.New(t, 1, func(cfg *embed.Config) { cfg.MaxTxnOps = 128 })
	svc := do[*Service](t)(New(DefaultConfig(), kinds.NewScheme(), etcd.Client(), zaptest.NewLogger(t)))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := svc.Run(ctx)
	if err == nil || !strings.Contains(err.Error(), "--max-txn-ops=10240") || !strings.Contains(err.Error(), "storage.maxTxnOps") {
		t.Fatalf("Run: %v, want advice", err)
	}
	cfg := DefaultConfig()
	cfg.Storage.MaxTxnOps = 128
	conn := startConfigured(t, cfg, etcd)
	c := admin(conn)
	waitNamespace(t, c)
	ops := make([]client.Operation, 200)
	for n := range ops {
		ops[n] = client.OpCreate(configMap(fmt.Sprint("t-", n)))
	}
	if _, err := client.Transact(t.Context(), c, ops...); !apierr.IsBadRequest(err) || !strings.Contains(apierr.Message(err), "make fewer at once") {
		t.Errorf("200 operations: %v", err)
	}
	if _, err := client.Transact(t.Context(), c, ops[:120]...); err != nil {
		t.Errorf("120 operations: %v", err)
	}
	all, _, err := client.List[*corev1.ConfigMap](t.Context(), c, client.ListOptions{Namespace: "default"})
	if err != nil || slices.ContainsFunc(all, func(m *corev1.ConfigMap) bool { return m.GetMetadata().GetName() == "t-150" }) || len(all) != 120 {
		t.Errorf("%d objects, %v", len(all), err)
	}
}
