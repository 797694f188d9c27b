package client

import (
	"context"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// Evict deletes a pod if its disruption budget allows that, and reports whether it is gone already,
// rather than marked for deletion. apierr.RefusedBudget tells a refusal by the budget.
func Evict(ctx context.Context, c *Client, namespace, name string, opts ...DeleteOption) (removed bool, err error) {
	deletion := &apiv1.DeleteRequest{}
	for _, o := range opts {
		o.applyDelete(deletion)
	}
	options := &metav1.DeleteOptions{GracePeriodSeconds: deletion.GracePeriodSeconds, Preconditions: &metav1.Preconditions{}}
	if uid := deletion.GetUid(); uid != "" {
		options.Preconditions.Uid = proto.String(uid)
	}
	if v := deletion.GetResourceVersion(); v != "" {
		options.Preconditions.ResourceVersion = proto.String(v)
	}
	policies := map[apiv1.PropagationPolicy]string{
		apiv1.PropagationPolicy_PROPAGATION_POLICY_BACKGROUND: "Background",
		apiv1.PropagationPolicy_PROPAGATION_POLICY_FOREGROUND: "Foreground",
		apiv1.PropagationPolicy_PROPAGATION_POLICY_ORPHAN:     "Orphan",
	}
	if policy, ok := policies[deletion.GetPropagationPolicy()]; ok {
		options.PropagationPolicy = &policy
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	resp, err := c.resources.Evict(ctx, &apiv1.EvictRequest{
		Eviction: &policyv1.Eviction{Metadata: &metav1.ObjectMeta{Namespace: namespace, Name: name}, DeleteOptions: options},
		DryRun:   deletion.GetDryRun(), Fence: c.fence, Conditions: c.conditions,
	})
	return resp.GetRemoved(), err
}
