package scheduling_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/kinds/scheduling"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	schedulingv1 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1"
)

type class = *schedulingv1.PriorityClass

func TestPriorityClass(t *testing.T) {
	base := func() class {
		return &schedulingv1.PriorityClass{Metadata: &metav1.ObjectMeta{Name: "high"}, Value: 1000}
	}
	system := func(c class) { c.Metadata.Name, c.Value = scheduling.SystemClusterCritical, 2_000_000_000 }
	kindtest.Validate(t, base, []kindtest.Bad[class]{
		{Name: "negative", Edit: func(c class) { c.Value = -2147483648 }},
		{Name: "policy", Edit: func(c class) { c.PreemptionPolicy = proto.String("Always") }, Want: []string{`preemptionPolicy: Unsupported value: "Always"`}},
	})
	for _, tt := range []kindtest.Bad[class]{
		{Name: "above the limit", Edit: func(c class) { c.Value = 1_000_000_001 }, Want: []string{"value: Forbidden: maximum allowed value of a user defined priority is 1000000000"}},
		{Name: "system class", Edit: system},
		{Name: "value of a system class", Edit: func(c class) { system(c); c.Value++ },
			Want: []string{"metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-cluster-critical PriorityClass must be 2000000000"}},
		{Name: "system class as the default", Edit: func(c class) { system(c); c.GlobalDefault = true }, Want: []string{"metadata.name: Forbidden"}},
		{Name: "reserved name", Edit: func(c class) { c.Metadata.Name = "system-web" },
			Want: []string{"metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-web is not a known system priority class"}},
	} {
		t.Run(tt.Name, func(t *testing.T) {
			c := base()
			tt.Edit(c)
			kindtest.Expect(t, kinds.Of(c).ValidateNew(c), tt.Want)
		})
	}
	kindtest.Update(t, base, []kindtest.Edit[class]{
		{Name: "value", Edit: func(c class) { c.Value = 7 }, Want: []string{"value: Forbidden: may not be changed in an update."}},
		{Name: "policy", Edit: func(c class) { c.PreemptionPolicy = proto.String("Never") }, Want: []string{`preemptionPolicy: Invalid value: "Never": field is immutable`}},
		{Name: "description", Edit: func(c class) { c.Description = "for the web" }},
	})
	c := base()
	kinds.Of(c).Default(c)
	kindtest.ExpectCells(t, c, kindtest.Now, map[string]string{"VALUE": "1000", "GLOBAL-DEFAULT": "false", "PREEMPTIONPOLICY": "PreemptLowerPriority"})
	for _, c := range scheduling.SystemClasses() {
		kinds.Of(c).Default(c)
		kindtest.Expect(t, append(kinds.Of(c).Validate(c), kinds.Of(c).ValidateNew(c)...), nil)
	}
}
