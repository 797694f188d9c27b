package apierr

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TooManyDisruptions says that a disruption budget does not allow the eviction of a pod now:
// RESOURCE_EXHAUSTED. The cause is a sentence about the budget. A retryAfter of 0 means that it is
// not known when the budget will allow it.
func TooManyDisruptions(budget string, retryAfter time.Duration, cause string) error {
	details := []protoadapt.MessageV1{&errdetails.QuotaFailure{
		Violations: []*errdetails.QuotaFailure_Violation{{Subject: budget, Description: cause}},
	}}
	if retryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
	}
	return New(codes.ResourceExhausted, ReasonDisruptionBudget,
		"Cannot evict pod as it would violate the pod's disruption budget. "+cause, details...)
}

// ManyBudgets says that a pod cannot be evicted because several disruption budgets select it:
// FAILED_PRECONDITION.
func ManyBudgets(one, other string) error {
	return FailedPrecondition(ReasonManyBudgets, one, "%s",
		"This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."+
			fmt.Sprintf(" They are %s and %s.", one, other))
}

// RefusedBudget returns the name of the disruption budget that refused an eviction, and why; false
// when the error is another.
func RefusedBudget(err error) (name, cause string, ok bool) {
	if Reason(err) != ReasonDisruptionBudget {
		return "", "", false
	}
	for _, v := range detail[*errdetails.QuotaFailure](err).GetViolations() {
		return v.GetSubject(), v.GetDescription(), true
	}
	return "", "", false
}
