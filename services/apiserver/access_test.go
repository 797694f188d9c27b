package apiserver

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestAccounts(t *testing.T) {
	cfg := DefaultConfig()
	cfg.ServiceAccounts = AccountsConfig{Readers: []string{"default/watcher"}}
	conn := startConfigured(t, cfg, etcdtest.New(t, 1))
	c := admin(conn)
	ctx := t.Context()
	waitNamespace(t, c)

	t.Run("a namespace comes with its default account", func(t *testing.T) {
		do[*corev1.Namespace](t)(client.Create(ctx, c, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "shop"}}))
		account := do[*corev1.ServiceAccount](t)(client.Get[*corev1.ServiceAccount](ctx, c, "shop", "default"))
		if account.GetMetadata().GetUid() == "" || account.GetMetadata().GetCreationTimestamp() == nil {
			t.Errorf("made incomplete: %v", account)
		}
	})
	t.Run("a pod needs its account", func(t *testing.T) {
		p := pod("needs")
		p.Spec.ServiceAccountName = "none"
		_, err := client.Create(ctx, c, p)
		if !apierr.IsForbidden(err) || !strings.Contains(err.Error(), `error looking up service account default/none: serviceaccount "none" not found`) {
			t.Errorf("without the account: %v", err)
		}
		do[*corev1.ServiceAccount](t)(client.Create(ctx, c, &corev1.ServiceAccount{Metadata: &metav1.ObjectMeta{Name: "none", Namespace: "default"}}))
		do[*corev1.Pod](t)(client.Create(ctx, c, p))
		if made := do[*corev1.Pod](t)(client.Create(ctx, c, pod("plain"))); made.GetSpec().GetServiceAccountName() != "default" {
			t.Errorf("runs as %q", made.GetSpec().GetServiceAccountName())
		}
	})
	t.Run("a pod gets what its account gives", func(t *testing.T) {
		do[*corev1.ServiceAccount](t)(client.Create(ctx, c, &corev1.ServiceAccount{
			Metadata:         &metav1.ObjectMeta{Name: "puller", Namespace: "default"},
			ImagePullSecrets: []*corev1.LocalObjectReference{{Name: "registry"}}, AutomountServiceAccountToken: proto.Bool(false),
		}))
		made := do[*corev1.Pod](t)(client.Create(ctx, c, pod("mounts"))).GetSpec()
		if len(made.GetVolumes()) != 1 || !strings.HasPrefix(made.GetVolumes()[0].GetName(), core.AccountVolumePrefix) ||
			made.GetContainers()[0].GetVolumeMounts()[0].GetMountPath() != core.AccountMountPath {
			t.Errorf("a plain pod has volumes %v, mounts %v", made.GetVolumes(), made.GetContainers()[0].GetVolumeMounts())
		}
		p := pod("pulls")
		p.Spec.ServiceAccountName = "puller"
		made = do[*corev1.Pod](t)(client.Create(ctx, c, p)).GetSpec()
		if len(made.GetVolumes()) != 0 || len(made.GetImagePullSecrets()) != 1 || made.GetImagePullSecrets()[0].GetName() != "registry" {
			t.Errorf("of an account that mounts nothing and pulls: %v", made)
		}
		p = pod("pulls-itself")
		p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = "puller", proto.Bool(true)
		p.Spec.ImagePullSecrets = []*corev1.LocalObjectReference{{Name: "own"}}
		made = do[*corev1.Pod](t)(client.Create(ctx, c, p)).GetSpec()
		if len(made.GetVolumes()) != 1 || made.GetImagePullSecrets()[0].GetName() != "own" {
			t.Errorf("of a pod that says it itself: %v", made)
		}
		applier := client.New(as{ClientConnInterface: conn, User: "admin", Group: authz.GroupAdmins}, client.WithFieldManager("applier"))
		// What was applied can be applied again: the volume is none of the applier's.
		for _, want := range []apiv1.ApplyResult{apiv1.ApplyResult_APPLY_RESULT_CREATED, apiv1.ApplyResult_APPLY_RESULT_UNCHANGED} {
			applied, result, err := client.Apply(ctx, applier, pod("applied"))
			if err != nil || result != want || len(applied.GetSpec().GetVolumes()) != 1 {
				t.Errorf("applied: %v, %v, volumes %v", result, err, applied.GetSpec().GetVolumes())
			}
		}
	})
	t.Run("a default account that was deleted", func(t *testing.T) {
		do[*corev1.Namespace](t)(client.Create(ctx, c, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "bare"}}))
		if _, err := client.Delete[*corev1.ServiceAccount](ctx, c, "bare", "default"); err != nil {
			t.Fatal(err)
		}
		p := pod("waits")
		p.Metadata.Namespace = "bare"
		if made := do[*corev1.Pod](t)(client.Create(ctx, c, p)); len(made.GetSpec().GetVolumes()) != 1 {
			t.Errorf("the pod has volumes %v", made.GetSpec().GetVolumes())
		}
		// Sooner than by itself: the pod asked for it.
		limit := time.After(accountsInterval / 2)
		for {
			_, err := client.Get[*corev1.ServiceAccount](ctx, c, "bare", "default")
			if err == nil {
				break
			}
			select {
			case <-limit:
				t.Fatalf("the account is not made again: %v", err)
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	t.Run("may I", func(t *testing.T) {
		account := func(name string) as {
			return as{ClientConnInterface: conn, User: authz.AccountUser("default", name), Group: authz.GroupAccounts}
		}
		boss := as{ClientConnInterface: conn, User: "alice", Group: authz.GroupAdmins}
		for _, tt := range []struct {
			name    string
			by      as
			req     *authv1.CheckAccessRequest
			code    codes.Code
			allowed bool
			reason  string
		}{
			{"an administrator", boss, &authv1.CheckAccessRequest{Verb: "delete", Kind: "deploy", Namespace: "default"}, codes.OK, true, ""},
			{"about an account", boss, &authv1.CheckAccessRequest{Verb: "list", Kind: "pods", User: authz.AccountUser("default", "watcher"), Groups: []string{authz.GroupAccounts}}, codes.OK, true, ""},
			{"about a node", boss, &authv1.CheckAccessRequest{Verb: "update-status", Kind: "pods", User: "system:node:n", Groups: []string{authz.GroupNodes}, NodeName: "n"}, codes.OK, true, ""},
			{"a reader", account("watcher"), &authv1.CheckAccessRequest{Verb: "get", Kind: "po", Namespace: "shop", Name: "x"}, codes.OK, true, ""},
			{"a reader of secrets", account("watcher"), &authv1.CheckAccessRequest{Verb: "get", Kind: "secrets"}, codes.OK, false, "only reads"},
			{"an account", account("web"), &authv1.CheckAccessRequest{Verb: "get", Kind: "pods"}, codes.OK, false, "has no rights"},
			{"about another", account("web"), &authv1.CheckAccessRequest{Verb: "get", Kind: "pods", User: "alice"}, codes.PermissionDenied, false, ""},
			{"no such kind", boss, &authv1.CheckAccessRequest{Verb: "get", Kind: "ships"}, codes.InvalidArgument, false, ""},
			{"no such verb", boss, &authv1.CheckAccessRequest{Verb: "sink", Kind: "pods"}, codes.InvalidArgument, false, ""},
		} {
			resp, err := authv1.NewAccessServiceClient(tt.by).CheckAccess(ctx, tt.req)
			if apierr.Code(err) != tt.code || resp.GetAllowed() != tt.allowed || !strings.Contains(resp.GetReason(), tt.reason) {
				t.Errorf("%s: %v, %v", tt.name, resp, err)
			}
		}
		// What it says is what happens.
		if _, _, err := client.List[*corev1.Pod](ctx, client.New(account("watcher")), client.ListOptions{}); err != nil {
			t.Errorf("a reader lists: %v", err)
		}
		if _, err := client.Create(ctx, client.New(account("watcher")), configMap("mine")); !apierr.IsForbidden(err) {
			t.Errorf("a reader creates: %v", err)
		}
	})
	for _, bad := range []string{"web", "/web", "default/", "a/b/c"} {
		cfg.ServiceAccounts.Admins = []string{bad}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "serviceAccounts.admins") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
