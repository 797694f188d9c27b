// Package why holds the command why, which explains scheduling and readiness of pods.
package why

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/diagnose"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
)

// Command returns the command why.
func Command(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use:   "why POD",
		Short: "Explain the scheduling and readiness of a pod",
		Long: "Explain the scheduling and readiness of a pod: for every node, the filter that rejects it or its scores from 0 to 10; and\n" +
			"what the containers and readiness gates of the pod are waiting for. For a deployment or another owner, explain the pod\n" +
			"that blocks it, if there is one.",
		Example: "  xebec why web-6d5f9c7b8-x2k4q\n" +
			"  xebec why deployment/web",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: resolve.CompleteOf(s, "pods"),
		RunE:              func(cmd *cobra.Command, args []string) error { return why(cmd.Context(), s, args) },
	}
}

func why(ctx context.Context, s *session.Session, args []string) error {
	cl := s.Client()
	if len(args) == 2 {
		args = []string{args[0] + "/" + args[1]}
	}
	pod, err := podToExplain(ctx, s, cl, args)
	if err != nil {
		return err
	}
	name := pod.GetMetadata().GetName()
	answer, err := schedulerv1.NewSchedulerServiceClient(s).Explain(ctx, &schedulerv1.ExplainRequest{
		Namespace: pod.GetMetadata().GetNamespace(), Name: name,
	})
	if err != nil {
		return err
	}
	if answer.GetNodeName() != "" {
		s.Printf("pod/%s is %s on node %s.\n", name, core.PodStatus(pod), answer.GetNodeName())
	} else {
		s.Printf("pod/%s is waiting for %s.\n", name, strings.TrimSuffix(answer.GetWaitsFor(), "."))
	}
	for _, line := range diagnose.PodWaits(pod) {
		s.Printf("  %s\n", line)
	}
	if answer.GetNodeName() != "" && !core.IsPodReady(pod) {
		if err := latestWarning(ctx, s, cl, pod); err != nil {
			return err
		}
	}
	if len(answer.GetNodes()) > 0 {
		s.Printf("\n")
		verdicts(answer).Print(s.Out)
	}
	if answer.GetPreemption() != "" {
		s.Printf("\nPreemption: %s.\n", strings.TrimSuffix(answer.GetPreemption(), "."))
	}
	return nil
}

// podToExplain finds the pod that a command line means: of several that one object has, the one
// that holds it up.
func podToExplain(ctx context.Context, s *session.Session, cl *client.Client, args []string) (*corev1.Pod, error) {
	podKind := kinds.Of(&corev1.Pod{})
	r, err := resolve.One(s, args, podKind)
	if err != nil {
		return nil, err
	}
	if r.Kind == podKind {
		return client.Get[*corev1.Pod](ctx, cl, r.Namespace, r.Name)
	}
	obj, err := client.GetKind(ctx, cl, r.Kind, r.Namespace, r.Name)
	if err != nil {
		return nil, err
	}
	rollout, hasRollout := diagnose.RolloutOf(obj)
	if hasRollout {
		text, done, err := rollout.State()
		if err != nil {
			text, done = err.Error(), false
		}
		if !done {
			s.Printf("%s\n", text)
		}
	}
	selector, err := resolve.PodSelector(obj)
	if err != nil {
		return nil, err
	}
	pods, _, err := client.List[*corev1.Pod](ctx, cl, client.ListOptions{Namespace: r.Namespace, LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	if chosen := diagnose.Worst(pods); chosen != nil {
		s.Notef("Found %d pods, explaining pod/%s, which is not ready", len(pods), chosen.GetMetadata().GetName())
		return chosen, nil
	}
	if hasRollout && len(pods) == 0 {
		if waits, err := rollout.Waits(ctx, cl); err != nil || waits != "" {
			return nil, errors.Join(err, fmt.Errorf("no pods found for %s: %s", r, waits))
		}
	}
	return resolve.Pod(ctx, s, cl, args)
}

// latestWarning prints the last warning about the pod.
func latestWarning(ctx context.Context, s *session.Session, cl *client.Client, pod *corev1.Pod) error {
	events, err := resolve.Events(ctx, cl, pod)
	if apierr.IsForbidden(err) {
		s.Notef("Events of the pod are not shown: %s", apierr.Message(err))
		return nil
	}
	if err != nil {
		return err
	}
	for i := len(events) - 1; i >= 0; i-- {
		if e := events[i].(*corev1.Event); e.GetType() == core.EventWarning {
			s.Printf("  last warning, %s ago: %s: %s\n", column.Age(core.EventLastSeen(e), s.Now()), e.GetReason(), terminal.OneLine(e.GetMessage()))
			return nil
		}
	}
	return nil
}

// verdicts has a row per node and a column per scorer.
func verdicts(answer *schedulerv1.ExplainResponse) *printer.Table {
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
	t := &printer.Table{Heads: []string{"NODE", "TOTAL"}, Keep: 1}
	for _, name := range scorers {
		t.Heads = append(t.Heads, strings.ToUpper(printer.Title(name)))
	}
	t.Heads = append(t.Heads, "REJECTED BY", "REASON")
	// Preemption that makes room nowhere is explained below the table.
	hasVictims := slices.ContainsFunc(answer.GetNodes(), func(n *schedulerv1.NodeVerdict) bool { return len(n.GetVictims()) > 0 })
	if hasVictims {
		t.Heads = append(t.Heads, "PREEMPTION")
	}
	for _, n := range answer.GetNodes() {
		row := make([]string, len(t.Heads))
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
		at := slices.Index(t.Heads, "REJECTED BY")
		row[at], row[at+1] = n.GetRefusedBy(), terminal.OneLine(n.GetReason())
		switch {
		case len(n.GetVictims()) > 0:
			row[len(row)-1] = "would delete " + strings.Join(n.GetVictims(), ", ")
		case hasVictims:
			row[len(row)-1] = n.GetNoVictims()
		}
		t.Add(row...)
	}
	return t
}
