package pipeline

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/admission"
)

// Delete removes an object or marks it for deletion.
func (p *Pipeline) Delete(ctx context.Context, caller authz.Caller, req *apiv1.DeleteRequest) (*apiv1.DeleteResponse, error) {
	t, err := p.targetOfReference(authz.Delete, req.GetObject())
	if err == nil {
		err = p.Preauthorize(ctx, caller, t.attributes())
	}
	if err != nil {
		return nil, err
	}
	c, err := p.writeOne(ctx, caller, req, func(ctx context.Context, p *plan) (*change, error) {
		return p.delete(ctx, t, req)
	})
	if err != nil {
		return nil, err
	}
	out, err := encodeAny(t.kind, c.object)
	return &apiv1.DeleteResponse{Object: out, Removed: c.removed}, err
}

// DeleteOfCollection is Delete for a caller with the right to delete collections. It reports
// whether the object is gone.
func (p *Pipeline) DeleteOfCollection(ctx context.Context, caller authz.Caller, req *apiv1.DeleteRequest) (removed bool, err error) {
	t, err := p.targetOfReference(authz.DeleteCollection, req.GetObject())
	if err != nil {
		return false, err
	}
	c, err := p.writeOne(ctx, caller, req, func(ctx context.Context, p *plan) (*change, error) {
		return p.delete(ctx, t, req)
	})
	if err != nil {
		return false, err
	}
	return c.removed, nil
}

// delete plans a deletion in the steps that Kubernetes takes: an object with a grace period or
// finalizers is marked, and removed by the delete with grace 0 or the update that takes the last
// finalizer away; any other is removed at once.
func (p *plan) delete(ctx context.Context, t target, req *apiv1.DeleteRequest) (*change, error) {
	if err := checkGrace(req); err != nil {
		return nil, err
	}
	stored, o, err := p.currentForWrite(ctx, t, &metav1.ObjectMeta{Uid: req.GetUid(), ResourceVersion: req.GetResourceVersion()})
	if err != nil {
		return nil, err
	}
	k := t.kind.Stored()
	attributes := p.attributes(admission.Delete, "", k, nil, o)
	if err := p.Admission.Mutate(ctx, attributes); err != nil {
		return nil, err
	}
	if err := p.Admission.Validate(ctx, attributes); err != nil {
		return nil, err
	}
	old := proto.CloneOf(o)
	p.markDeleted(k, o, req)
	if manager := req.GetFieldManager(); manager != "" {
		if err := checkManager(manager); err != nil {
			return nil, err
		}
		if err := p.recordManager(t.kind, "", old, o, manager, time.Now()); err != nil {
			return nil, err
		}
	}
	c := &change{kind: k, object: o, conditions: attributes.Conditions, expected: req.GetResourceVersion() != ""}
	return c, p.replace(ctx, c, stored)
}

func checkGrace(req *apiv1.DeleteRequest) error {
	if g := req.GracePeriodSeconds; g != nil && *g < 0 {
		return apierr.BadField("gracePeriodSeconds", "must not be negative, is %d", *g)
	}
	return nil
}

// markDeleted makes of a stored object what a delete leaves of it: marked, or finished at once.
func (p *plan) markDeleted(k *scheme.Kind, o scheme.Object, req *apiv1.DeleteRequest) {
	meta := o.GetMetadata()
	strategy := p.Registry.For(k)
	grace := strategy.GracePeriod(o, req.GracePeriodSeconds)
	setPropagation(meta, req.GetPropagationPolicy())
	if meta.GetDeletionTimestamp() == nil || grace < meta.GetDeletionGracePeriodSeconds() {
		// The grace counts from the first request; a later one can only shorten it.
		start := time.Now()
		if t := meta.GetDeletionTimestamp(); t != nil {
			start = t.AsTime().Add(-time.Duration(meta.GetDeletionGracePeriodSeconds()) * time.Second)
		} else {
			meta.Generation++
		}
		meta.DeletionTimestamp = timestamppb.New(start.Add(time.Duration(grace) * time.Second).Truncate(time.Second))
		meta.DeletionGracePeriodSeconds = &grace
	}
	strategy.MarkDeleted(o)
}

// finished reports whether an object is marked for deletion and nothing holds it any more.
func finished(o scheme.Object) bool {
	meta := o.GetMetadata()
	return meta.GetDeletionTimestamp() != nil && meta.GetDeletionGracePeriodSeconds() == 0 && len(meta.GetFinalizers()) == 0
}

// setPropagation marks what becomes of the object's dependents. A policy that is named takes the
// place of one that an earlier request or the object itself had named.
func setPropagation(meta *metav1.ObjectMeta, policy apiv1.PropagationPolicy) {
	want := ""
	switch policy {
	case apiv1.PropagationPolicy_PROPAGATION_POLICY_UNSPECIFIED:
		return
	case apiv1.PropagationPolicy_PROPAGATION_POLICY_FOREGROUND:
		want = object.FinalizerForeground
	case apiv1.PropagationPolicy_PROPAGATION_POLICY_ORPHAN:
		want = object.FinalizerOrphan
	}
	meta.Finalizers = slices.DeleteFunc(meta.GetFinalizers(), func(f string) bool {
		return f != want && (f == object.FinalizerForeground || f == object.FinalizerOrphan)
	})
	if want != "" && !slices.Contains(meta.GetFinalizers(), want) {
		meta.Finalizers = append(meta.GetFinalizers(), want)
	}
}
