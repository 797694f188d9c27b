package resource_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

type claim = *resourcev1.ResourceClaim

// request asks for devices of a class.
func request(name string) *resourcev1.DeviceRequest {
	return &resourcev1.DeviceRequest{Name: name, Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}}
}

// alternatives asks for devices of the class in one of several ways.
func alternatives(name string, names ...string) *resourcev1.DeviceRequest {
	r := &resourcev1.DeviceRequest{Name: name}
	for _, n := range names {
		r.FirstAvailable = append(r.FirstAvailable, &resourcev1.DeviceSubRequest{Name: n, DeviceClassName: "gpu"})
	}
	return r
}

func parameters(raw string) *resourcev1.DeviceConfiguration {
	return &resourcev1.DeviceConfiguration{Opaque: &resourcev1.OpaqueDeviceConfiguration{
		Driver: "gpu.example.com", Parameters: &metav1.RawExtension{Raw: []byte(raw)},
	}}
}

func newClaim() claim {
	return &resourcev1.ResourceClaim{Metadata: kindtest.Meta("pair"), Spec: &resourcev1.ResourceClaimSpec{Devices: &resourcev1.DeviceClaim{
		Requests:    []*resourcev1.DeviceRequest{request("fast"), alternatives("any", "large", "small")},
		Constraints: []*resourcev1.DeviceConstraint{{Requests: []string{"fast", "any/large"}, MatchAttribute: proto.String("example.com/numa")}},
		Config:      []*resourcev1.DeviceClaimConfiguration{{Requests: []string{"any"}, DeviceConfiguration: parameters("{}")}},
	}}}
}

