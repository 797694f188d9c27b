package scheduler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
	schedulingv1alpha2 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1alpha2"
	"github.com/xebec-project/xebec/services/scheduler/cache"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/podgroup"
)

// explainer answers from the API instead of the loop's cache, so that every instance can, leading
// or not.
type explainer struct {
	schedulerv1.UnimplementedSchedulerServiceServer
	client    *client.Client
	cfg       Config
	profiles  map[string]*framework.Profile // by spec.schedulerName
	scheduler string                        // the spec.schedulerName that explains the pods of other schedulers
}

// Explain shows how each node fares for a pod.
func (e *explainer) Explain(ctx context.Context, req *schedulerv1.ExplainRequest) (*schedulerv1.ExplainResponse, error) {
	if req.GetNamespace() == "" || req.GetName() == "" {
		return nil, apierr.BadRequest("namespace and name of the pod are required")
	}
	pod, err := client.Get[*corev1.Pod](ctx, e.client, req.GetNamespace(), req.GetName())
	if err != nil {
		return nil, err
	}
	state, groups, err := e.load(ctx, pod.GetMetadata().GetUid())
	if err != nil {
		return nil, err
	}
	p, err := framework.NewPod(pod)
	if err != nil {
		return nil, fmt.Errorf("pod %s/%s: %w", req.GetNamespace(), req.GetName(), err)
	}
	resp := &schedulerv1.ExplainResponse{NodeName: p.Node}
	fits := 0
	profile, served := e.profiles[p.SchedulerName]
	if !served {
		profile = e.profiles[e.scheduler]
	}
	var together string
	if g := groups.Of(p); g != nil && p.Node == "" {
		if together, err = e.gang(state, g, p); err != nil {
			return nil, err
		}
	}
	verdicts, room := profile.Explain(state.Snapshot(), p)
	for _, v := range verdicts {
		row := &schedulerv1.NodeVerdict{NodeName: v.Node, RefusedBy: v.RefusedBy, Reason: v.Reason, Total: v.Total}
		for _, s := range v.Scores {
			row.Scores = append(row.Scores, &schedulerv1.Score{Name: s.Name, Score: s.Score, Weight: s.Weight})
		}
		if v.RefusedBy == "" {
			fits++
		}
		resp.Nodes = append(resp.Nodes, row)
	}
	switch {
	case p.Node == "" && groups.Of(p) != nil && groups.Of(p).Need() > 0:
		resp.Preemption = "no room is made: pods of a gang without nodes preempt no others"
	case p.Node == "" && room != nil:
		explainRoom(resp, state.Snapshot(), p, room)
	}
	resp.WaitsFor = waitsFor(pod, e.names(), len(resp.Nodes), fits, together)
	return resp, nil
}

// gang says what the group of a pod waits for, empty when nothing holds the pod back. It reserves
// the pods of the gang that are placed before the pod, so that the pod is explained beside them.
func (e *explainer) gang(state *cache.Cache, g *podgroup.Group, p *framework.Pod) (string, error) {
	if !g.Ready() {
		return g.WaitsFor(), nil
	}
	if g.Need() == 0 {
		return "", nil
	}
	pods := g.Waiting()
	if err := sameScheduler(pods); err != nil {
		return "a change of its group: " + err.Error(), nil //nolint:nilerr // that is the answer
	}
	profile := e.cfg.newProfiles(state)[p.SchedulerName]
	if profile == nil {
		return "", nil
	}
	placement, err := podgroup.Place(profile, state.Snapshot(), pods, g.Need(), client.MaxOperations)
	if err != nil {
		return "", err
	}
	podgroup.Undo(profile, placement.Assignments)
	before := slices.IndexFunc(pods, func(o *framework.Pod) bool { return o.UID == p.UID })
	if _, err := podgroup.Place(profile, state.Snapshot(), pods[:max(before, 0)], 0, client.MaxOperations); err != nil {
		return "", err
	}
	if !placement.Fits() {
		return "room for its gang: " + placement.Message(), nil
	}
	return "", nil
}

