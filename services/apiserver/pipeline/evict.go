package pipeline

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/schema"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
	"github.com/xebec-project/xebec/services/apiserver/admission"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// subresourceEviction is how evictions are named where rights and admission decide on them.
const subresourceEviction = "eviction"

// Evict deletes a pod if its disruption budget allows that.
func (p *Pipeline) Evict(ctx context.Context, caller authz.Caller, req *apiv1.EvictRequest) (*apiv1.EvictResponse, error) {
	deletion, err := deletionOf(req)
	if err != nil {
		return nil, err
	}
	t, err := p.targetOfReference(authz.Evict, deletion.GetObject())
	if err == nil {
		err = p.Preauthorize(ctx, caller, t.attributes())
	}
	if err != nil {
		return nil, err
	}
	changes, _, err := p.write(ctx, caller, deletion, func(ctx context.Context, p *plan) ([]*change, error) {
		return p.evict(ctx, t, deletion)
	})
	if errors.Is(err, errContended) {
		return nil, apierr.Overloaded(time.Second,
			"pod %q was not evicted: it or its disruption budget changes too often now; try again", t.key.Name)
	}
	if err != nil {
		return nil, err
	}
	out, err := encodeAny(t.kind, changes[0].object)
	return &apiv1.EvictResponse{Object: out, Removed: changes[0].removed}, err
}

// deletionOf returns the deletion that an eviction asks for.
func deletionOf(req *apiv1.EvictRequest) (*apiv1.DeleteRequest, error) {
	m, options := req.GetEviction().GetMetadata(), req.GetEviction().GetDeleteOptions()
	switch {
	case m.GetName() == "":
		return nil, apierr.BadField("eviction.metadata.name", "is required: the name of the pod")
	case m.GetNamespace() == "":
		return nil, apierr.BadField("eviction.metadata.namespace", "is required: pods are namespaced")
	}
	path := field.NewPath("deleteOptions")
	errs := schema.Validate(path, options)
	if options.OrphanDependents != nil && options.PropagationPolicy != nil {
		errs = append(errs, field.Invalid(path.Child("propagationPolicy"), options.GetPropagationPolicy(),
			"orphanDependents and propagationPolicy must not both be set"))
	}
	if len(errs) > 0 {
		return nil, apierr.Invalid(kinds.Of(new(corev1.Pod)), m.GetName(), errs)
	}
	policies := map[string]apiv1.PropagationPolicy{
		"Background": apiv1.PropagationPolicy_PROPAGATION_POLICY_BACKGROUND,
		"Foreground": apiv1.PropagationPolicy_PROPAGATION_POLICY_FOREGROUND,
		"Orphan":     apiv1.PropagationPolicy_PROPAGATION_POLICY_ORPHAN,
	}
	policy := policies[options.GetPropagationPolicy()]
	if options.GetOrphanDependents() {
		policy = apiv1.PropagationPolicy_PROPAGATION_POLICY_ORPHAN
	}
	return &apiv1.DeleteRequest{
		Object:             &apiv1.ObjectReference{Kind: "Pod", Namespace: m.GetNamespace(), Name: m.GetName()},
		GracePeriodSeconds: options.GracePeriodSeconds, PropagationPolicy: policy,
		Uid: options.GetPreconditions().GetUid(), ResourceVersion: options.GetPreconditions().GetResourceVersion(),
		DryRun: req.GetDryRun() || len(options.GetDryRun()) > 0, Fence: req.GetFence(), Conditions: req.GetConditions(),
	}, nil
}

// evict plans the deletion of a pod and, in the same transaction, the disruption of its budget.
func (p *plan) evict(ctx context.Context, t target, req *apiv1.DeleteRequest) ([]*change, error) {
	if err := checkGrace(req); err != nil {
		return nil, err
	}
	k := t.kind
	stored, o, err := p.currentForWrite(ctx, t, &metav1.ObjectMeta{Uid: req.GetUid(), ResourceVersion: req.GetResourceVersion()})
	if err != nil {
		return nil, err
	}
	attributes := p.attributes(admission.Delete, subresourceEviction, k, nil, o)
	if err := p.Admission.Mutate(ctx, attributes); err != nil {
		return nil, err
	}
	if err := p.Admission.Validate(ctx, attributes); err != nil {
		return nil, err
	}
	pod, now := o.(*corev1.Pod), time.Now()
	deletion := &change{kind: k, object: pod, conditions: attributes.Conditions, expected: req.GetResourceVersion() != ""}
	changes := []*change{deletion}
	if registry.NeedsBudget(pod) {
		disruption, held, err := p.disrupt(ctx, pod, now)
		if err != nil {
			return nil, err
		}
		if disruption != nil {
			changes = append(changes, disruption)
		}
		deletion.conditions = append(deletion.conditions, held...)
	}
	registry.MarkEvicted(pod, now)
	p.markDeleted(k, pod, req)
	return changes, p.replace(ctx, deletion, stored)
}

// disrupt plans the disruption of the budget that a pod has. There is nothing to change when the
// pod has none, or when the budget allows the eviction as it is; then the eviction is held to that
// state of the budget.
func (p *plan) disrupt(ctx context.Context, pod *corev1.Pod, now time.Time) (c *change, held []storage.Condition, err error) {
	stored, budget, err := p.budgetOf(ctx, pod)
	if err != nil || budget == nil {
		return nil, nil, err
	}
	updated := proto.CloneOf(budget)
	disrupted, err := registry.Disrupt(updated, pod, now)
	if err != nil {
		return nil, nil, err
	}
	if !disrupted {
		return nil, []storage.Condition{{Key: stored.Key, Revision: stored.Revision}}, nil
	}
	// A budget that changed is planned again: its version is not the caller's.
	updated.Metadata.ResourceVersion = ""
	c, err = p.updateStatusObject(ctx, kinds.Of(budget), stored, budget, updated, "")
	return c, nil, err
}

// budgetOf returns the disruption budget that selects a pod, nil when none does.
func (p *plan) budgetOf(ctx context.Context, pod *corev1.Pod) (*storage.Object, *policyv1.PodDisruptionBudget, error) {
	k := kinds.Of(new(policyv1.PodDisruptionBudget))
	// Not from p.get, whose reads may be behind: the commit does not compare a budget that the cache
	// lacks.
	list, err := p.Store.List(ctx, storage.ListOptions{Group: k.Group, Kind: k.Name, Namespace: pod.GetMetadata().GetNamespace()})
	if err != nil {
		return nil, nil, storage.APIError(err)
	}
	var stored *storage.Object
	var budget *policyv1.PodDisruptionBudget
	for _, candidate := range list.Objects {
		o, err := registry.Decode(k, candidate)
		if err != nil {
			return nil, nil, err
		}
		b := o.(*policyv1.PodDisruptionBudget)
		selector, err := object.LabelSelector(b.GetSpec().GetSelector())
		switch {
		case err != nil || !selector.Matches(labels.Set(pod.GetMetadata().GetLabels())):
			continue // As in Kubernetes, a selector that is invalid selects nothing.
		case budget != nil:
			return nil, nil, apierr.ManyBudgets(budget.GetMetadata().GetName(), b.GetMetadata().GetName())
		}
		stored, budget = candidate, b
	}
	return stored, budget, nil
}