func TestResourceClaim(t *testing.T) {
	devices := func(edit func(*resourcev1.DeviceClaim)) func(claim) {
		return func(c claim) { edit(c.Spec.Devices) }
	}
	exactly := func(edit func(*resourcev1.ExactDeviceRequest)) func(claim) {
		return func(c claim) { edit(c.Spec.Devices.Requests[0].Exactly) }
	}
	constraint := func(edit func(*resourcev1.DeviceConstraint)) func(claim) {
		return func(c claim) { edit(c.Spec.Devices.Constraints[0]) }
	}
	config := func(c *resourcev1.DeviceConfiguration) func(claim) {
		return func(r claim) { r.Spec.Devices.Config[0].DeviceConfiguration = c }
	}
	const at, first = "spec.devices.requests", "spec.devices.requests[0].exactly."
	kindtest.Validate(t, newClaim, []kindtest.Bad[claim]{
		{Name: "nothing asked for", Edit: func(c claim) { c.Spec = nil }},
		{Name: "neither", Edit: devices(func(d *resourcev1.DeviceClaim) { d.Requests[0].Exactly = nil }),
			Want: []string{at + "[0]: Required value: exactly one of `exactly` or `firstAvailable`"}},
		{Name: "both", Edit: devices(func(d *resourcev1.DeviceClaim) { d.Requests[1].Exactly = d.Requests[0].Exactly }),
			Want: []string{at + "[1]: Invalid value: exactly one of"}},
		{Name: "names", Edit: devices(func(d *resourcev1.DeviceClaim) {
			d.Requests = append(d.Requests, request("fast"), request("Bad"), request(""), alternatives("more", "a", "a"))
		}), Want: []string{at + `[2].name: Duplicate value: "fast"`, at + `[3].name: Invalid value: "Bad"`, at + `[4].name: Invalid value: ""`,
			at + `[5].firstAvailable[1].name: Duplicate value: "a"`}},
		{Name: "class", Edit: exactly(func(e *resourcev1.ExactDeviceRequest) { e.DeviceClassName = "" }), Want: []string{first + "deviceClassName: Required value"}},
		{Name: "mode", Edit: exactly(func(e *resourcev1.ExactDeviceRequest) { e.AllocationMode = "Some" }), Want: []string{first + `allocationMode: Unsupported value: "Some"`}},
		{Name: "count", Edit: exactly(func(e *resourcev1.ExactDeviceRequest) { e.Count = -1 }), Want: []string{first + "count: Invalid value: -1: must be greater than zero"}},
		{Name: "count of all", Edit: exactly(func(e *resourcev1.ExactDeviceRequest) { e.AllocationMode, e.Count = "All", 1 }),
			Want: []string{first + "count: Invalid value: 1: must not be specified when allocationMode is 'All'"}},
		{Name: "selectors", Edit: exactly(func(e *resourcev1.ExactDeviceRequest) {
			e.Selectors = []*resourcev1.DeviceSelector{{}, {Cel: &resourcev1.CELDeviceSelector{}}, {Cel: &resourcev1.CELDeviceSelector{Expression: strings.Repeat("x", 10<<10+1)}}}
		}), Want: []string{first + "selectors[0].cel: Required value", first + "selectors[1].cel.expression: Required value", first + "selectors[2].cel.expression: Too long"}},
		{Name: "tolerations", Edit: exactly(func(e *resourcev1.ExactDeviceRequest) {
			e.Tolerations = []*resourcev1.DeviceToleration{{Operator: "Exists", Value: "a"}, {Value: "a b"}, {Effect: "PreferNoSchedule"}}
		}), Want: []string{first + "tolerations[0].value: Invalid value: \"a\": must be empty for operator `Exists`", first + `tolerations[1].value: Invalid value: "a b"`,
			first + "tolerations[2].effect: Unsupported value"}},
		{Name: "unknown requests", Edit: constraint(func(c *resourcev1.DeviceConstraint) {
			c.Requests = []string{"any/huge", "slow", "fast/a", "any/large/x"}
		}),
			Want: []string{`spec.devices.constraints[0].requests[0]: Invalid value: "any/huge": must be the name`, `spec.devices.constraints[0].requests[1]: Invalid value: "slow"`,
				`spec.devices.constraints[0].requests[2]: Invalid value: "fast/a"`, `spec.devices.constraints[0].requests[3]: Invalid value: "any/large/x"`}},
		{Name: "no attribute", Edit: constraint(func(c *resourcev1.DeviceConstraint) { c.MatchAttribute = nil }), Want: []string{"spec.devices.constraints[0]: Required value"}},
		{Name: "attribute", Edit: constraint(func(c *resourcev1.DeviceConstraint) { c.MatchAttribute = proto.String("numa") }),
			Want: []string{`spec.devices.constraints[0].matchAttribute: Invalid value: "numa": a fully qualified name`}},
		{Name: "attribute's parts", Edit: constraint(func(c *resourcev1.DeviceConstraint) { c.MatchAttribute = proto.String("/1a") }),
			Want: []string{`spec.devices.constraints[0].matchAttribute: Invalid value: "": the domain must not be empty`, `spec.devices.constraints[0].matchAttribute: Invalid value: "1a"`}},
		{Name: "no configuration", Edit: config(nil), Want: []string{"spec.devices.config[0].opaque: Required value"}},
		{Name: "a list", Edit: config(parameters("[]")), Want: []string{"spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object"}},
		{Name: "null", Edit: config(parameters("null")), Want: []string{"spec.devices.config[0].opaque.parameters: Required value"}},
		{Name: "no JSON", Edit: config(parameters("{")), Want: []string{"spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": error parsing"}},
		{Name: "large", Edit: config(parameters(`{"a":"` + strings.Repeat("x", 10<<10) + `"}`)), Want: []string{"spec.devices.config[0].opaque.parameters: Too long"}},
	})
	kindtest.Update(t, newClaim, []kindtest.Edit[claim]{
		{Name: "spec", Edit: func(c claim) { c.Spec.Devices.Requests[0].Exactly.Count = 2 }, Want: []string{"spec: Invalid value"}},
		{Name: "labels", Edit: func(c claim) { c.Metadata.Labels = map[string]string{"a": "b"} }},
	})
}

func TestDefaultsOfResourceClaim(t *testing.T) {
	c := newClaim()
	c.Spec.Devices.Requests[1].FirstAvailable[0].AllocationMode = "All"
	c.Spec.Devices.Requests[0].Exactly.Tolerations = []*resourcev1.DeviceToleration{{Key: "a"}}
	kinds.Of(c).PrepareCreate(c)
	kinds.Of(c).Default(c)
	e, all, small := c.Spec.Devices.Requests[0].Exactly, c.Spec.Devices.Requests[1].FirstAvailable[0], c.Spec.Devices.Requests[1].FirstAvailable[1]
	if e.AllocationMode != "ExactCount" || e.Count != 1 || e.Tolerations[0].Operator != "Equal" {
		t.Errorf("the request is %v", e)
	}
	if all.Count != 0 || small.AllocationMode != "ExactCount" || small.Count != 1 {
		t.Errorf("the alternatives are %v and %v", all, small)
	}
	if c.Metadata.Generation != 0 {
		t.Errorf("the generation is %d, though the spec never changes", c.Metadata.Generation)
	}
}

// result is a device that was allocated to the request fast.
func result(device string) *resourcev1.DeviceRequestAllocationResult {
	return &resourcev1.DeviceRequestAllocationResult{Request: "fast", Driver: "gpu.example.com", Pool: "node-a/rack-1", Device: device}
}

func allocation(results ...*resourcev1.DeviceRequestAllocationResult) *resourcev1.AllocationResult {
	return &resourcev1.AllocationResult{Devices: &resourcev1.DeviceAllocationResult{Results: results}}
}

func deviceStatus(device string) *resourcev1.AllocatedDeviceStatus {
	return &resourcev1.AllocatedDeviceStatus{Driver: "gpu.example.com", Pool: "node-a/rack-1", Device: device}
}

func consumer(uid string) *resourcev1.ResourceClaimConsumerReference {
	return &resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: "web", Uid: uid}
}

// writeStatus updates the status of a stored claim, and returns the claim with the errors.
func writeStatus(old claim, status *resourcev1.ResourceClaimStatus) (claim, []error) {
	k := kinds.Of(old)
	k.Default(old)
	now := proto.CloneOf(old)
	now.Status = status
	k.PrepareStatusUpdate(now, old)
	var errs []error
	for _, e := range k.ValidateStatusUpdate(now, old) {
		errs = append(errs, e)
	}
	return now, errs
}

func TestStatusOfResourceClaim(t *testing.T) {
	fine := func() *resourcev1.ResourceClaimStatus {
		return &resourcev1.ResourceClaimStatus{
			Allocation:  allocation(result("gpu-0"), result("gpu-1")),
			ReservedFor: []*resourcev1.ResourceClaimConsumerReference{consumer("u-1")},
			Devices:     []*resourcev1.AllocatedDeviceStatus{deviceStatus("gpu-0")},
		}
	}
	type status = *resourcev1.ResourceClaimStatus
	const results = "status.allocation.devices.results[0]"
	for name, tt := range map[string]struct {
		edit func(status)
		want []string
	}{
		"fine":                      {func(status) {}, nil},
		"nothing allocated":         {func(s status) { s.Allocation, s.ReservedFor, s.Devices = &resourcev1.AllocationResult{}, nil, nil }, nil},
		"reserved and not allotted": {func(s status) { s.Allocation, s.Devices = nil, nil }, []string{"status.reservedFor: Forbidden: may not be specified"}},
		"consumer twice": {func(s status) { s.ReservedFor = append(s.ReservedFor, consumer("u-1")) },
			[]string{`status.reservedFor[1].uid: Duplicate value: "u-1"`}},
		"consumer without uid": {func(s status) { s.ReservedFor[0].Uid = "" }, []string{"status.reservedFor[0].uid: Required value"}},
		"unknown request":      {func(s status) { s.Allocation.Devices.Results[0].Request = "slow" }, []string{results + `.request: Invalid value: "slow"`}},
		"driver": {func(s status) { s.Allocation.Devices.Results[1].Driver = "a_b" },
			[]string{`status.allocation.devices.results[1].driver: Invalid value: "a_b"`}},
		"pool": {func(s status) { s.Allocation.Devices.Results[1].Pool = "a//b" },
			[]string{`status.allocation.devices.results[1].pool: Invalid value: ""`}},
		"share": {func(s status) {
			s.Allocation.Devices.Results[1].ShareId = proto.String("9F2B4D5C-0000-4000-8000-000000000001")
		},
			[]string{"status.allocation.devices.results[1].shareID: Invalid value"}},
		"binding": {func(s status) { s.Allocation.Devices.Results[0].BindingConditions = []string{"a", "a"} },
			[]string{results + ".bindingConditions[1]: Duplicate value", results + ".bindingFailureConditions: Invalid value"}},
		"binding overlaps": {func(s status) {
			s.Allocation.Devices.Results[0].BindingConditions, s.Allocation.Devices.Results[0].BindingFailureConditions = []string{"a"}, []string{"a"}
		}, []string{results + `.bindingFailureConditions[0]: Invalid value: "a": bindingFailureConditions must not overlap`}},
		"source": {func(s status) {
			s.Allocation.Devices.Config = []*resourcev1.DeviceAllocationConfiguration{{DeviceConfiguration: parameters("{}")}}
		},
			[]string{"status.allocation.devices.config[0].source: Required value"}},
		"device not allocated": {func(s status) { s.Devices[0].Device = "gpu-7" }, []string{"status.devices[0]: Invalid value: must be an allocated device"}},
		"device twice":         {func(s status) { s.Devices = append(s.Devices, deviceStatus("gpu-0")) }, []string{"status.devices[1]: Duplicate value"}},
		"address": {func(s status) { s.Devices[0].NetworkData = &resourcev1.NetworkDeviceData{Ips: []string{"10.0.0.1"}} },
			[]string{`status.devices[0].networkData.ips[0]: Invalid value: "10.0.0.1"`}},
		"condition": {func(s status) {
			s.Devices[0].Conditions = []*metav1.Condition{{Type: "Ready", Status: "True", Reason: "Up"}}
		},
			[]string{"status.devices[0].conditions[0].lastTransitionTime: Required value"}},
		"data": {func(s status) { s.Devices[0].Data = &metav1.RawExtension{Raw: []byte("1")} }, []string{"status.devices[0].data: Invalid value"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := fine()
			tt.edit(s)
			_, errs := writeStatus(newClaim(), s)
			if len(errs) != len(tt.want) {
				t.Fatalf("errors are %v, want %q", errs, tt.want)
			}
			for i, err := range errs {
				if !strings.HasPrefix(err.Error(), tt.want[i]) {
					t.Errorf("error is %q, want %q", err, tt.want[i])
				}
			}
		})
	}

	stored := newClaim()
	stored.Status = fine()
	changed := fine()
	changed.Allocation.Devices.Results = changed.Allocation.Devices.Results[:1]
	if _, errs := writeStatus(stored, changed); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "status.allocation: Invalid value: field is immutable") {
		t.Errorf("an allocation that changes: %v", errs)
	}
	freed, errs := writeStatus(stored, &resourcev1.ResourceClaimStatus{Devices: fine().Devices})
	if len(errs) != 0 || len(freed.Status.Devices) != 0 {
		t.Errorf("a claim that is deallocated: %v, with the devices %v", errs, freed.Status.Devices)
	}
	stored.Metadata.DeletionTimestamp = timestamppb.New(kindtest.Now)
	more := fine()
	more.ReservedFor = append(more.ReservedFor, consumer("u-2"))
	if _, errs := writeStatus(stored, more); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "status.reservedFor: Forbidden: new entries") {
		t.Errorf("a new consumer of a claim that is being deleted: %v", errs)
	}
}

