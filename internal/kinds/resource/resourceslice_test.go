package resource_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

type (
	slice  = *resourcev1.ResourceSlice
	device = *resourcev1.Device
)

func quantity(text string) *metav1.Quantity { return &metav1.Quantity{String_: text} }

func newSlice() slice {
	return &resourcev1.ResourceSlice{Metadata: &metav1.ObjectMeta{Name: "node-a"}, Spec: &resourcev1.ResourceSliceSpec{
		Driver: "gpu.example.com", NodeName: proto.String("node-a"),
		Pool:    &resourcev1.ResourcePool{Name: "node-a/rack-1", ResourceSliceCount: 1},
		Devices: []*resourcev1.Device{{Name: "gpu-0"}, {Name: "gpu-1"}},
	}}
}

func selector(terms int) *corev1.NodeSelector {
	s := &corev1.NodeSelector{}
	for range terms {
		s.NodeSelectorTerms = append(s.NodeSelectorTerms, &corev1.NodeSelectorTerm{
			MatchExpressions: []*corev1.NodeSelectorRequirement{{Key: "rack", Operator: "Exists"}},
		})
	}
	return s
}

func TestResourceSlice(t *testing.T) {
	spec := func(edit func(*resourcev1.ResourceSliceSpec)) func(slice) { return func(s slice) { edit(s.Spec) } }
	sets := func(names ...string) []*resourcev1.CounterSet {
		var out []*resourcev1.CounterSet
		for _, name := range names {
			out = append(out, &resourcev1.CounterSet{Name: name, Counters: map[string]*resourcev1.Counter{"memory": {Value: quantity("1Gi")}}})
		}
		return out
	}
	many := func(n int) []*resourcev1.Device {
		var out []*resourcev1.Device
		for i := range n {
			out = append(out, &resourcev1.Device{Name: fmt.Sprintf("gpu-%d", i)})
		}
		return out
	}
	kindtest.Validate(t, newSlice, []kindtest.Bad[slice]{
		{Name: "empty", Edit: func(s slice) { s.Spec = nil },
			Want: []string{"spec.driver: Required value", "spec.pool.name: Required value", "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero", "spec: Required value: exactly one of"}},
		{Name: "nodes in two ways", Edit: spec(func(s *resourcev1.ResourceSliceSpec) { s.AllNodes = proto.Bool(true) }),
			Want: []string{"spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of"}},
		{Name: "two terms", Edit: spec(func(s *resourcev1.ResourceSliceSpec) { s.NodeName, s.NodeSelector = nil, selector(2) }),
			Want: []string{"spec.nodeSelector.nodeSelectorTerms: Invalid value: must have exactly one"}},
		{Name: "false", Edit: spec(func(s *resourcev1.ResourceSliceSpec) {
			s.AllNodes, s.PerDeviceNodeSelection = proto.Bool(false), proto.Bool(false)
		}), Want: []string{"spec.allNodes: Invalid value: false: must be either unset or set to true", "spec.perDeviceNodeSelection: Invalid value: false"}},
		{Name: "counters and devices", Edit: spec(func(s *resourcev1.ResourceSliceSpec) { s.SharedCounters = sets("a") }),
			Want: []string{"spec: Invalid value: \"\": only one of `sharedCounters` or `devices`"}},
		{Name: "counters", Edit: spec(func(s *resourcev1.ResourceSliceSpec) {
			s.Devices, s.SharedCounters = nil, append(sets("a", "a", "B"), &resourcev1.CounterSet{Name: "c"})
		}), Want: []string{`spec.sharedCounters[1].name: Duplicate value: "a"`, `spec.sharedCounters[2].name: Invalid value: "B"`, "spec.sharedCounters[3].counters: Required value"}},
		{Name: "devices", Edit: spec(func(s *resourcev1.ResourceSliceSpec) { s.Devices = many(129) }), Want: []string{"spec.devices: Too many: 129: must have at most 128"}},
		{Name: "devices with taints", Edit: spec(func(s *resourcev1.ResourceSliceSpec) {
			s.Devices = many(65)
			s.Devices[64].Taints = []*resourcev1.DeviceTaint{{Key: "broken", Effect: "None"}}
		}), Want: []string{"spec.devices: Too many: 65: must have at most 64"}},
		{Name: "devices without taints", Edit: spec(func(s *resourcev1.ResourceSliceSpec) { s.Devices = many(128) })},
	})
	kindtest.Update(t, newSlice, []kindtest.Edit[slice]{
		{Name: "identity", Edit: spec(func(s *resourcev1.ResourceSliceSpec) {
			s.Driver, s.Pool.Name, s.NodeName = "b.example.com", "b", proto.String("node-b")
		}), Want: []string{"spec.driver: Invalid value", "spec.pool.name: Invalid value", "spec.nodeName: Invalid value"}},
		{Name: "devices", Edit: spec(func(s *resourcev1.ResourceSliceSpec) { s.Devices = nil })},
	})
	s := newSlice()
	kindtest.ExpectCells(t, s, kindtest.Now, map[string]string{"NODE": "node-a", "DRIVER": "gpu.example.com", "POOL": "node-a/rack-1"})
}

