package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
)

func (s *shell) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "why POD",
		Short: "Explain where a pod runs or why it waits",
		Long: "Explain where a pod runs or why it waits: how the scheduler judges every node for it now, with the filter that\n" +
			"refuses a node or the scores, 0 to 10, that it gets; and what the pod's containers and readiness gates wait for.\n" +
			"Of a deployment or another owner of pods it explains the pod that holds it up, if there is one.",
		Example: "  xebec why web-6d5f9c7b8-x2k4q\n" +
			"  xebec why deployment/web",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: s.completeOf("pods"),
		RunE:              func(cmd *cobra.Command, args []string) error { return s.why(cmd.Context(), args) },
	}
}

func (s *shell) why(ctx context.Context, args []string) error {
	cl := s.client()
	namespace, err := s.defaultNamespace()
	if err != nil {
		return err
	}
	if len(args) == 2 {
		args = []string{args[0] + "/" + args[1]}
	}
	pod, err := s.podToExplain(ctx, cl, args, namespace)
	if err != nil {
		return err
	}
	name := pod.GetMetadata().GetName()
	answer, err := schedulerv1.NewSchedulerServiceClient(s).Explain(ctx, &schedulerv1.ExplainRequest{Namespace: namespace, Name: name})
	if err != nil {
		return err
	}
	if answer.GetNodeName() != "" {
		s.printf("pod/%s is %s on node %s.\n", name, kind.PodStatus(pod), answer.GetNodeName())
	} else {
		s.printf("pod/%s waits for %s.\n", name, strings.TrimSuffix(answer.GetWaitsFor(), "."))
	}
	for _, line := range podWaits(pod) {
		s.printf("  %s\n", line)
	}
	if answer.GetNodeName() != "" && !kind.IsPodReady(pod) {
		if err := s.latestWarning(ctx, cl, pod); err != nil {
			return err
		}
	}
	if len(answer.GetNodes()) > 0 {
		s.printf("\n")
		s.verdicts(answer).print(s.Out)
	}
	return nil
}

// podToExplain finds the pod that a command line means: of several that one object has, the one that holds it up.
func (s *shell) podToExplain(ctx context.Context, cl *client.Client, args []string, namespace string) (*corev1.Pod, error) {
	podKind, _ := kind.ByName("pods")
	r, err := parseOne(args, podKind)
	if err != nil {
		return nil, err
	}
	if r.kind == podKind {
		return client.Get[*corev1.Pod](ctx, cl, namespace, r.name)
	}
	obj, err := client.GetKind(ctx, cl, r.kind, namespace, r.name)
	if err != nil {
		return nil, err
	}
	if d, ok := obj.(*appsv1.Deployment); ok {
		text, done, err := rolloutState(d)
		if err != nil {
			text, done = err.Error(), false
		}
		if !done {
			s.printf("%s\n", text)
		}
	}
	selector, err := podSelector(obj)
	if err != nil {
		return nil, err
	}
	pods, _, err := client.List[*corev1.Pod](ctx, cl, client.ListOptions{Namespace: namespace, LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	if chosen := troubled(pods); chosen != nil {
		s.notef("Found %d pods, explaining pod/%s, which is not ready", len(pods), chosen.GetMetadata().GetName())
		return chosen, nil
	}
	if d, ok := obj.(*appsv1.Deployment); ok && len(pods) == 0 {
		if waits, err := rolloutWaits(ctx, cl, d); err != nil || waits != "" {
			return nil, errors.Join(err, fmt.Errorf("%s has no pods: %s", r, waits))
		}
	}
	return s.podOf(ctx, cl, args, namespace)
}

// latestWarning prints the last warning about the pod.
func (s *shell) latestWarning(ctx context.Context, cl *client.Client, pod *corev1.Pod) error {
	events, err := eventsOf(ctx, cl, pod)
	if apierr.IsForbidden(err) {
		s.notef("The pod's events are left out: %s", apierr.Message(err))
		return nil
	}
	if err != nil {
		return err
	}
	for i := len(events) - 1; i >= 0; i-- {
		if e := events[i].(*corev1.Event); e.GetType() == kind.EventWarning {
			s.printf("  last warning, %s ago: %s: %s\n", kind.Age(kind.EventLastSeen(e), s.now()), e.GetReason(), oneLine(e.GetMessage()))
			return nil
		}
	}
	return nil
}

// verdicts has a row per node and a column per scorer.
func (s *shell) verdicts(answer *schedulerv1.ExplainResponse) *table {
	var scorers []string
	seen := map[string]bool{}
	for _, n := range answer.GetNodes() {
		for _, score := range n.GetScores() {
			if !seen[score.GetName()] {
				seen[score.GetName()] = true
				scorers = append(scorers, score.GetName())
			}
		}
	}
	t := &table{heads: []string{"NODE", "TOTAL"}, keep: 1}
	for _, name := range scorers {
		t.heads = append(t.heads, strings.ToUpper(title(name)))
	}
	t.heads = append(t.heads, "REFUSED BY", "REASON")
	for _, n := range answer.GetNodes() {
		row := make([]string, len(t.heads))
		row[0] = n.GetNodeName()
		if n.GetNodeName() == answer.GetNodeName() {
			row[0] += " *"
		}
		if n.GetRefusedBy() == "" {
			row[1] = fmt.Sprintf("%.1f", n.GetTotal())
		} else {
			row[1] = "-"
		}
		for _, score := range n.GetScores() {
			for i, name := range scorers {
				if name == score.GetName() {
					row[2+i] = fmt.Sprintf("%.1f", score.GetScore())
				}
			}
		}
		row[len(row)-2], row[len(row)-1] = n.GetRefusedBy(), oneLine(n.GetReason())
		t.add(row...)
	}
	return t
}