// load gathers the nodes and the pods on them, without the pod that is explained: it is rated as if
// it were not bound.
func (e *explainer) load(ctx context.Context, without string) (*cache.Cache, *podgroup.Groups, error) {
	nodes, _, err := client.List[*corev1.Node](ctx, e.client, client.ListOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("list nodes: %w", err)
	}
	pods, _, err := client.List[*corev1.Pod](ctx, e.client, client.ListOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("list pods: %w", err)
	}
	namespaces, _, err := client.List[*corev1.Namespace](ctx, e.client, client.ListOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("list namespaces: %w", err)
	}
	services, _, err := client.List[*corev1.Service](ctx, e.client, client.ListOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("list services: %w", err)
	}
	budgets, _, err := client.List[*policyv1.PodDisruptionBudget](ctx, e.client, client.ListOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("list pod disruption budgets: %w", err)
	}
	podGroups, _, err := client.List[*schedulingv1alpha2.PodGroup](ctx, e.client, client.ListOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("list pod groups: %w", err)
	}
	groups := podgroup.New()
	for _, g := range podGroups {
		groups.Set(g)
	}
	c := cache.New()
	for _, b := range budgets {
		c.SetBudget(b.GetMetadata().GetNamespace(), b.GetMetadata().GetName(), framework.NewBudget(b))
	}
	for _, service := range services {
		c.SetService(service.GetMetadata().GetNamespace(), service.GetMetadata().GetName(), service.GetSpec().GetSelector())
	}
	for _, ns := range namespaces {
		c.SetNamespace(ns.GetMetadata().GetName(), labelsOf(ns))
	}
	for _, n := range nodes {
		if _, err := c.SetNode(n); err != nil {
			return nil, nil, err
		}
	}
	for _, pod := range pods {
		if core.IsPodFinished(pod) {
			continue
		}
		p, err := framework.NewPod(pod)
		if err != nil {
			return nil, nil, fmt.Errorf("pod %s: %w", client.KeyOf(pod), err)
		}
		if p.Node != "" || isPlaceable(pod) && e.profiles[p.SchedulerName] != nil {
			groups.SetPod(p)
		}
		switch {
		case p.Node != "" && p.UID != without:
			c.SetPod(p)
		case p.Node == "" && p.NominatedNode != "":
			c.Nominate(p, p.NominatedNode)
		}
	}
	return c, groups, nil
}

// names returns the names of the schedulers that this service is.
// explainRoom says of which nodes preemption could make room on, at the cost of which pods, and
// which of them it would choose.
func explainRoom(resp *schedulerv1.ExplainResponse, s *framework.Snapshot, p *framework.Pod, room *framework.Room) {
	victims, violations := map[string][]string{}, map[string]int{}
	for _, c := range room.Candidates {
		victims[c.Node], violations[c.Node] = namesOf(c.Victims), c.Violations
	}
	for _, row := range resp.GetNodes() {
		row.Victims = victims[row.GetNodeName()]
		row.NoVictims = strings.Join(room.Refusals[row.GetNodeName()], ", ")
	}
	switch {
	case room.Node != "":
		resp.Preemption = fmt.Sprintf("it makes room on node %s by deleting %s", room.Node, strings.Join(victims[room.Node], ", "))
		if n := violations[room.Node]; n > 0 {
			resp.Preemption += fmt.Sprintf("; this violates PodDisruptionBudgets for %d of them", n)
		}
	case room.Waits && s.NominatedNode(p.UID) != nil && !p.NeverPreempts:
		resp.Preemption = fmt.Sprintf("the pod waits for others to end on its nominated node %s", p.NominatedNode)
	default:
		resp.Preemption = "no room is made: " + room.Reason
	}
}

func namesOf(pods []*framework.Pod) []string {
	names := make([]string, len(pods))
	for i, p := range pods {
		names[i] = nameOf(p)
	}
	return names
}

func (e *explainer) names() []string { return slices.Sorted(maps.Keys(e.profiles)) }

// waitsFor returns what an unbound pod waits for, empty when it is bound. together is what its
// group waits for.
func waitsFor(pod *corev1.Pod, schedulers []string, nodes, fits int, together string) string {
	switch {
	case pod.GetSpec().GetNodeName() != "":
		return ""
	case pod.GetMetadata().GetDeletionTimestamp() != nil:
		return "nothing: it is being deleted"
	case len(pod.GetSpec().GetSchedulingGates()) > 0:
		names := make([]string, len(pod.GetSpec().GetSchedulingGates()))
		for i, g := range pod.GetSpec().GetSchedulingGates() {
			names[i] = g.GetName()
		}
		return "its scheduling gates to be removed: " + strings.Join(names, ", ")
	case !slices.Contains(schedulers, pod.GetSpec().GetSchedulerName()):
		return fmt.Sprintf("another scheduler, %q; this one is %q", pod.GetSpec().GetSchedulerName(), strings.Join(schedulers, ", "))
	case together != "":
		return together
	case nodes == 0:
		return "a node: the cluster has no nodes"
	case fits == 0:
		return "a change of a node or of the pod: no node fits"
	}
	return fmt.Sprintf("the scheduler: %d of %d nodes fit; if this lasts, check that a scheduler leads (xebec cluster status)", fits, nodes)
}
