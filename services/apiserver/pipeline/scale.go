package pipeline

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	autoscalingv1 "github.com/xebec-project/xebec/proto/xebec/autoscaling/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/patch"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// subresourceScale is the number of replicas of an object, as Kubernetes' autoscaling/v1 Scale.
const subresourceScale = "scale"

// EncodeScale packs the Scale of a stored object.
func EncodeScale(asked *scheme.Kind, stored *storage.Object) (*anypb.Any, error) {
	o, err := registry.Decode(asked, stored)
	if err != nil {
		return nil, err
	}
	return encodeScale(asked, o)
}

// encodeScale packs the Scale of an object of the stored version.
func encodeScale(asked *scheme.Kind, o scheme.Object) (*anypb.Any, error) {
	scale, err := scaleOf(asked, o)
	if err != nil {
		return nil, err
	}
	return anypb.New(scale)
}

// scaleOf returns the Scale of an object of the stored version.
func scaleOf(asked *scheme.Kind, o scheme.Object) (*autoscalingv1.Scale, error) {
	if asked.Scale == nil {
		return nil, apierr.Unsupported("%s have no scale", asked.Resource())
	}
	shown, err := asked.FromStored(o)
	if err != nil {
		return nil, err
	}
	selector, err := object.ScaleSelector(asked, shown)
	if err != nil {
		return nil, fmt.Errorf("selector of %s %q: %w", asked.Name, o.GetMetadata().GetName(), err)
	}
	m := o.GetMetadata()
	return &autoscalingv1.Scale{
		Metadata: &metav1.ObjectMeta{
			Name: m.GetName(), Namespace: m.GetNamespace(), Uid: m.GetUid(), ResourceVersion: m.GetResourceVersion(),
			CreationTimestamp: m.GetCreationTimestamp(),
		},
		Spec:   &autoscalingv1.ScaleSpec{Replicas: asked.Replicas(shown)},
		Status: &autoscalingv1.ScaleStatus{Replicas: asked.StatusReplicas(shown), Selector: selector},
	}, nil
}

// updateScale plans storing the number of replicas in a Scale.
func (p *plan) updateScale(ctx context.Context, t target, req *apiv1.UpdateRequest) (*change, error) {
	scale := &autoscalingv1.Scale{}
	if err := req.GetObject().UnmarshalTo(scale); err != nil {
		return nil, apierr.BadField("object", "must be a %s: %v", scale.ProtoReflect().Descriptor().FullName(), err)
	}
	m := scale.GetMetadata()
	if m.GetName() != "" && m.GetName() != t.key.Name || m.GetNamespace() != "" && m.GetNamespace() != t.key.Namespace {
		return nil, apierr.BadField("object", "must be the scale of the object that reference names: %s %q", t.kind.Name, t.key.Name)
	}
	stored, old, err := p.currentForWrite(ctx, t, &metav1.ObjectMeta{Uid: m.GetUid(), ResourceVersion: m.GetResourceVersion()})
	if err != nil {
		return nil, err
	}
	return p.storeScale(ctx, t.kind, stored, old, scale, req.GetFieldManager())
}

// patchScale plans storing the number of replicas in a Scale that a patch changed.
func (p *plan) patchScale(
	ctx context.Context, asked *scheme.Kind, stored *storage.Object, old scheme.Object, req *apiv1.PatchRequest, parsed patch.Patch,
) (*change, error) {
	scale, err := scaleOf(asked, old)
	if err != nil {
		return nil, err
	}
	doc, err := p.Codec.Marshal(scale)
	if err != nil {
		return nil, err
	}
	patched, err := parsed.Apply(ctx, doc)
	if err != nil {
		return nil, apierr.BadField("patch", "does not apply to the scale of %s %q: %v", asked.Name, scale.GetMetadata().GetName(), err)
	}
	updated := &autoscalingv1.Scale{}
	if err := p.Codec.UnmarshalInto(patched, updated); err != nil {
		return nil, apierr.BadField("patch", "the scale of %s %q would not be valid: %v", asked.Name, scale.GetMetadata().GetName(), err)
	}
	if v := updated.GetMetadata().GetResourceVersion(); v != scale.GetMetadata().GetResourceVersion() {
		return nil, apierr.Conflict(asked, scale.GetMetadata().GetName(), "the patch names a resourceVersion that is not the current one")
	}
	updated.Metadata = nil
	return p.storeScale(ctx, asked, stored, old, updated, req.GetFieldManager())
}

// storeScale plans storing the number of replicas of a Scale in old, stored as it is.
func (p *plan) storeScale(
	ctx context.Context, asked *scheme.Kind, stored *storage.Object, old scheme.Object, scale *autoscalingv1.Scale, manager string,
) (*change, error) {
	if asked.Scale == nil {
		return nil, apierr.Unsupported("%s have no scale", asked.Resource())
	}
	if err := checkManager(manager); err != nil {
		return nil, err
	}
	n := scale.GetSpec().GetReplicas()
	if n < 0 {
		return nil, apierr.Invalid(asked, old.GetMetadata().GetName(), field.ErrorList{
			field.Invalid(field.NewPath("spec", "replicas"), n, "must be greater than or equal to 0"),
		})
	}
	shown, err := asked.FromStored(proto.CloneOf(old))
	if err != nil {
		return nil, err
	}
	asked.SetReplicas(shown, n)
	updated, err := toStored(asked, shown)
	if err != nil {
		return nil, err
	}
	updated.GetMetadata().ResourceVersion = scale.GetMetadata().GetResourceVersion()
	c, err := p.updateObject(ctx, subresourceScale, asked, stored, old, updated, manager)
	if err != nil {
		return nil, err
	}
	c.scale = true
	return c, nil
}

// encode packs the object of a change, or its Scale, for a response.
func (c *change) encode(asked *scheme.Kind) (*anypb.Any, error) {
	if c.scale {
		return encodeScale(asked, c.object)
	}
	return encodeAny(asked, c.object)
}
