package flowcontrol

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	flowcontrolv1 "github.com/xebec-project/xebec/proto/xebec/flowcontrol/v1"
)

const (
	maxPrecedence = 10_000

	byUser = "ByUser"

	subjectGroup          = "Group"
	subjectServiceAccount = "ServiceAccount"
	subjectUser           = "User"

	// dangling is the type of the condition that says whether the priority level is missing.
	dangling = "Dangling"
)

// verbs are the verbs of calls, sorted.
var verbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}

var (
	flowSchemaRules = rules.For[*flowcontrolv1.FlowSchema]{
		Name:  rules.NameIsSubdomain,
		Check: checkFlowSchema,
		CheckStatus: func(now, _ *flowcontrolv1.FlowSchema, c *rules.Checker) {
			checkConditions(c, now.GetStatus().GetConditions())
		},
		Warn: func(*flowcontrolv1.FlowSchema) []string {
			return []string{"spec: flow schemas have no effect yet: the API server has priority levels of its own"}
		},
	}
	flowSchemaColumns = []scheme.Column{
		column.At(".spec.priorityLevelConfiguration.name", column.New("PRIORITYLEVEL", func(s *flowcontrolv1.FlowSchema) string {
			return s.GetSpec().GetPriorityLevelConfiguration().GetName()
		})),
		column.At(".spec.matchingPrecedence", column.New("MATCHINGPRECEDENCE", func(s *flowcontrolv1.FlowSchema) string {
			return strconv.Itoa(int(s.GetSpec().GetMatchingPrecedence()))
		})),
		column.At(".spec.distinguisherMethod.type", column.New("DISTINGUISHERMETHOD", func(s *flowcontrolv1.FlowSchema) string {
			return column.OrNone(s.GetSpec().GetDistinguisherMethod().GetType())
		})),
		column.AgeColumn,
		column.New("MISSINGPL", func(s *flowcontrolv1.FlowSchema) string {
			for _, c := range s.GetStatus().GetConditions() {
				if c.GetType() == dangling {
					return c.GetStatus()
				}
			}
			return "?"
		}),
	}
)

func checkFlowSchema(s *flowcontrolv1.FlowSchema, c *rules.Checker) {
	p, spec, name := field.NewPath("spec"), s.GetSpec(), s.GetMetadata().GetName()
	precedence := spec.GetMatchingPrecedence()
	switch at := p.Child("matchingPrecedence"); {
	case precedence <= 0:
		c.Invalid(at, precedence, "must be a positive value")
	case precedence > maxPrecedence:
		c.Invalid(at, precedence, fmt.Sprintf("must not be greater than %d", maxPrecedence))
	case precedence == 1 && name != exempt:
		c.Invalid(at, precedence, "only the schema named 'exempt' may have matchingPrecedence 1")
	}
	for i, rule := range spec.GetRules() {
		checkRule(c, p.Child("rules").Index(i), rule)
	}
	if own := named(MandatoryFlowSchemas(), s); own != nil && !proto.Equal(own.GetSpec(), spec) {
		c.Invalid(p, field.OmitValueType{}, fmt.Sprintf("spec of '%s' must equal the fixed value", name))
	}
}

func checkRule(c *rules.Checker, p *field.Path, rule *flowcontrolv1.PolicyRulesWithSubjects) {
	for i, s := range rule.GetSubjects() {
		checkSubject(c, p.Child("subjects").Index(i), s)
	}
	if len(rule.GetResourceRules())+len(rule.GetNonResourceRules()) == 0 {
		c.Required(p, "at least one of resourceRules and nonResourceRules has to be non-empty")
	}
	for i, r := range rule.GetResourceRules() {
		checkResourceRule(c, p.Child("resourceRules").Index(i), r)
	}
	for i, r := range rule.GetNonResourceRules() {
		checkNonResourceRule(c, p.Child("nonResourceRules").Index(i), r)
	}
}

