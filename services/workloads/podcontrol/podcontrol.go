// Package podcontrol has what the controllers of workloads share: pods made from templates, their
// creation and deletion with the events that Kubernetes records, and the order in which surplus
// pods are deleted.
package podcontrol

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Reasons of the events about pods, and of conditions that say why there are too few or too many.
const (
	SuccessfulCreate = "SuccessfulCreate"
	SuccessfulDelete = "SuccessfulDelete"
	FailedCreate     = "FailedCreate"
	FailedDelete     = "FailedDelete"
)

// ReplicaFailure is the condition of an owner whose pods could not be created or deleted.
const ReplicaFailure = "ReplicaFailure"

// Config says whose pods they are.
type Config[O scheme.Object] struct {
	// Client writes the pods.
	Client *client.Client
	// Events records what happened to pods, as events of their owner.
	Events *events.Recorder
	// Owners mirrors the owners, Pods all pods with the index of controller.ByController.
	Owners *client.Informer[O]
	Pods   *client.Informer[*corev1.Pod]
	// Selector returns the selector of an owner's pods.
	Selector func(O) *metav1.LabelSelector
	// Claimable reports whether a pod may be adopted and released; nil means those that are active.
	Claimable func(*corev1.Pod) bool
	// Unchanged creates pods only for an owner that is as the informer shows it; see
	// controller.DependentsConfig.
	Unchanged bool
	// Finalizer is held by the owner's pods until it lets them go; empty for none.
	Finalizer string
}

// Control is the pods of objects of kind O.
type Control[O scheme.Object] struct {
	*controller.Dependents[O, *corev1.Pod]
	events *events.Recorder
}

// New returns the pods of the configured owners.
func New[O scheme.Object](cfg Config[O]) *Control[O] {
	if cfg.Claimable == nil {
		cfg.Claimable = IsActive
	}
	return &Control[O]{
		Dependents: controller.NewDependents(controller.DependentsConfig[O, *corev1.Pod]{
			Client: cfg.Client, Owners: cfg.Owners, Dependents: cfg.Pods, Selector: cfg.Selector,
			Claimable: cfg.Claimable, Unchanged: cfg.Unchanged, Finalizer: cfg.Finalizer,
		}),
		events: cfg.Events,
	}
}

// Error is a creation or deletion of pods that failed.
type Error struct {
	// Reason is FailedCreate or FailedDelete.
	Reason string
	// Err is the cause.
	Err error
}

// Error is the cause's.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CreatePods creates n pods; see controller.Dependents.Create. It fails with an *Error, or with the
// condition that the owner has changed, which is no event.
func (c *Control[O]) CreatePods(ctx context.Context, owner O, n int, build func(i int) *corev1.Pod) error {
	created, err := c.Create(ctx, owner, n, build)
	for _, pod := range created {
		c.events.Event(owner, events.Normal, SuccessfulCreate, "Created pod: %s", pod.Name)
	}
	if apierr.IsConditionFailed(err) {
		return err
	}
	if err != nil {
		c.events.Event(owner, events.Warning, FailedCreate, "Error creating: %s", apierr.Message(err))
		return &Error{FailedCreate, fmt.Errorf("create %d pods: %w", n-len(created), err)}
	}
	return nil
}

// DeletePods deletes pods; see controller.Dependents.Delete. It fails with an *Error.
func (c *Control[O]) DeletePods(ctx context.Context, owner O, victims []*corev1.Pod) error {
	deleted, err := c.Delete(ctx, owner, victims)
	for _, pod := range deleted {
		c.events.Event(owner, events.Normal, SuccessfulDelete, "Deleted pod: %s", pod.Name)
	}
	if err != nil {
		c.events.Event(owner, events.Warning, FailedDelete, "Error deleting: %s", apierr.Message(err))
		return &Error{FailedDelete, fmt.Errorf("delete %d pods: %w", len(victims)-len(deleted), err)}
	}
	return nil
}

// FromTemplate returns a new pod of an owner's template, with a generated name.
func FromTemplate(owner scheme.Object, template *corev1.PodTemplateSpec) *corev1.Pod {
	t := proto.CloneOf(template)
	return &corev1.Pod{
		Metadata: &metav1.ObjectMeta{
			GenerateName: GenerateName(owner.GetMetadata().GetName(), "-"), Namespace: owner.GetMetadata().GetNamespace(),
			Labels: t.GetMetadata().GetLabels(), Annotations: t.GetMetadata().GetAnnotations(), Finalizers: t.GetMetadata().GetFinalizers(),
		},
		Spec: t.GetSpec(),
	}
}

// GenerateName is the prefix of the names of an owner's pods: the owner's name and what separates
// it from the random end, short enough for the name to stay a valid host name.
func GenerateName(owner, separator string) string {
	const longest = 63 - 5
	// A cut behind a dot would leave a label that begins with the hyphen.
	return strings.TrimRight(owner[:min(len(owner), longest-len(separator))], "-.") + separator
}

// Slim drops what the controllers of workloads do not read, which is most of a pod. It is the
// Transform of the informer of pods that they share.
func Slim(p *corev1.Pod) {
	p.Metadata.ManagedFields = nil
	slim := &corev1.PodSpec{NodeName: p.GetSpec().GetNodeName(), Affinity: wantedNodes(p.GetSpec())}
	status, isJobs := slimRestarts, kinds.ControllerOf(p).GetKind() == "Job"
	if isJobs {
		status = slimEnd
		for _, c := range p.GetSpec().GetInitContainers() {
			slim.InitContainers = append(slim.InitContainers, &corev1.Container{Name: c.GetName(), RestartPolicy: c.RestartPolicy})
		}
	}
	p.Spec = slim
	if p.Status == nil {
		return
	}
	s := &corev1.PodStatus{Phase: p.Status.Phase, Conditions: p.Status.Conditions, ContainerStatuses: each(p.Status.ContainerStatuses, status)}
	if isJobs {
		s.InitContainerStatuses = each(p.Status.InitContainerStatuses, status)
	}
	p.Status = s
}

// wantedNodes is the node affinity that a pod without a node requires: pods of DaemonSets name
// their node by it.
func wantedNodes(s *corev1.PodSpec) *corev1.Affinity {
	required := s.GetAffinity().GetNodeAffinity().GetRequiredDuringSchedulingIgnoredDuringExecution()
	if s.GetNodeName() != "" || required == nil {
		return nil
	}
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required}}
}

func each(statuses []*corev1.ContainerStatus, slim func(*corev1.ContainerStatus) *corev1.ContainerStatus) []*corev1.ContainerStatus {
	out := make([]*corev1.ContainerStatus, len(statuses))
	for i, s := range statuses {
		out[i] = slim(s)
	}
	return out
}

func slimRestarts(s *corev1.ContainerStatus) *corev1.ContainerStatus {
	return &corev1.ContainerStatus{RestartCount: s.GetRestartCount()}
}

// slimEnd keeps how a container ended, by which Jobs judge their pods.
func slimEnd(s *corev1.ContainerStatus) *corev1.ContainerStatus {
	slim := &corev1.ContainerStatus{Name: s.GetName(), RestartCount: s.GetRestartCount()}
	if end := s.GetState().GetTerminated(); end != nil {
		slim.State = &corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: end.GetExitCode(), FinishedAt: end.GetFinishedAt()},
		}
	}
	return slim
}
