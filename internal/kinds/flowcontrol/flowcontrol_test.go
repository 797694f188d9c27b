package flowcontrol_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/flowcontrol"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	flowcontrolv1 "github.com/xebec-project/xebec/proto/xebec/flowcontrol/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

type (
	schema = *flowcontrolv1.FlowSchema
	level  = *flowcontrolv1.PriorityLevelConfiguration
)

func TestFlowSchema(t *testing.T) {
	base := func() schema {
		return &flowcontrolv1.FlowSchema{Metadata: &metav1.ObjectMeta{Name: "batch"}, Spec: &flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: &flowcontrolv1.PriorityLevelConfigurationReference{Name: "low"},
			Rules: []*flowcontrolv1.PolicyRulesWithSubjects{{
				Subjects:         []*flowcontrolv1.Subject{{Kind: "User", User: &flowcontrolv1.UserSubject{Name: "alice"}}},
				ResourceRules:    []*flowcontrolv1.ResourcePolicyRule{{Verbs: []string{"get"}, ApiGroups: []string{""}, Resources: []string{"pods"}, Namespaces: []string{"a"}}},
				NonResourceRules: []*flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"*"}, NonResourceUrls: []string{"/healthz", "/metrics/*"}}},
			}},
		}}
	}
	rule := func(s schema) *flowcontrolv1.ResourcePolicyRule { return s.Spec.Rules[0].ResourceRules[0] }
	urls := func(list ...string) func(schema) {
		return func(s schema) { s.Spec.Rules[0].NonResourceRules[0].NonResourceUrls = list }
	}
	kindtest.Validate(t, base, []kindtest.Bad[schema]{
		{Name: "precedence", Edit: func(s schema) { s.Spec.MatchingPrecedence = 10001 }, Want: []string{"spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"}},
		{Name: "negative", Edit: func(s schema) { s.Spec.MatchingPrecedence = -1 }, Want: []string{"spec.matchingPrecedence: Invalid value: -1: must be a positive value"}},
		{Name: "first", Edit: func(s schema) { s.Spec.MatchingPrecedence = 1 }, Want: []string{"spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt'"}},
		{Name: "no level", Edit: func(s schema) { s.Spec.PriorityLevelConfiguration = nil }, Want: []string{"spec.priorityLevelConfiguration.name: Required value: must reference"}},
		{Name: "method", Edit: func(s schema) { s.Spec.DistinguisherMethod = &flowcontrolv1.FlowDistinguisherMethod{} }, Want: []string{"spec.distinguisherMethod.type: Unsupported value"}},
		{Name: "other subject", Edit: func(s schema) { s.Spec.Rules[0].Subjects[0].Kind = "Group" }, Want: []string{
			"spec.rules[0].subjects[0].group: Required", "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
		}},
		{Name: "verbs", Edit: func(s schema) { rule(s).Verbs = []string{"get", "*"} }, Want: []string{"spec.rules[0].resourceRules[0].verbs: Invalid value"}},
		{Name: "unknown verb", Edit: func(s schema) { rule(s).Verbs = []string{"fetch"} }, Want: []string{"spec.rules[0].resourceRules[0].verbs: Unsupported value"}},
		{Name: "no namespace", Edit: func(s schema) { rule(s).Namespaces = nil }, Want: []string{"spec.rules[0].resourceRules[0].namespaces: Required"}},
		{Name: "cluster scope", Edit: func(s schema) { rule(s).Namespaces, rule(s).ClusterScope = nil, true }},
		{Name: "namespace", Edit: func(s schema) { rule(s).Namespaces = []string{"A"} }, Want: []string{"spec.rules[0].resourceRules[0].namespaces[0]: Invalid value"}},
		{Name: "no rules", Edit: func(s schema) { s.Spec.Rules[0].ResourceRules, s.Spec.Rules[0].NonResourceRules = nil, nil }, Want: []string{"spec.rules[0]: Required"}},
		{Name: "URLs", Edit: urls("healthz", "/a b", "//", "/a*", "", "/*/*"), Want: []string{
			"spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid", "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid",
			"spec.rules[0].nonResourceRules[0].nonResourceURLs[2]: Invalid", "spec.rules[0].nonResourceRules[0].nonResourceURLs[3]: Invalid",
			"spec.rules[0].nonResourceRules[0].nonResourceURLs[4]: Invalid", "spec.rules[0].nonResourceRules[0].nonResourceURLs[5]: Invalid",
		}},
		{Name: "mandatory", Edit: func(s schema) { s.Metadata.Name = "catch-all" }, Want: []string{"spec: Invalid value: spec of 'catch-all' must equal the fixed value"}},
	})
	s := base()
	kinds.Of(s).Default(s)
	kindtest.ExpectCells(t, s, kindtest.Now, map[string]string{"PRIORITYLEVEL": "low", "MATCHINGPRECEDENCE": "1000", "DISTINGUISHERMETHOD": "<none>", "MISSINGPL": "?"})
}

