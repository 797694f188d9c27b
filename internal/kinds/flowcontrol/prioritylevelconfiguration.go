package flowcontrol

import (
	"fmt"
	"math"
	"strconv"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	flowcontrolv1 "github.com/xebec-project/xebec/proto/xebec/flowcontrol/v1"
)

const (
	limited    = "Limited"
	exemptType = "Exempt"

	queue  = "Queue"
	reject = "Reject"

	maxQueues = 10_000_000
	// maxHashBits is how many bits of a flow's hash choose its hand of queues at most.
	maxHashBits = 60

	// zeroShares is an annotation of objects in version v1beta3.
	zeroShares = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares"
)

type priorityLevel = *flowcontrolv1.PriorityLevelConfiguration

var (
	priorityLevelRules = rules.For[priorityLevel]{
		Name:        rules.NameIsSubdomain,
		Check:       checkPriorityLevel,
		CheckStatus: func(now, _ priorityLevel, c *rules.Checker) { checkConditions(c, now.GetStatus().GetConditions()) },
		Warn: func(priorityLevel) []string {
			return []string{"spec: these priority levels have no effect yet: the API server has others of its own"}
		},
	}
	priorityLevelColumns = []scheme.Column{
		column.At(".spec.type", column.New("TYPE", func(l priorityLevel) string { return l.GetSpec().GetType() })),
		column.At(".spec.limited.nominalConcurrencyShares", column.New("NOMINALCONCURRENCYSHARES", func(l priorityLevel) string {
			if l.GetSpec().GetLimited() == nil {
				return column.None
			}
			return strconv.Itoa(int(l.GetSpec().GetLimited().GetNominalConcurrencyShares()))
		})),
		queueColumn("QUEUES", "queues", (*flowcontrolv1.QueuingConfiguration).GetQueues),
		queueColumn("HANDSIZE", "handSize", (*flowcontrolv1.QueuingConfiguration).GetHandSize),
		queueColumn("QUEUELENGTHLIMIT", "queueLengthLimit", (*flowcontrolv1.QueuingConfiguration).GetQueueLengthLimit),
		column.AgeColumn,
	}
)

func queueColumn(name, field string, value func(*flowcontrolv1.QueuingConfiguration) int32) scheme.Column {
	return column.At(".spec.limited.limitResponse.queuing."+field, column.New(name, func(l priorityLevel) string {
		queuing := l.GetSpec().GetLimited().GetLimitResponse().GetQueuing()
		if queuing == nil {
			return column.None
		}
		return strconv.Itoa(int(value(queuing)))
	}))
}

func checkPriorityLevel(l priorityLevel, c *rules.Checker) {
	if _, ok := l.GetMetadata().GetAnnotations()[zeroShares]; ok {
		c.Forbidden(rules.MetadataPath.Child("annotations"), fmt.Sprintf("annotation '%s' is forbidden", zeroShares))
	}
	p, spec, name := field.NewPath("spec"), l.GetSpec(), l.GetMetadata().GetName()
	if (name == exempt) != (spec.GetType() == exemptType) {
		c.Invalid(p.Child("type"), spec.GetType(), "must be 'Exempt' if and only if `name` is 'exempt'")
	}
	switch spec.GetType() {
	case exemptType:
		if spec.GetLimited() != nil {
			c.Forbidden(p.Child("limited"), "must be nil if the type is not Limited")
		}
	case limited:
		if spec.GetExempt() != nil {
			c.Forbidden(p.Child("exempt"), "must be nil if the type is Limited")
		}
		if spec.GetLimited() == nil {
			c.Required(p.Child("limited"), "must not be empty when type is Limited")
		} else {
			checkResponse(c, p.Child("limited", "limitResponse"), spec.GetLimited().GetLimitResponse())
		}
	}
	checkMandatory(c, p, l)
}

// checkMandatory checks that a level that every cluster has is as it has to be. The settings of the
// level exempt may change.
func checkMandatory(c *rules.Checker, p *field.Path, l priorityLevel) {
	own := named(MandatoryPriorityLevels(), l)
	if own == nil {
		return
	}
	except := ""
	if l.GetMetadata().GetName() == exempt {
		own.Spec.Exempt = l.GetSpec().GetExempt()
		except = " except the 'spec.exempt' field"
	}
	if !proto.Equal(own.GetSpec(), l.GetSpec()) {
		c.Invalid(p, field.OmitValueType{}, fmt.Sprintf("spec of '%s'%s must equal the fixed value", l.GetMetadata().GetName(), except))
	}
}

func checkResponse(c *rules.Checker, p *field.Path, response *flowcontrolv1.LimitResponse) {
	p = p.Child("queuing")
	queuing := response.GetQueuing()
	switch {
	case response.GetType() == reject && queuing != nil:
		c.Forbidden(p, "must be nil if limited.limitResponse.type is not Limited")
	case response.GetType() == queue && queuing == nil:
		c.Required(p, "must not be empty if limited.limitResponse.type is Limited")
	case response.GetType() == queue:
		checkQueuing(c, p, queuing)
	}
}

func checkQueuing(c *rules.Checker, p *field.Path, q *flowcontrolv1.QueuingConfiguration) {
	const positive = "must be positive"
	if q.GetQueueLengthLimit() <= 0 {
		c.Invalid(p.Child("queueLengthLimit"), q.GetQueueLengthLimit(), positive)
	}
	switch at := p.Child("queues"); {
	case q.GetQueues() <= 0:
		c.Invalid(at, q.GetQueues(), positive)
	case q.GetQueues() > maxQueues:
		c.Invalid(at, q.GetQueues(), fmt.Sprintf("must not be greater than %d", maxQueues))
	}
	switch at := p.Child("handSize"); {
	case q.GetHandSize() <= 0:
		c.Invalid(at, q.GetHandSize(), positive)
	case q.GetHandSize() > q.GetQueues():
		c.Invalid(at, q.GetHandSize(), fmt.Sprintf("should not be greater than queues (%d)", q.GetQueues()))
	case hashBits(q) > maxHashBits:
		c.Invalid(at, q.GetHandSize(), fmt.Sprintf("required entropy bits of deckSize %d and handSize %d should not be greater than %d",
			q.GetQueues(), q.GetHandSize(), maxHashBits))
	}
}

// hashBits is how many bits choose a hand of queues.
func hashBits(q *flowcontrolv1.QueuingConfiguration) int {
	return int(math.Ceil(math.Log2(float64(q.GetQueues())) * float64(q.GetHandSize())))
}
