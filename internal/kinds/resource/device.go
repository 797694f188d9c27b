package resource

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

// maxAttributes is how many attributes and capacities a device may have together.
const maxAttributes = 32

// checkDevice checks a device of a slice; ownNodes says that each device of it chooses its nodes.
func checkDevice(c *rules.Checker, p *field.Path, d *resourcev1.Device, ownNodes bool) {
	if n := len(d.GetAttributes()) + len(d.GetCapacity()); n > maxAttributes {
		c.Invalid(p, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", maxAttributes))
	}
	for _, name := range slices.Sorted(maps.Keys(d.GetAttributes())) {
		at := p.Child("attributes")
		checkQualifiedName(c, at, name)
		checkAttribute(c, at.Key(name), d.GetAttributes()[name])
	}
	for _, name := range slices.Sorted(maps.Keys(d.GetCapacity())) {
		at := p.Child("capacity")
		checkQualifiedName(c, at, name)
		checkCapacity(c, at.Key(name), d.GetCapacity()[name], d.GetAllowMultipleAllocations())
	}
	for i, consumption := range d.GetConsumesCounters() {
		checkCounters(c, p.Child("consumesCounters").Index(i).Child("counters"), consumption.GetCounters())
	}
	checkNodesOfDevice(c, p, d, ownNodes)
	checkBindingConditions(c, p, d.GetBindingConditions(), d.GetBindingFailureConditions())
}

// checkNodesOfDevice checks that a device says in one way on which nodes it can be used, if devices
// of its slice choose their own nodes, and not at all otherwise.
func checkNodesOfDevice(c *rules.Checker, p *field.Path, d *resourcev1.Device, ownNodes bool) {
	const when = " `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
	const oneOf = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when" + when
	if !ownNodes {
		if d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil {
			c.Invalid(p, field.OmitValueType{}, "`nodeName`, `nodeSelector` and `allNodes` can only be set if"+when)
		}
		return
	}
	switch set := nodeChoice(c, p, d.GetNodeName(), d.GetNodeSelector(), d.AllNodes); len(set) {
	case 0:
		c.Required(p, oneOf)
	case 1:
	default:
		c.Invalid(p, "{"+strings.Join(set, ", ")+"}", oneOf)
	}
}

func checkAttribute(c *rules.Checker, p *field.Path, a *resourcev1.DeviceAttribute) {
	set := 0
	for _, isSet := range []bool{a.Int != nil, a.Bool != nil, a.String_ != nil, a.Version != nil} {
		if isSet {
			set++
		}
	}
	if set != 1 {
		c.Invalid(p, "", "exactly one value must be specified")
	}
	if a.Version != nil && !semanticVersion.MatchString(a.GetVersion()) {
		c.Invalid(p.Child("version"), a.GetVersion(), "must be a string compatible with semver.org spec 2.0.0")
	}
}

// semanticVersion matches versions of semver.org 2.0.0: three numbers, a pre-release and a build.
var semanticVersion = func() *regexp.Regexp {
	const (
		number     = `(?:0|[1-9][0-9]*)`
		word       = `[0-9]*[a-zA-Z-][0-9a-zA-Z-]*`
		preRelease = `(?:` + number + `|` + word + `)`
		build      = `[0-9a-zA-Z-]+`
	)
	dotted := func(part string) string { return part + `(?:\.` + part + `)*` }
	core := number + `\.` + number + `\.` + number
	return regexp.MustCompile(`^` + core + `(?:-` + dotted(preRelease) + `)?(?:\+` + dotted(build) + `)?$`)
}()
