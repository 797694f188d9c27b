package storage

import (
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	storagev1 "github.com/xebec-project/xebec/proto/xebec/storage/v1"
)

// Bounds of the validity of a token that a driver gets, in seconds.
const (
	minTokenSeconds = 10 * 60
	maxTokenSeconds = 1 << 32
)

var lifecycleModes = []string{"Persistent", "Ephemeral"}

var (
	csiDriverRules = rules.For[*storagev1.CSIDriver]{
		Name: rules.NameIsSubdomain,
		Defaults: func(d *storagev1.CSIDriver) {
			if d.Spec != nil && len(d.Spec.GetVolumeLifecycleModes()) == 0 {
				d.Spec.VolumeLifecycleModes = lifecycleModes[:1:1]
			}
		},
		Check:       checkCSIDriver,
		CheckUpdate: checkCSIDriverUpdate,
		Warn: func(*storagev1.CSIDriver) []string {
			return []string{"spec: CSI drivers have no effect yet: nodes do not call them"}
		},
	}
	csiDriverColumns = []scheme.Column{
		boolColumn("ATTACHREQUIRED", (*storagev1.CSIDriverSpec).GetAttachRequired),
		boolColumn("PODINFOONMOUNT", (*storagev1.CSIDriverSpec).GetPodInfoOnMount),
		boolColumn("STORAGECAPACITY", (*storagev1.CSIDriverSpec).GetStorageCapacity),
		column.New("TOKENREQUESTS", func(d *storagev1.CSIDriver) string {
			var audiences []string
			for _, r := range d.GetSpec().GetTokenRequests() {
				audiences = append(audiences, r.GetAudience())
			}
			if len(audiences) == 0 {
				return "<unset>"
			}
			return strings.Join(audiences, ",")
		}),
		boolColumn("REQUIRESREPUBLISH", (*storagev1.CSIDriverSpec).GetRequiresRepublish),
		column.New("MODES", func(d *storagev1.CSIDriver) string {
			return column.OrNone(d.GetSpec().GetVolumeLifecycleModes()...)
		}),
		column.AgeColumn,
	}
)

func boolColumn(name string, value func(*storagev1.CSIDriverSpec) bool) scheme.Column {
	return column.New(name, func(d *storagev1.CSIDriver) string { return strconv.FormatBool(value(d.GetSpec())) })
}

func checkCSIDriver(d *storagev1.CSIDriver, c *rules.Checker) {
	p, spec := field.NewPath("spec"), d.GetSpec()
	audiences := rules.Names{}
	for i, r := range spec.GetTokenRequests() {
		at := p.Child("tokenRequests").Index(i)
		if audiences[r.GetAudience()] {
			c.Add(field.Duplicate(at.Child("audience"), r.GetAudience()))
			continue
		}
		audiences[r.GetAudience()] = true
		switch seconds := r.GetExpirationSeconds(); {
		case r.ExpirationSeconds == nil:
		case seconds < minTokenSeconds:
			c.Invalid(at.Child("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes")
		case seconds > maxTokenSeconds:
			c.Invalid(at.Child("expirationSeconds"), seconds, "may not specify a duration larger than 2^32 seconds")
		}
	}
	for _, mode := range spec.GetVolumeLifecycleModes() {
		if !slices.Contains(lifecycleModes, mode) {
			c.Add(field.NotSupported(p.Child("volumeLifecycleModes"), mode, lifecycleModes))
		}
	}
	if spec != nil && spec.ServiceAccountTokenInSecrets != nil && len(spec.GetTokenRequests()) == 0 {
		c.Invalid(p.Child("serviceAccountTokenInSecrets"), spec.GetServiceAccountTokenInSecrets(),
			"serviceAccountTokenInSecrets is set but no tokenRequests are specified")
	}
}

func checkCSIDriverUpdate(now, old *storagev1.CSIDriver, c *rules.Checker) {
	p := field.NewPath("spec")
	rules.Unchanged(c, p.Child("attachedRequired"), now.GetSpec().GetAttachRequired(), old.GetSpec().GetAttachRequired())
	if !slices.Equal(now.GetSpec().GetVolumeLifecycleModes(), old.GetSpec().GetVolumeLifecycleModes()) {
		c.Invalid(p.Child("volumeLifecycleModes"), now.GetSpec().GetVolumeLifecycleModes(), rules.Immutable)
	}
}