func TestDevices(t *testing.T) {
	one := func(edit func(device)) func(slice) { return func(s slice) { edit(s.Spec.Devices[0]) } }
	each := func(edit func(device)) func(slice) {
		return func(s slice) {
			s.Spec.NodeName, s.Spec.PerDeviceNodeSelection = nil, proto.Bool(true)
			s.Spec.Devices[1].AllNodes = proto.Bool(true)
			edit(s.Spec.Devices[0])
		}
	}
	attribute := func(name string, a *resourcev1.DeviceAttribute) func(slice) {
		return one(func(d device) { d.Attributes = map[string]*resourcev1.DeviceAttribute{name: a} })
	}
	value := func() *resourcev1.DeviceAttribute { return &resourcev1.DeviceAttribute{Int: proto.Int64(1)} }
	const at, values = "spec.devices[0]", "spec.devices[0].attributes"
	kindtest.Validate(t, newSlice, []kindtest.Bad[slice]{
		{Name: "nodes of a device", Edit: one(func(d device) { d.NodeName = proto.String("a") }),
			Want: []string{at + ": Invalid value: `nodeName`, `nodeSelector` and `allNodes` can only be set if"}},
		{Name: "no nodes", Edit: each(func(device) {}), Want: []string{at + ": Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes`"}},
		{Name: "nodes in two ways", Edit: each(func(d device) { d.NodeName, d.NodeSelector = proto.String("a"), selector(1) }),
			Want: []string{at + ": Invalid value: \"{`nodeName`, `nodeSelector`}\""}},
		{Name: "nodes", Edit: each(func(d device) { d.NodeSelector = selector(2) })},
		{Name: "no value", Edit: attribute("a", &resourcev1.DeviceAttribute{}), Want: []string{values + "[a]: Invalid value: \"\": exactly one value"}},
		{Name: "two values", Edit: attribute("a", &resourcev1.DeviceAttribute{Int: proto.Int64(1), Bool: proto.Bool(true)}), Want: []string{values + "[a]: Invalid value: \"\": exactly one value"}},
		{Name: "list", Edit: attribute("a", &resourcev1.DeviceAttribute{Ints: []int64{1}}), Want: []string{values + "[a].ints: Unsupported value", values + "[a]: Invalid value"}},
		{Name: "text", Edit: attribute("a", &resourcev1.DeviceAttribute{String_: proto.String(strings.Repeat("x", 65))}), Want: []string{values + "[a].string: Too long"}},
		{Name: "version", Edit: attribute("a", &resourcev1.DeviceAttribute{Version: proto.String("1.02.3")}), Want: []string{values + `[a].version: Invalid value: "1.02.3"`}},
		{Name: "good version", Edit: attribute("example.com/a", &resourcev1.DeviceAttribute{Version: proto.String("1.0.0-0.a-b.7x+001")})},
		{Name: "name", Edit: attribute("a-b", value()), Want: []string{values + `: Invalid value: "a-b"`}},
		{Name: "long name", Edit: attribute(strings.Repeat("a", 33), value()), Want: []string{values + ": Too long: may not be more than 32"}},
		{Name: "domain", Edit: attribute("a_b/c", value()), Want: []string{values + `: Invalid value: "a_b"`}},
		{Name: "no name", Edit: attribute("example.com/", value()), Want: []string{values + `: Invalid value: "": the name must not be empty`}},
		{Name: "too many", Edit: one(func(d device) {
			d.Attributes, d.Capacity = map[string]*resourcev1.DeviceAttribute{}, map[string]*resourcev1.DeviceCapacity{"a": {Value: quantity("1")}}
			for i := range 32 {
				d.Attributes[fmt.Sprintf("a%d", i)] = value()
			}
		}), Want: []string{at + ": Invalid value: 33: the total number of attributes and capacities must not exceed 32"}},
		{Name: "taints", Edit: one(func(d device) {
			d.Taints = []*resourcev1.DeviceTaint{{Effect: "None"}, {Key: "a"}, {Key: "a", Value: "b!", Effect: "PreferNoSchedule"}}
		}), Want: []string{at + ".taints[0].key: Invalid value", at + ".taints[0].key: Invalid value", at + ".taints[1].effect: Required value", at + ".taints[2].effect: Unsupported value", at + ".taints[2].value: Invalid value"}},
		{Name: "consumption", Edit: one(func(d device) {
			d.ConsumesCounters = []*resourcev1.DeviceCounterConsumption{{CounterSet: "a", Counters: map[string]*resourcev1.Counter{"B": {}}}, {CounterSet: "a"}}
		}), Want: []string{at + `.consumesCounters[0].counters: Invalid value: "B"`, at + ".consumesCounters[1].counterSet: Duplicate value", at + ".consumesCounters[1].counters: Required value"}},
	})
	s := newSlice()
	s.Spec.Devices[0].Taints = []*resourcev1.DeviceTaint{{Key: "a", Effect: "None"}}
	kinds.Of(s).Default(s)
	if added := s.Spec.Devices[0].Taints[0].GetTimeAdded(); added == nil || added.GetNanos() != 0 {
		t.Errorf("the taint was added at %v", added)
	}
}

