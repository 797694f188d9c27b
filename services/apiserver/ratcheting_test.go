package apiserver

import (
	"testing"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// TestStoredValuesThatRulesRefuse changes an object that was stored before a rule was added: what
// is wrong with it may stay as it is, and nothing may become wrong besides.
func TestStoredValuesThatRulesRefuse(t *testing.T) {
	ctx := t.Context()
	svc, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1))
	c := admin(conn)
	block := func(cidr string) *networkingv1.NetworkPolicyPeer {
		return &networkingv1.NetworkPolicyPeer{IpBlock: &networkingv1.IPBlock{Cidr: cidr}}
	}
	stored := &networkingv1.NetworkPolicy{
		Metadata: &metav1.ObjectMeta{Name: "old", Namespace: "default", Uid: "u", Finalizers: []string{"example.com/keep"}},
		Spec: &networkingv1.NetworkPolicySpec{
			PodSelector: &metav1.LabelSelector{}, PolicyTypes: []string{"Ingress"},
			Ingress: []*networkingv1.NetworkPolicyIngressRule{{From: []*networkingv1.NetworkPolicyPeer{block("172.17.0.1/16")}}},
		},
	}
	k := kinds.Of(stored)
	if len(k.Validate(stored)) == 0 {
		t.Fatal("the object is valid: the test needs one that a rule refuses")
	}
	b := do[[]byte](t)(registry.Encode(k, stored))
	key := registry.KeyOf(k, "default", "old")
	if _, err := svc.store.Commit(ctx, storage.Txn{Writes: []storage.Write{{Key: key, Bytes: b, Expect: storage.ExpectAbsent}}}); err != nil {
		t.Fatal(err)
	}
	get := func() *networkingv1.NetworkPolicy {
		t.Helper()
		return client.Clone(do[*networkingv1.NetworkPolicy](t)(client.Get[*networkingv1.NetworkPolicy](ctx, c, "default", "old")))
	}

	changed := get()
	changed.Metadata.Labels = map[string]string{"a": "b"}
	do[*networkingv1.NetworkPolicy](t)(client.Update(ctx, c, changed))

	for name, change := range map[string]func(*networkingv1.NetworkPolicy){
		"another wrong value": func(p *networkingv1.NetworkPolicy) { p.Spec.Ingress[0].From[0] = block("172.18.0.1/16") },
		"one more": func(p *networkingv1.NetworkPolicy) {
			p.Spec.Ingress[0].From = append(p.Spec.Ingress[0].From, block("172.17.0.1/16"))
		},
	} {
		wrong := get()
		change(wrong)
		if _, err := client.Update(ctx, c, wrong); apierr.Reason(err) != apierr.ReasonInvalid {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}

	do[*networkingv1.NetworkPolicy](t)(client.Patch[*networkingv1.NetworkPolicy](ctx, c, "default", "old", []byte(`{"metadata":{"finalizers":null}}`)))
	right := get()
	right.Spec.Ingress[0].From[0] = block("172.17.0.0/16")
	do[*networkingv1.NetworkPolicy](t)(client.Update(ctx, c, right))
	if _, err := client.Update(ctx, c, changed); err == nil {
		t.Error("the wrong value came back")
	}
}