func TestStateOfResourceClaim(t *testing.T) {
	c := newClaim()
	state := func(want string) {
		t.Helper()
		kindtest.ExpectCells(t, c, kindtest.Now, map[string]string{"STATE": want})
	}
	state("pending")
	c.Status = &resourcev1.ResourceClaimStatus{Allocation: allocation()}
	state("allocated")
	c.Status.ReservedFor = []*resourcev1.ResourceClaimConsumerReference{consumer("u-1")}
	state("allocated,reserved")
	c.Metadata.DeletionTimestamp = timestamppb.New(kindtest.Now)
	state("deleted,allocated,reserved")
	c.Status = nil
	state("deleted")
}

func TestWarningsOfResourceClaim(t *testing.T) {
	c := newClaim()
	if w := kinds.Of(c).Warnings(c); len(w) != 1 || !strings.Contains(w[0], "no effect yet") {
		t.Errorf("warnings are %q", w)
	}
	c.Spec.Devices.Requests[1].FirstAvailable[1].Selectors = []*resourcev1.DeviceSelector{{Cel: &resourcev1.CELDeviceSelector{Expression: "1 +"}}}
	const want = "spec.devices.requests[1].firstAvailable[1].selectors[0].cel.expression: CEL expressions are not checked yet"
	if w := kinds.Of(c).Warnings(c); len(w) != 2 || !strings.HasPrefix(w[1], want) {
		t.Errorf("warnings are %q", w)
	}
}

