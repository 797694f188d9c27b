package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// await watches the objects of a namespace until cond holds for them, and fails the test when it
// does not within the limit. It goes on watching across masters that die.
func await[T scheme.Object](t *testing.T, c *client.Client, namespace, what string, limit time.Duration, cond func([]T) bool) []T {
	t.Helper()
	objects, err := awaitObjects(t.Context(), c, namespace, limit, cond)
	if err == nil {
		return objects
	}
	slices.SortFunc(objects, func(a, b T) int { return compareNames(a, b) })
	for _, o := range objects {
		t.Logf("%s: %.1500s", o.GetMetadata().GetName(), prototext.MarshalOptions{}.Format(o))
	}
	t.Fatalf("%s: not within %s (%v)", what, limit, err)
	return nil
}

func compareNames[T scheme.Object](a, b T) int {
	if a.GetMetadata().GetName() < b.GetMetadata().GetName() {
		return -1
	}
	return 1
}

func awaitObjects[T scheme.Object](ctx context.Context, c *client.Client, namespace string, limit time.Duration, cond func([]T) bool) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	changed := make(chan struct{}, 1)
	informer := client.NewInformer(c, client.InformerOptions[T]{Namespace: namespace})
	informer.OnChange(func(_, _ T) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = informer.Run(ctx)
	}()
	defer func() { cancel(); <-done }()
	if err := informer.WaitForSync(ctx); err != nil {
		return nil, err
	}
	for {
		if objects := informer.List(); cond(objects) {
			return objects, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return informer.List(), ctx.Err()
		}
	}
}

// awaitGone waits until there is no object of this name.
func awaitGone[T scheme.Object](ctx context.Context, c *client.Client, namespace, name string) error {
	objects, err := awaitObjects(ctx, c, namespace, waitLimit, func(objects []T) bool {
		return !slices.ContainsFunc(objects, func(o T) bool { return o.GetMetadata().GetName() == name })
	})
	if err == nil {
		return nil
	}
	for _, o := range objects {
		if o.GetMetadata().GetName() == name {
			return fmt.Errorf("still there: %w: %s", err, prototext.MarshalOptions{}.Format(o))
		}
	}
	return err
}

// eventually waits for what no watch tells.
func eventually(t *testing.T, what string, limit time.Duration, cond func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		began := time.Now()
		err := cond()
		if err == nil {
			return
		}
		select {
		// To ask costs processors, which what is asked about may need: at least half of the time is left
		// to it.
		case <-time.After(max(50*time.Millisecond, time.Since(began))):
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
	}
}

// says waits until a command succeeds and prints all of these words, for output that is valid for a
// moment after it has happened: events, and what nodes make of endpoints.
func (p *person) says(t *testing.T, words []string, args ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q in xebec %s", words, strings.Join(args, " ")), waitLimit, func() error {
		o := p.try(t, args...)
		if o.code != 0 {
			return fmt.Errorf("%s", o)
		}
		for _, w := range words {
			if !strings.Contains(o.stdout, w) {
				return fmt.Errorf("no %q in\n%s", w, o.stdout)
			}
		}
		return nil
	})
}

// ready tells whether a pod is ready.
func ready(pod *corev1.Pod) bool {
	return pod.GetMetadata().GetDeletionTimestamp() == nil && slices.ContainsFunc(pod.GetStatus().GetConditions(), func(c *corev1.PodCondition) bool {
		return c.GetType() == "Ready" && c.GetStatus() == "True"
	})
}

// labelled returns the pods with app=value that are not on their way out.
func labelled(pods []*corev1.Pod, value string) []*corev1.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool {
		return p.GetMetadata().GetLabels()["app"] != value || p.GetMetadata().GetDeletionTimestamp() != nil
	})
}

// allReady tells whether exactly so many pods with app=value are there, all ready.
func allReady(pods []*corev1.Pod, value string, n int) bool {
	mine := labelled(pods, value)
	return len(mine) == n && !slices.ContainsFunc(mine, func(p *corev1.Pod) bool { return !ready(p) })
}

// nodesOf returns the nodes that pods are on, each once, in order.
func nodesOf(pods []*corev1.Pod) []string {
	var nodes []string
	for _, p := range pods {
		nodes = append(nodes, p.GetSpec().GetNodeName())
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// usable tells whether a node is ready, and no longer marked for not having been.
func usable(nodes []*corev1.Node, name string) bool {
	return slices.ContainsFunc(nodes, func(n *corev1.Node) bool {
		marked := slices.ContainsFunc(n.GetSpec().GetTaints(), func(t *corev1.Taint) bool {
			return t.GetKey() == "node.kubernetes.io/not-ready" || t.GetKey() == "node.kubernetes.io/unreachable"
		})
		return n.GetMetadata().GetName() == name && !marked && core.NodeCondition(n, core.NodeReady).GetStatus() == condition.True
	})
}
