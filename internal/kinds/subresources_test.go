package kinds_test

import (
	"cmp"
	"slices"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/method"
	"github.com/xebec-project/xebec/internal/schema"
	"github.com/xebec-project/xebec/internal/scheme"
	_ "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/endpoints/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/node/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
)

// TestSubresources compares the subresources of kinds with the rights that the methods of the API
// need.
func TestSubresources(t *testing.T) {
	kinds := kinds.NewScheme()
	needed := 0
	method.Each(func(m protoreflect.MethodDescriptor) {
		rules := method.Rules(method.FullName(m))
		group, resource, subresource := authz.ParseResource(rules.GetResource())
		k, ok := kinds.ByResource(group, resource)
		if !ok || subresource == "" {
			return
		}
		needed++
		if !slices.ContainsFunc(k.Subresources, func(s scheme.Subresource) bool {
			return s.Name == subresource && slices.Contains(s.Verbs, rules.GetVerb())
		}) {
			t.Errorf("%s needs %s on %s, which the kind does not have", m.FullName(), rules.GetVerb(), rules.GetResource())
		}
	})
	if needed < 15 {
		t.Errorf("only %d methods need a right to a subresource", needed)
	}
	for _, k := range kinds.Kinds() {
		status := k.New().ProtoReflect().Descriptor().Fields().ByName("status")
		// The status of a later version of Kubernetes is not written yet.
		hasStatus := status != nil && schema.RulesOf(status).GetSince() == ""
		if k.HasStatus() != hasStatus {
			t.Errorf("%s: HasStatus is %v, the message has a status: %v", k, k.HasStatus(), hasStatus)
		}
		if !slices.IsSortedFunc(k.Subresources, func(a, b scheme.Subresource) int { return cmp.Compare(a.Name, b.Name) }) {
			t.Errorf("%s: the subresources are not sorted", k)
		}
	}
}