func TestResourceClaimTemplate(t *testing.T) {
	type template = *resourcev1.ResourceClaimTemplate
	base := func() template {
		return &resourcev1.ResourceClaimTemplate{Metadata: kindtest.Meta("pair"), Spec: &resourcev1.ResourceClaimTemplateSpec{
			Metadata: &metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: newClaim().Spec,
		}}
	}
	kindtest.Validate(t, base, []kindtest.Bad[template]{
		{Name: "name", Edit: func(r template) { r.Spec.Metadata.Name = "x" }, Want: []string{"spec.metadata.name: Forbidden: cannot be set"}},
		{Name: "labels", Edit: func(r template) { r.Spec.Metadata.Labels["a"] = "b!" }, Want: []string{`spec.metadata.labels: Invalid value: "b!"`}},
		{Name: "count", Edit: func(r template) { r.Spec.Spec.Devices.Requests[0].Exactly.Count = -1 },
			Want: []string{"spec.spec.devices.requests[0].exactly.count: Invalid value: -1"}},
	})
	kindtest.Update(t, base, []kindtest.Edit[template]{
		{Name: "spec", Edit: func(r template) { r.Spec.Metadata = nil }, Want: []string{"spec: Invalid value"}},
		{Name: "labels", Edit: func(r template) { r.Metadata.Labels = map[string]string{"a": "b"} }},
	})
	r := base()
	if kinds.Of(r).Default(r); r.Spec.Spec.Devices.Requests[0].Exactly.Count != 1 {
		t.Errorf("the spec is %v", r.Spec)
	}
}