// checkSubject checks that of the three fields the one that the kind names is set.
func checkSubject(c *rules.Checker, p *field.Path, s *flowcontrolv1.Subject) {
	for _, f := range []struct {
		kind, name string
		set        bool
	}{
		{subjectUser, "user", s.GetUser() != nil},
		{subjectGroup, "group", s.GetGroup() != nil},
		{subjectServiceAccount, "serviceAccount", s.GetServiceAccount() != nil},
	} {
		switch {
		case s.GetKind() == f.kind && !f.set:
			c.Required(p.Child(f.name), fmt.Sprintf("%s is required when subject kind is '%s'", f.name, f.kind))
		case s.GetKind() != f.kind && f.set && slices.Contains(subjectKinds, s.GetKind()):
			c.Forbidden(p.Child(f.name), fmt.Sprintf("%s is forbidden when subject kind is not '%s'", f.name, f.kind))
		}
	}
	if account := s.GetServiceAccount(); s.GetKind() == subjectServiceAccount && account.GetName() != "" && account.GetName() != all {
		c.Each(p.Child("serviceAccount", "name"), account.GetName(), validation.IsDNS1123Subdomain(account.GetName()))
	}
}

var subjectKinds = []string{subjectGroup, subjectServiceAccount, subjectUser}

func checkResourceRule(c *rules.Checker, p *field.Path, r *flowcontrolv1.ResourcePolicyRule) {
	checkVerbs(c, p.Child("verbs"), r.GetVerbs())
	checkAlone(c, p.Child("apiGroups"), r.GetApiGroups(), "api groups")
	checkAlone(c, p.Child("resources"), r.GetResources(), "resources")
	at := p.Child("namespaces")
	if len(r.GetNamespaces()) == 0 && !r.GetClusterScope() {
		c.Required(at, "resource rules that are not cluster scoped must supply at least one namespace")
	}
	if checkAlone(c, at, r.GetNamespaces(), "namespaces") {
		return
	}
	for i, namespace := range r.GetNamespaces() {
		for _, m := range validation.IsDNS1123Label(namespace) {
			c.Invalid(at.Index(i), namespace, "each member of this list must be '*' or a DNS-1123 label; "+m)
		}
	}
}

func checkNonResourceRule(c *rules.Checker, p *field.Path, r *flowcontrolv1.NonResourcePolicyRule) {
	checkVerbs(c, p.Child("verbs"), r.GetVerbs())
	at := p.Child("nonResourceURLs")
	if checkAlone(c, at, r.GetNonResourceUrls(), "non-resource URLs") {
		return
	}
	for i, url := range r.GetNonResourceUrls() {
		if detail := urlProblem(url); detail != "" {
			c.Invalid(at.Index(i), url, detail)
		}
	}
}

func checkVerbs(c *rules.Checker, p *field.Path, list []string) {
	if !checkAlone(c, p, list, "verbs") && slices.ContainsFunc(list, func(v string) bool { return !slices.Contains(verbs, v) }) {
		c.Add(field.NotSupported(p, strings.Join(list, ", "), verbs))
	}
}

// checkAlone reports whether a list has *, which may have no others beside it.
func checkAlone(c *rules.Checker, p *field.Path, list []string, what string) bool {
	if !slices.Contains(list, all) {
		return false
	}
	if len(list) > 1 {
		c.Invalid(p, list, "if '*' is present, must not specify other "+what)
	}
	return true
}

// urlProblem returns what is wrong with a path that is no resource, empty for nothing.
func urlProblem(url string) string {
	switch {
	case url == "":
		return "must not be empty"
	case url == "/":
		return ""
	case url[0] != '/':
		return "must start with slash"
	case strings.Contains(url, " "):
		return "must not contain white-space"
	case strings.Contains(url, "//"):
		return "must not contain double slash"
	case strings.Contains(strings.TrimSuffix(url, "/*"), "*"):
		return "wildcard can only do suffix matching"
	}
	return ""
}

// checkConditions checks the conditions of a status of either kind: their types are set and differ.
func checkConditions[T interface{ GetType() string }](c *rules.Checker, conditions []T) {
	seen := rules.Names{}
	for i, condition := range conditions {
		p := field.NewPath("status", "conditions").Index(i).Child("type")
		c.Unique(p, seen, condition.GetType())
		if condition.GetType() == "" {
			c.Required(p, "")
		}
	}
}
