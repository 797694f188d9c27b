package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
)

func (s *shell) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "why POD",
		Short: "Explain where a pod runs or why it waits",
		Long: "Explain where a pod runs or why it waits: how the scheduler judges every node for it now, with the filter that\n" +
			"refuses a node or the scores, 0 to 10, that it gets; and what the pod's containers wait for.",
		Example: "  xebec why web-6d5f9c7b8-x2k4q\n" +
			"  xebec why deployment/web",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: s.completeOf("pods"),
		RunE:              func(cmd *cobra.Command, args []string) error { return s.why(cmd.Context(), args) },
	}
}

func (s *shell) why(ctx context.Context, args []string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	namespace, err := s.defaultNamespace()
	if err != nil {
		return err
	}
	if len(args) == 2 {
		args = []string{args[0] + "/" + args[1]}
	}
	pod, err := s.podOf(ctx, cl, args, namespace)
	if err != nil {
		return err
	}
	name := pod.GetMetadata().GetName()
	bounded, cancel := s.bounded(ctx)
	defer cancel()
	answer, err := schedulerv1.NewSchedulerServiceClient(s.conn).Explain(bounded, &schedulerv1.ExplainRequest{Namespace: namespace, Name: name})
	if err != nil {
		return err
	}
	if answer.GetNodeName() != "" {
		s.printf("pod/%s is %s on node %s.\n", name, kind.PodStatus(pod), answer.GetNodeName())
	} else {
		s.printf("pod/%s waits for %s.\n", name, strings.TrimSuffix(answer.GetWaitsFor(), "."))
	}
	for _, line := range containerWaits(pod) {
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

// containerWaits says what each container that does not run waits for or ended by.
func containerWaits(p *corev1.Pod) []string {
	var out []string
	for _, c := range append(p.GetStatus().GetInitContainerStatuses(), p.GetStatus().GetContainerStatuses()...) {
		waiting, ended, last := c.GetState().GetWaiting(), c.GetState().GetTerminated(), c.GetLastState().GetTerminated()
		switch {
		case waiting != nil:
			line := fmt.Sprintf("container %s waits: %s", c.GetName(), strings.TrimSuffix(waiting.GetReason()+": "+waiting.GetMessage(), ": "))
			if last != nil {
				line += fmt.Sprintf(" (its last run ended with exit code %d)", last.GetExitCode())
			}
			out = append(out, oneLine(line))
		case ended != nil && ended.GetExitCode() != 0:
			out = append(out, oneLine(fmt.Sprintf("container %s ended with exit code %d: %s", c.GetName(), ended.GetExitCode(), orText(ended.GetMessage(), ended.GetReason()))))
		case c.GetState().GetRunning() != nil && !c.GetReady():
			out = append(out, fmt.Sprintf("container %s runs and is not ready: its readiness probe has not passed", c.GetName()))
		}
	}
	return out
}

// latestWarning prints the last warning about the pod.
func (s *shell) latestWarning(ctx context.Context, cl *client.Client, pod *corev1.Pod) error {
	events, err := eventsOf(ctx, cl, pod)
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