func TestPriorityLevelConfiguration(t *testing.T) {
	base := func() level {
		return &flowcontrolv1.PriorityLevelConfiguration{Metadata: &metav1.ObjectMeta{Name: "low"}, Spec: &flowcontrolv1.PriorityLevelConfigurationSpec{
			Type: "Limited", Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
				LimitResponse: &flowcontrolv1.LimitResponse{Type: "Queue", Queuing: &flowcontrolv1.QueuingConfiguration{}},
			},
		}}
	}
	queuing := func(l level) *flowcontrolv1.QueuingConfiguration { return l.Spec.Limited.LimitResponse.Queuing }
	kindtest.Validate(t, base, []kindtest.Bad[level]{
		{Name: "hand", Edit: func(l level) { queuing(l).Queues = 2 }, Want: []string{"spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (2)"}},
		{Name: "hash", Edit: func(l level) { queuing(l).Queues = 10_000_000 }, Want: []string{"spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits"}},
		{Name: "queues", Edit: func(l level) { queuing(l).Queues, queuing(l).HandSize = 10_000_001, 1 },
			Want: []string{"spec.limited.limitResponse.queuing.queues: Invalid value: 10000001: must not be greater than 10000000"}},
		{Name: "reject", Edit: func(l level) { l.Spec.Limited.LimitResponse.Type = "Reject" }, Want: []string{"spec.limited.limitResponse.queuing: Forbidden"}},
		{Name: "no queues", Edit: func(l level) { l.Spec.Limited.LimitResponse.Queuing = nil }, Want: []string{"spec.limited.limitResponse.queuing: Required"}},
		{Name: "no limits", Edit: func(l level) { l.Spec.Limited = nil }, Want: []string{"spec.limited: Required"}},
		{Name: "exempt", Edit: func(l level) { l.Spec.Type = "Exempt" }, Want: []string{"spec.limited: Forbidden", `spec.type: Invalid value: "Exempt": must be 'Exempt' if and only if`}},
		{Name: "percent", Edit: func(l level) { l.Spec.Limited.LendablePercent = proto.Int32(101) }, Want: []string{"spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100"}},
	})
	l := base()
	kinds.Of(l).Default(l)
	kindtest.ExpectCells(t, l, kindtest.Now, map[string]string{
		"TYPE": "Limited", "NOMINALCONCURRENCYSHARES": "30", "QUEUES": "64", "HANDSIZE": "8", "QUEUELENGTHLIMIT": "50",
	})
}

func TestMandatoryObjectsAreValid(t *testing.T) {
	for _, s := range flowcontrol.MandatoryFlowSchemas() {
		kinds.Of(s).Default(s)
		kindtest.Expect(t, kinds.Of(s).Validate(s), nil)
	}
	for _, l := range flowcontrol.MandatoryPriorityLevels() {
		kinds.Of(l).Default(l)
		kindtest.Expect(t, kinds.Of(l).Validate(l), nil)
		if l.GetMetadata().GetName() == "exempt" {
			l.Spec.Exempt.LendablePercent = proto.Int32(7)
			kindtest.Expect(t, kinds.Of(l).Validate(l), nil)
		}
	}
}