func TestCapacityOfSharedDevices(t *testing.T) {
	type policy = *resourcev1.CapacityRequestPolicy
	values := func(byDefault string, amounts ...string) policy {
		p := &resourcev1.CapacityRequestPolicy{Default: quantity(byDefault)}
		for _, a := range amounts {
			p.ValidValues = append(p.ValidValues, quantity(a))
		}
		return p
	}
	between := func(byDefault, least, greatest, step string) policy {
		return &resourcev1.CapacityRequestPolicy{Default: quantity(byDefault), ValidRange: &resourcev1.CapacityRequestPolicyRange{
			Min: quantity(least), Max: quantity(greatest), Step: quantity(step),
		}}
	}
	const at = "spec.devices[0].capacity[memory].requestPolicy"
	var tests []kindtest.Bad[slice]
	for name, tt := range map[string]struct {
		policy policy
		want   []string
	}{
		"values":           {values("2", "1", "2", "8"), nil},
		"range":            {between("3", "1", "7", "2"), nil},
		"both":             {&resourcev1.CapacityRequestPolicy{ValidValues: values("1", "1").ValidValues, ValidRange: between("1", "1", "2", "1").ValidRange}, []string{at + ": Forbidden: exactly one policy"}},
		"values and none":  {&resourcev1.CapacityRequestPolicy{ValidValues: values("1", "1").ValidValues}, []string{at + ".default: Required value"}},
		"range and none":   {&resourcev1.CapacityRequestPolicy{ValidRange: between("1", "1", "2", "1").ValidRange}, []string{at + ".default: Required value"}},
		"default":          {values("3", "1", "2"), []string{at + `.validValues: Invalid value: "3": default value is not valid`}},
		"order":            {values("1", "2", "1"), []string{at + `.validValues[1]: Invalid value: "1": values must be sorted`}},
		"twice":            {values("1", "1", "1"), []string{at + `.validValues[1]: Duplicate value: "1"`}},
		"more than whole":  {values("1", "1", "9"), []string{at + `.validValues[1]: Invalid value: "9": option is larger`}},
		"eleven":           {values("1", strings.Split("1 2 3 4 5 6 7 8 8 8 8", " ")...), []string{at + ".validValues: Too many: 11"}},
		"no least":         {&resourcev1.CapacityRequestPolicy{Default: quantity("1"), ValidRange: &resourcev1.CapacityRequestPolicyRange{}}, []string{at + ".validRange.min: Required value"}},
		"default is less":  {between("0", "1", "7", "1"), []string{at + `.validRange.min: Invalid value: "0": default is less than min: 1`}},
		"default is more":  {between("8", "1", "7", "1"), []string{at + `.validRange.max: Invalid value: "8": default is more than max: 7`}},
		"least is more":    {between("5", "5", "4", "1"), []string{at + ".validRange.max: Invalid value: \"5\": default is more", at + ".validRange.max: Invalid value: \"5\": min is larger"}},
		"greatest is more": {between("1", "1", "9", "1"), []string{at + `.validRange.max: Invalid value: "9": max is larger than capacity value: 8`}},
		"step":             {between("2", "1", "4", "2"), []string{at + `.validRange.step: Invalid value: "2": value is not a multiple`, at + `.validRange.step: Invalid value: "4": value is not a multiple`}},
		"step is more":     {between("1", "1", "1", "8"), []string{at + `.validRange.step: Invalid value: "8": one step 9 is larger`}},
		"step is zero":     {between("1", "1", "4", "0"), []string{at + `.validRange.step: Invalid value: "0": must not be zero`}},
		"no quantity":      {values("1", "1", "x"), []string{at + `.validValues[1]: Invalid value: "0": values must be sorted`, at + `.validValues[1]: Invalid value: "x"`}},
	} {
		tests = append(tests, kindtest.Bad[slice]{Name: name, Want: tt.want, Edit: func(s slice) {
			d := s.Spec.Devices[0]
			d.AllowMultipleAllocations = proto.Bool(true)
			d.Capacity = map[string]*resourcev1.DeviceCapacity{"memory": {Value: quantity("8"), RequestPolicy: tt.policy}}
		}})
	}
	tests = append(tests, kindtest.Bad[slice]{Name: "not shared", Want: []string{at + ": Forbidden: allowMultipleAllocations must be true"}, Edit: func(s slice) {
		s.Spec.Devices[0].Capacity = map[string]*resourcev1.DeviceCapacity{"memory": {Value: quantity("8"), RequestPolicy: values("1", "1")}}
	}})
	kindtest.Validate(t, newSlice, tests)
}

