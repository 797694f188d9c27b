package apiserver

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/authz"
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
