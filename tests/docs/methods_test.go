package docs

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/method"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/tests/markdown"
)

// methods lists every RPC with its rules, from the options in the protos.
func methods(t *testing.T) string {
	var rows [][]string
	method.Each(func(m protoreflect.MethodDescriptor) {
		r := method.Rules(method.FullName(m))
		right := r.GetVerb() + " " + code(r.GetResource())
		if r.GetResource() == "" {
			right = r.GetVerb() + " on its path"
		}
		var marks []string
		for _, mark := range []struct {
			text string
			set  bool
		}{
			{"writes", r.GetWrite()},
			{"repeated", r.GetIdempotent()},
			{"audited", r.GetAudit() == metav1.AuditLevel_AUDIT_LEVEL_METADATA},
			{"priority of leases", r.GetPriority() == metav1.CallPriority_CALL_PRIORITY_LEASES},
		} {
			if mark.set {
				marks = append(marks, mark.text)
			}
		}
		rows = append(rows, []string{code(strings.TrimPrefix(method.FullName(m), "/xebec.")), right, strings.Join(marks, ", ")})
	})
	slices.SortFunc(rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return markdown.Table([]string{"method, without `/xebec.`", "right", ""}, rows)
}