func TestGenerationOfResourceSlice(t *testing.T) {
	s := newSlice()
	k := kinds.Of(s)
	k.PrepareCreate(s)
	same, changed := proto.CloneOf(s), proto.CloneOf(s)
	changed.Spec.Devices = nil
	k.PrepareUpdate(same, s)
	k.PrepareUpdate(changed, s)
	if s.Metadata.Generation != 1 || same.Metadata.Generation != 1 || changed.Metadata.Generation != 2 {
		t.Errorf("generations are %d, %d and %d, want 1, 1 and 2", s.Metadata.Generation, same.Metadata.Generation, changed.Metadata.Generation)
	}
}

func TestDeviceClass(t *testing.T) {
	type class = *resourcev1.DeviceClass
	base := func() class {
		return &resourcev1.DeviceClass{Metadata: &metav1.ObjectMeta{Name: "gpu"}, Spec: &resourcev1.DeviceClassSpec{
			Selectors:            []*resourcev1.DeviceSelector{{Cel: &resourcev1.CELDeviceSelector{Expression: "true"}}},
			Config:               []*resourcev1.DeviceClassConfiguration{{DeviceConfiguration: parameters("{}")}},
			ExtendedResourceName: proto.String("example.com/gpu"),
		}}
	}
	tests := []kindtest.Bad[class]{
		{Name: "empty", Edit: func(d class) { d.Spec = nil }},
		{Name: "no configuration", Edit: func(d class) { d.Spec.Config[0].DeviceConfiguration = nil }, Want: []string{"spec.config[0].opaque: Required value"}},
		{Name: "driver", Edit: func(d class) { d.Spec.Config[0].DeviceConfiguration.Opaque.Driver = "a_b" }, Want: []string{`spec.config[0].opaque.driver: Invalid value: "a_b"`}},
		{Name: "selectors", Edit: func(d class) { d.Spec.Selectors = make([]*resourcev1.DeviceSelector, 33) }, Want: []string{"spec.selectors: Too many: 33"}},
	}
	for _, name := range []string{"", "cpu", "kubernetes.io/gpu", "requests.example.com/gpu", "example.com/a b"} {
		tests = append(tests, kindtest.Bad[class]{Name: "resource " + name, Edit: func(d class) { d.Spec.ExtendedResourceName = proto.String(name) },
			Want: []string{fmt.Sprintf("spec.extendedResourceName: Invalid value: %q: must be a valid extended resource name", name)}})
	}
	kindtest.Validate(t, base, tests)
	d := base()
	if w := kinds.Of(d).Warnings(d); len(w) != 2 || !strings.HasPrefix(w[1], "spec.selectors[0].cel.expression: CEL expressions are not checked yet") {
		t.Errorf("warnings are %q", w)
	}
}
