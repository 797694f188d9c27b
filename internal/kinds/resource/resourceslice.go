package resource

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

const (
	// maxAdvancedDevices is how many devices a slice may have when one has taints or consumes
	// counters.
	maxAdvancedDevices = 64
	// maxCounters is how many counters a set may have, and a device may consume of one.
	maxCounters = 32
)

var (
	resourceSliceRules = rules.For[*resourcev1.ResourceSlice]{
		Name:       rules.NameIsSubdomain,
		Defaults:   defaultTaints,
		Check:      checkResourceSlice,
		Generation: true,
		Warn: func(s *resourcev1.ResourceSlice) []string {
			warnings := []string{"spec: resource slices have no effect yet: no devices are allocated"}
			if driver := s.GetSpec().GetDriver(); driver != strings.ToLower(driver) {
				warnings = append(warnings, fmt.Sprintf("spec.driver: driver names should be lowercase; %q contains uppercase characters", driver))
			}
			return warnings
		},
	}
	resourceSliceColumns = []scheme.Column{
		column.At(".spec.nodeName", column.New("NODE", func(s *resourcev1.ResourceSlice) string { return s.GetSpec().GetNodeName() })),
		column.At(".spec.driver", column.New("DRIVER", func(s *resourcev1.ResourceSlice) string { return s.GetSpec().GetDriver() })),
		column.At(".spec.pool.name", column.New("POOL", func(s *resourcev1.ResourceSlice) string { return s.GetSpec().GetPool().GetName() })),
		column.AgeColumn,
	}
)

// defaultTaints notes when taints without a time were added: now.
func defaultTaints(s *resourcev1.ResourceSlice) {
	for _, d := range s.GetSpec().GetDevices() {
		for _, t := range d.GetTaints() {
			if t.GetTimeAdded() == nil {
				t.TimeAdded = timestamppb.New(time.Now().Truncate(time.Second))
			}
		}
	}
}

func checkResourceSlice(s *resourcev1.ResourceSlice, c *rules.Checker) {
	p, spec := field.NewPath("spec"), s.GetSpec()
	if spec == nil {
		return // Defaults set it.
	}
	checkDriver(c, p.Child("driver"), spec.GetDriver())
	checkPool(c, p.Child("pool", "name"), spec.GetPool().GetName())
	checkNodesOfSlice(c, p, spec)
	if len(spec.GetSharedCounters()) > 0 && len(spec.GetDevices()) > 0 {
		c.Invalid(p, "", "only one of `sharedCounters` or `devices` is allowed")
	}
	advanced := false
	for i, d := range spec.GetDevices() {
		checkDevice(c, p.Child("devices").Index(i), d, spec.GetPerDeviceNodeSelection())
		advanced = advanced || len(d.GetTaints()) > 0 || len(d.GetConsumesCounters()) > 0
	}
	if n := len(spec.GetDevices()); advanced && n > maxAdvancedDevices {
		c.Add(field.TooMany(p.Child("devices"), n, maxAdvancedDevices))
	}
	for i, set := range spec.GetSharedCounters() {
		checkCounters(c, p.Child("sharedCounters").Index(i).Child("counters"), set.GetCounters())
	}
}

// checkNodesOfSlice checks that a slice says in one way on which nodes its devices can be used.
func checkNodesOfSlice(c *rules.Checker, p *field.Path, spec *resourcev1.ResourceSliceSpec) {
	const oneOf = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	set := nodeChoice(c, p, spec.GetNodeName(), spec.GetNodeSelector(), spec.AllNodes)
	if terms := spec.GetNodeSelector().GetNodeSelectorTerms(); spec.GetNodeSelector() != nil && len(terms) != 1 {
		c.Invalid(p.Child("nodeSelector", "nodeSelectorTerms"), field.OmitValueType{}, "must have exactly one node selector term")
	}
	if each := spec.PerDeviceNodeSelection; each != nil && *each {
		set = append(set, "`perDeviceNodeSelection`")
	} else if each != nil {
		c.Invalid(p.Child("perDeviceNodeSelection"), false, "must be either unset or set to true")
	}
	switch len(set) {
	case 0:
		c.Required(p, oneOf)
	case 1:
	default:
		c.Invalid(p, "{"+strings.Join(set, ", ")+"}", oneOf+", but multiple fields are set")
	}
}

// nodeChoice checks the fields by which slices and devices choose nodes, and returns the names of
// those that are set.
func nodeChoice(c *rules.Checker, p *field.Path, name string, selector *corev1.NodeSelector, all *bool) []string {
	var set []string
	if name != "" {
		set = append(set, "`nodeName`")
	}
	if selector != nil {
		set = append(set, "`nodeSelector`")
		core.CheckNodeSelector(c, p.Child("nodeSelector"), selector)
	}
	if all != nil && *all {
		set = append(set, "`allNodes`")
	} else if all != nil {
		c.Invalid(p.Child("allNodes"), false, "must be either unset or set to true")
	}
	return set
}

func checkCounters(c *rules.Checker, p *field.Path, counters map[string]*resourcev1.Counter) {
	if len(counters) > maxCounters {
		c.Add(field.TooMany(p, len(counters), maxCounters))
	}
	for key, counter := range counters {
		amount(c, p.Key(key).Child("value"), counter.GetValue())
	}
}
