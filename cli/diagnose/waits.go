// Package diagnose explains what pods and rollouts are waiting for.
package diagnose

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// PodWaits says what keeps a pod on a node from being ready, a line each, the cause before its
// effects; nothing when it is.
func PodWaits(p *corev1.Pod) []string {
	if core.IsPodReady(p) {
		return nil
	}
	out := containerWaits(p)
	for _, gate := range p.GetSpec().GetReadinessGates() {
		name := gate.GetConditionType()
		switch c := core.PodCondition(p, name); {
		case c == nil:
			out = append(out, terminal.OneLine(fmt.Sprintf("readiness gate %s is not met: the pod has no such condition", name)))
		case c.GetStatus() != condition.True:
			out = append(
				out,
				terminal.OneLine(
					strings.TrimRight(
						fmt.Sprintf("readiness gate %s is not met: the condition is %s: %s: %s", name, c.GetStatus(), c.GetReason(), c.GetMessage()),
						": ",
					),
				),
			)
		}
	}
	if c := core.PodCondition(p, core.PodReady); len(out) == 0 && c.GetMessage() != "" {
		out = append(out, terminal.OneLine("not ready: "+c.GetMessage()))
	}
	return out
}

// containerWaits says what each container that does not run waits for or ended by.
func containerWaits(p *corev1.Pod) []string {
	var out []string
	for _, c := range slices.Concat(p.GetStatus().GetInitContainerStatuses(), p.GetStatus().GetContainerStatuses()) {
		waiting, ended, last := c.GetState().GetWaiting(), c.GetState().GetTerminated(), c.GetLastState().GetTerminated()
		switch {
		case waiting != nil:
			line := fmt.Sprintf("container %s is waiting: %s", c.GetName(), strings.TrimSuffix(waiting.GetReason()+": "+waiting.GetMessage(), ": "))
			if last != nil {
				line += fmt.Sprintf(" (last terminated with exit code %d)", last.GetExitCode())
			}
			out = append(out, terminal.OneLine(line))
		case ended != nil && ended.GetExitCode() != 0:
			out = append(
				out,
				terminal.OneLine(
					fmt.Sprintf(
						"container %s terminated with exit code %d: %s",
						c.GetName(),
						ended.GetExitCode(),
						cmp.Or(ended.GetMessage(), ended.GetReason()),
					),
				),
			)
		case c.GetState().GetRunning() != nil && !c.GetReady():
			probe := "readiness"
			if c.Started != nil && !c.GetStarted() {
				probe = "startup"
			}
			out = append(out, fmt.Sprintf("container %s is running but not ready: its %s probe has not succeeded", c.GetName(), probe))
		}
	}
	return out
}

// podProblem is what a pod that is not ready waits for in one line, empty when it is ready or
// nothing is known.
func podProblem(p *corev1.Pod) string {
	if p.GetMetadata().GetDeletionTimestamp() != nil {
		return ""
	}
	if c := core.PodCondition(p, core.PodScheduled); p.GetSpec().GetNodeName() == "" && c.GetMessage() != "" {
		return terminal.OneLine(c.GetReason() + ": " + c.GetMessage())
	}
	waits := PodWaits(p)
	// What a container starts with says less than what another failed by.
	if i := slices.IndexFunc(waits, func(w string) bool {
		return !strings.HasSuffix(w, "ContainerCreating") && !strings.HasSuffix(w, "PodInitializing")
	}); i >= 0 {
		return waits[i]
	}
	if len(waits) > 0 {
		return waits[0]
	}
	return ""
}

// Worst is the pod that most likely holds the others' owner up: of those with a problem the newest;
// nil when there is none.
func Worst(pods []*corev1.Pod) *corev1.Pod {
	var worst *corev1.Pod
	for _, p := range pods {
		if podProblem(p) != "" &&
			(worst == nil || p.GetMetadata().GetCreationTimestamp().AsTime().After(worst.GetMetadata().GetCreationTimestamp().AsTime())) {
			worst = p
		}
	}
	return worst
}

// podsWait is what one of the pods of an owner waits for, empty when nothing is known.
func podsWait(ctx context.Context, cl *client.Client, owner scheme.Object, selector *metav1.LabelSelector) (string, error) {
	pods, err := podsOf(ctx, cl, owner, selector)
	if err != nil {
		return "", err
	}
	if p := Worst(pods); p != nil {
		return fmt.Sprintf("pod %s: %s", p.GetMetadata().GetName(), podProblem(p)), nil
	}
	return "", nil
}

// podsOf lists the pods that an owner controls.
func podsOf(ctx context.Context, cl *client.Client, owner scheme.Object, selector *metav1.LabelSelector) ([]*corev1.Pod, error) {
	parsed, err := object.LabelSelector(selector)
	if err != nil {
		return nil, err
	}
	o := client.ListOptions{Namespace: owner.GetMetadata().GetNamespace(), LabelSelector: parsed.String()}
	pods, _, err := client.List[*corev1.Pod](ctx, cl, o)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(pods, func(p *corev1.Pod) bool { return !kinds.IsControlledBy(p, owner) }), nil
}
