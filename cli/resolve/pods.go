package resolve

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// defaultContainer is the annotation by which a pod names the container that people mean when they
// name none.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// Pods finds the pods that a command means: by name, by their owner, or by labels. An owner stands
// for one of its pods, as with kubectl: the one that is most likely to have something to say.
func Pods(ctx context.Context, s *session.Session, cl *client.Client, args []string, labels string) ([]*corev1.Pod, error) {
	if labels != "" {
		namespace, err := s.DefaultNamespace()
		if err != nil {
			return nil, err
		}
		pods, _, err := client.List[*corev1.Pod](ctx, cl, client.ListOptions{Namespace: namespace, LabelSelector: labels})
		if err == nil && len(pods) == 0 {
			err = fmt.Errorf("no pods match selector %q in namespace %s", labels, namespace)
		}
		return pods, err
	}
	pod, err := Pod(ctx, s, cl, args)
	if err != nil {
		return nil, err
	}
	return []*corev1.Pod{pod}, nil
}

// Pod finds the pod that NAME or KIND/NAME means.
func Pod(ctx context.Context, s *session.Session, cl *client.Client, args []string) (*corev1.Pod, error) {
	podKind := kinds.Of(&corev1.Pod{})
	r, err := One(s, args, podKind)
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
	selector, err := PodSelector(obj)
	if err != nil {
		return nil, err
	}
	pods, _, err := client.List[*corev1.Pod](ctx, cl, client.ListOptions{Namespace: r.Namespace, LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("no pods found for %s: 'xebec describe %s' shows its conditions and events", r, r)
	}
	chosen := slices.MinFunc(pods, comparePods)
	if len(pods) > 1 {
		s.Notef("Found %d pods, using pod/%s", len(pods), chosen.GetMetadata().GetName())
	}
	return chosen, nil
}

// comparePods puts those first that run and are ready, then the older ones.
func comparePods(a, b *corev1.Pod) int {
	rank := func(p *corev1.Pod) int {
		switch {
		case core.IsPodReady(p):
			return 0
		case p.GetStatus().GetPhase() == core.PodRunning:
			return 1
		case p.GetSpec().GetNodeName() != "":
			return 2
		}
		return 3
	}
	if d := rank(a) - rank(b); d != 0 {
		return d
	}
	return a.GetMetadata().GetCreationTimestamp().AsTime().Compare(b.GetMetadata().GetCreationTimestamp().AsTime())
}

// PodSelector is how an object finds its pods: a service or a DaemonSet by its selector, an object
// of a kind with a scale by the selector of the scale.
func PodSelector(obj scheme.Object) (string, error) {
	if service, ok := obj.(*corev1.Service); ok {
		if len(service.GetSpec().GetSelector()) == 0 {
			return "", fmt.Errorf("%s has no selector and therefore no pods", Of(obj))
		}
		return labels.SelectorFromSet(service.GetSpec().GetSelector()).String(), nil
	}
	var own *metav1.LabelSelector
	switch o := obj.(type) {
	case *appsv1.DaemonSet:
		own = o.GetSpec().GetSelector()
	case *batchv1.Job:
		own = o.GetSpec().GetSelector()
	}
	if own != nil {
		selector, err := object.LabelSelector(own)
		if err != nil {
			return "", fmt.Errorf("selector of %s: %w", Of(obj), err)
		}
		return selector.String(), nil
	}
	k := kinds.Of(obj)
	if k.Scale == nil || k.Scale.Selector == "" {
		return "", exit.Usagef("kind %s has no pods", k.Singular)
	}
	selector, err := object.ScaleSelector(k, obj)
	if err == nil && selector == "" {
		err = fmt.Errorf("%s has no selector and therefore no pods", Of(obj))
	}
	return selector, err
}

// Containers chooses containers of a pod and says so when it had to guess.
func Containers(s *session.Session, p *corev1.Pod, name string, all bool) ([]string, error) {
	var names []string
	for _, c := range slices.Concat(p.GetSpec().GetInitContainers(), p.GetSpec().GetContainers(), core.EphemeralContainers(p.GetSpec())) {
		names = append(names, c.GetName())
	}
	pod := p.GetMetadata().GetName()
	switch {
	case all:
		return names, nil
	case name != "" && !slices.Contains(names, name):
		return nil, fmt.Errorf("pod %q has no container %q: want one of %s", pod, name, strings.Join(names, ", "))
	case name != "":
		return []string{name}, nil
	}
	if name = p.GetMetadata().GetAnnotations()[defaultContainer]; slices.Contains(names, name) {
		return []string{name}, nil
	}
	containers := p.GetSpec().GetContainers()
	if len(containers) == 0 {
		return nil, fmt.Errorf("pod %q has no containers", pod)
	}
	if len(names) > 1 {
		s.Notef("Defaulted container %q out of: %s", containers[0].GetName(), strings.Join(names, ", "))
	}
	return []string{containers[0].GetName()}, nil
}

// Container finds the pod that a command line names, and of its containers the one named, or the
// first.
func Container(ctx context.Context, s *session.Session, args []string, name string) (*corev1.Pod, string, error) {
	pod, err := Pod(ctx, s, s.Client(), args)
	if err != nil {
		return nil, "", err
	}
	containers, err := Containers(s, pod, name, false)
	if err != nil {
		return nil, "", err
	}
	return pod, containers[0], nil
}
