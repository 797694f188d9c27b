package flowcontrol

import (
	"google.golang.org/protobuf/proto"

	flowcontrolv1 "github.com/xebec-project/xebec/proto/xebec/flowcontrol/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Names of objects that every cluster has, and texts in them.
const (
	exempt   = "exempt"
	catchAll = "catch-all"
	all      = "*"

	// autoUpdate is the annotation of objects whose spec the API server keeps.
	autoUpdate = "apf.kubernetes.io/autoupdate-spec"
)

// MandatoryFlowSchemas returns new objects of the flow schemas that every cluster has.
func MandatoryFlowSchemas() []*flowcontrolv1.FlowSchema {
	schema := func(name string, precedence int32, method *flowcontrolv1.FlowDistinguisherMethod, groups ...string) *flowcontrolv1.FlowSchema {
		every := &flowcontrolv1.PolicyRulesWithSubjects{
			ResourceRules: []*flowcontrolv1.ResourcePolicyRule{{
				Verbs: []string{all}, ApiGroups: []string{all}, Resources: []string{all}, Namespaces: []string{all}, ClusterScope: true,
			}},
			NonResourceRules: []*flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{all}, NonResourceUrls: []string{all}}},
		}
		for _, group := range groups {
			every.Subjects = append(every.Subjects, &flowcontrolv1.Subject{Kind: subjectGroup, Group: &flowcontrolv1.GroupSubject{Name: group}})
		}
		return &flowcontrolv1.FlowSchema{
			Metadata: mandatory(name),
			Spec: &flowcontrolv1.FlowSchemaSpec{
				PriorityLevelConfiguration: &flowcontrolv1.PriorityLevelConfigurationReference{Name: name},
				MatchingPrecedence:         precedence, DistinguisherMethod: method,
				Rules: []*flowcontrolv1.PolicyRulesWithSubjects{every},
			},
		}
	}
	return []*flowcontrolv1.FlowSchema{
		schema(exempt, 1, nil, "system:masters"),
		schema(catchAll, maxPrecedence, &flowcontrolv1.FlowDistinguisherMethod{Type: byUser}, "system:unauthenticated", "system:authenticated"),
	}
}

// MandatoryPriorityLevels returns new objects of the priority levels that every cluster has.
func MandatoryPriorityLevels() []*flowcontrolv1.PriorityLevelConfiguration {
	return []*flowcontrolv1.PriorityLevelConfiguration{
		{
			Metadata: mandatory(catchAll),
			Spec: &flowcontrolv1.PriorityLevelConfigurationSpec{Type: limited, Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
				NominalConcurrencyShares: proto.Int32(5), LendablePercent: proto.Int32(0),
				LimitResponse: &flowcontrolv1.LimitResponse{Type: reject},
			}},
		},
		{
			Metadata: mandatory(exempt),
			Spec: &flowcontrolv1.PriorityLevelConfigurationSpec{Type: exemptType, Exempt: &flowcontrolv1.ExemptPriorityLevelConfiguration{
				NominalConcurrencyShares: proto.Int32(0), LendablePercent: proto.Int32(0),
			}},
		},
	}
}

func mandatory(name string) *metav1.ObjectMeta {
	m := &metav1.ObjectMeta{Name: name}
	MarkKept(m)
	return m
}

// IsKept reports whether an object says that the API server keeps its spec.
func IsKept(m *metav1.ObjectMeta) bool { return m.GetAnnotations()[autoUpdate] == "true" }

// MarkKept makes an object say that the API server keeps its spec.
func MarkKept(m *metav1.ObjectMeta) {
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Annotations[autoUpdate] = "true"
}

// named returns the object of a list that has the name of another one, nil if there is none.
func named[T interface{ GetMetadata() *metav1.ObjectMeta }](list []T, o T) (found T) {
	for _, x := range list {
		if x.GetMetadata().GetName() == o.GetMetadata().GetName() {
			return x
		}
	}
	return found
}
