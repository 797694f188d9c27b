package resource

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/schema"
	"github.com/xebec-project/xebec/internal/scheme"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

// Modes of the allocation of devices to a request.
const (
	allocateAll   = "All"
	allocateCount = "ExactCount"
)

var (
	resourceClaimRules = rules.For[*resourcev1.ResourceClaim]{
		Name: rules.NameIsSubdomain,
		Defaults: func(r *resourcev1.ResourceClaim) {
			defaultCounts(r.GetSpec().GetDevices())
		},
		Create: func(r *resourcev1.ResourceClaim) {
			if r.Metadata != nil {
				r.Metadata.Generation = 0 // The spec never changes.
			}
		},
		Check: func(r *resourcev1.ResourceClaim, c *rules.Checker) {
			checkDeviceClaim(c, field.NewPath("spec", "devices"), r.GetSpec().GetDevices())
		},
		CheckStatus: checkClaimStatus,
		PrepareStatus: func(now, old *resourcev1.ResourceClaim) {
			schema.Default(now.GetStatus()) // The tolerations of allocated devices have defaults.
			dropDeallocated(now, old)
		},
		Warn: func(r *resourcev1.ResourceClaim) []string {
			return append([]string{"spec: resource claims have no effect yet: no devices are allocated"},
				warnOfRequests(field.NewPath("spec", "devices"), r.GetSpec().GetDevices())...)
		},
	}
	resourceClaimColumns = []scheme.Column{
		column.New("STATE", claimState),
		column.AgeColumn,
	}
)

// claimState tells in words separated by commas what a claim has got.
func claimState(r *resourcev1.ResourceClaim) string {
	var words []string
	deleted, status := r.GetMetadata().GetDeletionTimestamp() != nil, r.GetStatus()
	if deleted {
		words = append(words, "deleted")
	}
	switch {
	case status.GetAllocation() == nil && !deleted:
		words = append(words, "pending")
	case status.GetAllocation() == nil:
	case len(status.GetReservedFor()) > 0:
		words = append(words, "allocated", "reserved")
	default:
		words = append(words, "allocated")
	}
	return strings.Join(words, ",")
}

// defaultCounts lets requests and alternatives that do not say how many devices they want have one.
func defaultCounts(claim *resourcev1.DeviceClaim) {
	for _, r := range claim.GetRequests() {
		if e := r.GetExactly(); e.GetAllocationMode() == allocateCount && e.GetCount() == 0 {
			e.Count = 1
		}
		for _, s := range r.GetFirstAvailable() {
			if s.GetAllocationMode() == allocateCount && s.GetCount() == 0 {
				s.Count = 1
			}
		}
	}
}

func checkDeviceClaim(c *rules.Checker, p *field.Path, claim *resourcev1.DeviceClaim) {
	names := namesOf(claim)
	for i, r := range claim.GetRequests() {
		checkRequest(c, p.Child("requests").Index(i), r)
	}
	for i, constraint := range claim.GetConstraints() {
		at := p.Child("constraints").Index(i)
		names.check(c, at.Child("requests"), constraint.GetRequests())
		switch {
		case constraint.MatchAttribute != nil:
			checkFullName(c, at.Child("matchAttribute"), constraint.GetMatchAttribute())
		case constraint.DistinctAttribute != nil:
			checkFullName(c, at.Child("distinctAttribute"), constraint.GetDistinctAttribute())
		default:
			c.Required(at, "one of matchAttribute and distinctAttribute is required")
		}
	}
	for i, config := range claim.GetConfig() {
		at := p.Child("config").Index(i)
		names.check(c, at.Child("requests"), config.GetRequests())
		checkConfiguration(c, at, config.GetDeviceConfiguration())
	}
}

func checkRequest(c *rules.Checker, p *field.Path, r *resourcev1.DeviceRequest) {
	const oneOf = "exactly one of `exactly` or `firstAvailable` is required"
	exactly, alternatives := r.GetExactly(), r.GetFirstAvailable()
	switch {
	case exactly == nil && len(alternatives) == 0:
		c.Required(p, oneOf)
	case exactly != nil && len(alternatives) > 0:
		c.Invalid(p, field.OmitValueType{}, oneOf+", but multiple fields are set")
	case exactly != nil:
		at := p.Child("exactly")
		checkCount(c, at, exactly.GetAllocationMode(), exactly.GetCount())
		checkTolerations(c, at.Child("tolerations"), exactly.GetTolerations())
		checkAmounts(c, at.Child("capacity", "requests"), exactly.GetCapacity().GetRequests())
	}
	for i, s := range alternatives {
		at := p.Child("firstAvailable").Index(i)
		checkCount(c, at, s.GetAllocationMode(), s.GetCount())
		checkTolerations(c, at.Child("tolerations"), s.GetTolerations())
		checkAmounts(c, at.Child("capacity", "requests"), s.GetCapacity().GetRequests())
	}
}

func checkCount(c *rules.Checker, p *field.Path, mode string, count int64) {
	switch {
	case mode == allocateAll && count != 0:
		c.Invalid(p.Child("count"), count, fmt.Sprintf("must not be specified when allocationMode is '%s'", mode))
	case mode == allocateCount && count <= 0:
		c.Invalid(p.Child("count"), count, "must be greater than zero")
	}
}

func checkTolerations(c *rules.Checker, p *field.Path, tolerations []*resourcev1.DeviceToleration) {
	for i, t := range tolerations {
		if t.GetOperator() == "Exists" && t.GetValue() != "" {
			c.Invalid(p.Index(i).Child("value"), t.GetValue(), "must be empty for operator `Exists`")
		}
	}
}

// warnOfRequests warns of selectors of a claim, at p.
func warnOfRequests(p *field.Path, claim *resourcev1.DeviceClaim) []string {
	for i, r := range claim.GetRequests() {
		at := p.Child("requests").Index(i)
		if w := warnOfSelectors(at.Child("exactly", "selectors"), r.GetExactly().GetSelectors()); w != nil {
			return w
		}
		for j, s := range r.GetFirstAvailable() {
			if w := warnOfSelectors(at.Child("firstAvailable").Index(j).Child("selectors"), s.GetSelectors()); w != nil {
				return w
			}
		}
	}
	return nil
}

// requestNames are the names of the requests of a claim, each with the names of its alternatives.
type requestNames map[string]map[string]bool

func namesOf(claim *resourcev1.DeviceClaim) requestNames {
	names := requestNames{}
	for _, r := range claim.GetRequests() {
		names[r.GetName()] = rules.SetOf(r.GetFirstAvailable(), (*resourcev1.DeviceSubRequest).GetName)
	}
	return names
}

// check checks references to requests, or to alternatives as REQUEST/NAME.
func (n requestNames) check(c *rules.Checker, p *field.Path, references []string) {
	for i, r := range references {
		n.checkOne(c, p.Index(i), r)
	}
}

func (n requestNames) checkOne(c *rules.Checker, p *field.Path, reference string) {
	const unknown = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
	request, alternative, nested := strings.Cut(reference, "/")
	if strings.Contains(alternative, "/") {
		c.Invalid(p, reference, unknown)
		return
	}
	c.Each(p, request, validation.IsDNS1123Label(request))
	if nested {
		c.Each(p, alternative, validation.IsDNS1123Label(alternative))
	}
	alternatives, known := n[request]
	if !known || nested && !alternatives[alternative] {
		c.Invalid(p, reference, unknown)
	}
}
