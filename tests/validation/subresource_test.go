package validation_test

import (
	"encoding/json"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

// status compares updates of the status of a valid object to each of its mutations.
func (c *comparison) status(o scheme.Object) {
	k := kinds.Of(o)
	if !k.HasStatus() {
		return
	}
	d := o.ProtoReflect().Descriptor()
	base, raw := c.value(o)
	stored := c.stored(raw)
	// Kubernetes compares times with fractions of seconds, which it does not store.
	skip := append(allBut(d, "", "status"), "status.allocation.allocationTimestamp")
	for m := range mutations(d, base, skip...) {
		got := c.subresource(k, "status", nameOf(o)+": "+m.what, m.object, stored, raw)
		c.breaks(m, got)
	}
	if r, ok := o.(*resourcev1.ResourceClaim); ok {
		c.allocate(r, base)
	}
}

// allocate compares updates of the status of a claim without one to each mutation of the given
// object: an allocation never changes.
func (c *comparison) allocate(claim *resourcev1.ResourceClaim, base map[string]any) {
	k, d := kinds.Of(claim), claim.ProtoReflect().Descriptor()
	before := proto.CloneOf(claim)
	before.Status = nil
	_, raw := c.value(before)
	stored := c.stored(raw)
	for m := range mutations(d, base, allBut(d, "", "status")...) {
		c.breaks(m, c.subresource(k, "status", nameOf(claim)+" without a status: "+m.what, m.object, stored, raw))
	}
}

// approval compares updates of the subresource approval of a valid object to each mutation of its
// status.
func (c *comparison) approval(o scheme.Object) {
	k := kinds.Of(o)
	if !k.HasSubresource("approval") {
		return
	}
	base, raw := c.value(o)
	stored := c.stored(raw)
	d := o.ProtoReflect().Descriptor()
	for m := range mutations(d, base, allBut(d, "", "status")...) {
		c.subresource(k, "approval", nameOf(o)+": "+m.what, m.object, stored, raw)
	}
}

// resize compares resizes of a valid pod to those of its mutations that differ in resources or in
// the containers that there are.
func (c *comparison) resize(p *corev1.Pod) {
	base, raw := c.value(p)
	stored := c.stored(raw)
	for m := range mutations(p.ProtoReflect().Descriptor(), base, "metadata", "status") {
		place, _, _ := strings.Cut(m.what, " ")
		parts := strings.Split(place, ".")
		if slices.Contains(parts, "resources") || strings.Contains(place, "resizePolicy") || strings.HasSuffix(place, "ontainers") ||
			strings.HasSuffix(place, "].name") && len(parts) == 3 {
			c.subresource(kinds.Of(p), "resize", nameOf(p)+": "+m.what, m.object, stored, raw)
		}
	}
}

// addEphemeral compares additions of an ephemeral container to a valid pod, and of each mutation of
// it.
func (c *comparison) addEphemeral(p *corev1.Pod) {
	_, raw := c.value(p)
	stored := c.stored(raw)
	with := proto.CloneOf(p)
	with.Spec.EphemeralContainers = append(with.Spec.EphemeralContainers, core.NewEphemeralContainer(&corev1.Container{
		Name: "debugger", Image: "busybox:1", Command: []string{"sh"}, Env: []*corev1.EnvVar{{Name: "A", Value: "b"}},
	}, p.GetSpec().GetContainers()[0].GetName()))
	base, _ := c.value(with)
	d := p.ProtoReflect().Descriptor()
	skip := append(allBut(d, "", "spec"), allBut(d.Fields().ByName("spec").Message(), "spec.", "ephemeralContainers")...)
	for m := range mutations(d, base, skip...) {
		c.subresource(kinds.Of(p), "ephemeralcontainers", nameOf(p)+": "+m.what, m.object, stored, raw)
	}
}

// allBut returns the paths of the fields of a message but one.
func allBut(d protoreflect.MessageDescriptor, prefix, one string) []string {
	var out []string
	for i := range d.Fields().Len() {
		if name := d.Fields().Get(i).JSONName(); name != one {
			out = append(out, prefix+name)
		}
	}
	return out
}

// stored returns a valid object as it is stored, with its status.
func (c *comparison) stored(raw json.RawMessage) scheme.Object {
	o, err := codec.Unmarshal(raw)
	if err != nil {
		c.t.Fatal(err)
	}
	kinds.Of(o).Default(o)
	return o
}

// subresource compares the verdicts and the messages about the update of a stored object, which was
// decoded from raw, by a subresource. It returns our errors.
func (c *comparison) subresource(
	k *scheme.Kind, subresource, what string, object map[string]any, stored scheme.Object, raw json.RawMessage,
) []violation {
	c.subresources[subresource]++
	asked := c.marshal(object)
	got := writeSubresource(subresource, asked, stored)
	c.compare(k, subresource+" of "+what, got, c.program.ask(c.t, asked, raw, subresource))
	return got
}

// writeSubresource validates an update by a subresource as the apiserver does.
func writeSubresource(subresource string, object json.RawMessage, stored scheme.Object) []violation {
	o, err := codec.Unmarshal(object)
	if err != nil {
		return undecodable(err)
	}
	k := kinds.Of(o)
	part := k.Part(subresource)
	if part == nil {
		k.PrepareStatusUpdate(o, stored)
		return violations(k.ValidateStatusUpdate(o, stored))
	}
	k.PreparePart(part, o, stored)
	return violations(append(k.Validate(o), part.Validate(o, stored)...))
}
