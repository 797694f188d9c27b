package controllers

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// agents does what scheduler and agents would: it binds pods to nodes, reports them running and
// ready, and finishes the deletion of bound ones. Images whose names hold "broken" never become
// ready, nor do pods with the annotation unhealthy; what containers of others do is in exits. It
// goes by what it sees, as agents do.
type agents struct {
	c    *client.Client
	pods *client.Informer[*corev1.Pod]
	keys chan client.Key
	// bind is false where the scheduler under test binds.
	bind bool
}

// runAgents runs the agents until the test ends.
func runAgents(t *testing.T, h *house, bind bool) *agents {
	t.Helper()
	f := &agents{c: h.admin(), keys: make(chan client.Key, 1<<16), bind: bind}
	f.pods = client.NewInformer(f.c, client.InformerOptions[*corev1.Pod]{})
	f.pods.OnChange(func(_, now *corev1.Pod) {
		if now != nil {
			f.keys <- client.KeyOf(now)
		}
	})
	run(t, f.pods.Run)
	for range 4 {
		run(t, f.work)
	}
	if err := f.pods.WaitForSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// Annotations by which a test tells the agents that a pod fails its probe, or that its node is
// unreachable.
const (
	unhealthy  = "test.xebec.io/unhealthy"
	outOfReach = "test.xebec.io/out-of-reach"
)

func (f *agents) work(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case k := <-f.keys:
			// What fails because of a concurrent change is handled with the event of that change.
			_ = f.act(ctx, k)
		}
	}
}

func (f *agents) act(ctx context.Context, k client.Key) error {
	p, ok := f.pods.Get(k.Namespace, k.Name)
	if !ok {
		return nil
	}
	switch bound := p.GetSpec().GetNodeName() != ""; {
	case p.GetMetadata().GetAnnotations()[outOfReach] != "":
		return nil
	case bound && core.IsPodReady(p) && p.GetMetadata().GetAnnotations()[unhealthy] != "":
		_, err := client.UpdateStatus(ctx, f.c, withReady(client.Clone(p), "False"))
		return err
	case bound && p.GetMetadata().GetDeletionTimestamp() != nil && len(p.GetMetadata().GetFinalizers()) > 0 && !core.IsPodFinished(p):
		_, err := client.UpdateStatus(ctx, f.c, withExit(client.Clone(p), 137))
		return err
	case bound && p.GetMetadata().GetDeletionTimestamp() != nil:
		_, err := client.Delete[*corev1.Pod](ctx, f.c, k.Namespace, k.Name, client.GracePeriod(0), client.IfUID(p.GetMetadata().GetUid()))
		return err
	case !bound && f.bind:
		_, err := client.Transact(ctx, f.c, client.OpBind(k.Namespace, k.Name, p.GetMetadata().GetUid(), "node-1"))
		return err
	case bound && !core.IsPodFinished(p) && exits(p) >= 0:
		_, err := client.UpdateStatus(ctx, f.c, withExit(client.Clone(p), exits(p)))
		return err
	case bound && restartsOnce(p) && !core.IsPodFinished(p):
		now := client.Clone(p)
		if len(p.GetStatus().GetContainerStatuses()) > 0 {
			now = withExit(now, 0)
		} else {
			now.Status.Phase = "Running"
			now.Status.ContainerStatuses = []*corev1.ContainerStatus{{Name: "c", Image: "i", ImageId: "i", RestartCount: 1}}
		}
		_, err := client.UpdateStatus(ctx, f.c, now)
		return err
	case bound && !core.IsPodReady(p) && !core.IsPodFinished(p) && p.GetMetadata().GetAnnotations()[unhealthy] == "" && !strings.Contains(p.GetSpec().GetContainers()[0].GetImage(), "broken"):
		_, err := client.UpdateStatus(ctx, f.c, withReady(client.Clone(p), "True"))
		return err
	}
	return nil
}

// exits is the code with which the container of a pod ends, -1 for one that runs on. Its image says
// so: exit:3, exit-odd:3 for pods with an odd completion index, whose others end with 0, and
// exit-only:2 for 0 in the pod with index 2 alone, whose others run on.
func exits(p *corev1.Pod) int32 {
	kind, value, _ := strings.Cut(p.GetSpec().GetContainers()[0].GetImage(), ":")
	n, _ := strconv.Atoi(value)
	index, _ := strconv.Atoi(p.GetMetadata().GetAnnotations()["batch.kubernetes.io/job-completion-index"])
	switch {
	case kind == "exit", kind == "exit-odd" && index%2 == 1:
		return int32(n)
	case kind == "exit-odd", kind == "exit-only" && index == n:
		return 0
	}
	return -1
}

// restartsOnce reports whether the container of a pod fails once and is started again by its agent.
func restartsOnce(p *corev1.Pod) bool {
	return strings.HasPrefix(p.GetSpec().GetContainers()[0].GetImage(), "restart-once:")
}

// withExit is the pod ended, with an exit code. It has ended long ago, so that it is
// replaced at once.
func withExit(p *corev1.Pod, code int32) *corev1.Pod {
	restarts := int32(0)
	for _, s := range p.GetStatus().GetContainerStatuses() {
		restarts = s.GetRestartCount()
	}
	p.Status.Phase = core.PodSucceeded
	if code != 0 {
		p.Status.Phase = core.PodFailed
	}
	ago := timestamppb.New(time.Now().Add(-time.Hour).Truncate(time.Second))
	p.Status.Conditions = slices.DeleteFunc(p.Status.Conditions, func(c *corev1.PodCondition) bool { return c.GetType() == "Ready" })
	p.Status.ContainerStatuses = []*corev1.ContainerStatus{{
		Name: "c", Image: "i", ImageId: "i", RestartCount: restarts,
		State: &corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, StartedAt: ago, FinishedAt: ago}},
	}}
	return p
}

// withReady is the pod running, with the given Ready condition.
func withReady(p *corev1.Pod, status string) *corev1.Pod {
	p.Status.Phase, p.Status.PodIp = "Running", "10.244.0.2"
	p.Status.Conditions = slices.DeleteFunc(p.Status.Conditions, func(c *corev1.PodCondition) bool { return c.GetType() == "Ready" })
	p.Status.Conditions = append(p.Status.Conditions, &corev1.PodCondition{Type: "Ready", Status: status, LastTransitionTime: timestamppb.Now()})
	return p
}

// observer follows pods, and checks a condition after every single change.
type observer struct {
	pods map[string]*corev1.Pod // by uid
}

// observe calls check with every change of the pods that selector selects, until the test ends.
func observe(t *testing.T, h *house, selector string, check func(*observer)) {
	t.Helper()
	o := &observer{pods: map[string]*corev1.Pod{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		synced := false // before, o has only a part of the pods
		for e, err := range client.Watch[*corev1.Pod](ctx, h.admin(), client.WatchOptions{LabelSelector: selector}) {
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("watch: %v", err)
				}
				return
			}
			if e.Type == apiv1.EventType_EVENT_TYPE_BOOKMARK {
				if e.InitialStateEnd {
					synced = true
					check(o)
				}
				continue
			}
			switch uid := e.Object.GetMetadata().GetUid(); e.Type {
			case apiv1.EventType_EVENT_TYPE_ADDED, apiv1.EventType_EVENT_TYPE_MODIFIED:
				o.pods[uid] = e.Object
			case apiv1.EventType_EVENT_TYPE_DELETED:
				delete(o.pods, uid)
			}
			if synced {
				check(o)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// count returns how many pods are active, and how many of them ready.
func (o *observer) count() (active, ready int) {
	for _, p := range o.pods {
		if p.GetMetadata().GetDeletionTimestamp() != nil || core.IsPodFinished(p) {
			continue
		}
		active++
		if core.IsPodReady(p) {
			ready++
		}
	}
	return active, ready
}

// throughout fails when cond does not hold at any time within d.
func throughout(t *testing.T, d time.Duration, what string, cond func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		if err := cond(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// node makes a node with room for pods, and its heartbeat unless it is silent.
func node(t *testing.T, c *client.Client, name string) *corev1.Node {
	t.Helper()
	n := create(t, c, &corev1.Node{Metadata: meta("", name)})
	n.Status = &corev1.NodeStatus{
		Allocatable: quantities("cpu", "4", "memory", "8Gi", "pods", "110"),
		Conditions:  []*corev1.NodeCondition{{Type: "Ready", Status: "True", LastTransitionTime: timestamppb.Now()}},
	}
	n, err := client.UpdateStatus(t.Context(), c, n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// eventsOf returns reason and message of the events about an object.
func eventsOf(t *testing.T, c *client.Client, namespace, name string) []string {
	t.Helper()
	all, _, err := client.List[*corev1.Event](t.Context(), c, client.ListOptions{Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range all {
		if e.GetInvolvedObject().GetName() == name {
			found = append(found, fmt.Sprintf("%s %s: %s", e.GetType(), e.GetReason(), e.GetMessage()))
		}
	}
	slices.Sort(found)
	return found
}

func expectEvent(t *testing.T, c *client.Client, namespace, name, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("an event of %s that says %q", name, want), func() bool {
		return slices.ContainsFunc(eventsOf(t, c, namespace, name), func(e string) bool { return strings.Contains(e, want) })
	})
}

func get[T scheme.Object](t *testing.T, c *client.Client, namespace, name string) T {
	t.Helper()
	o, err := client.Get[T](t.Context(), c, namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// patch changes an object by a merge patch.
func patch[T scheme.Object](t *testing.T, c *client.Client, namespace, name, format string, args ...any) T {
	t.Helper()
	o, err := client.Patch[T](t.Context(), c, namespace, name, fmt.Appendf(nil, format, args...))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func podsOf(t *testing.T, c *client.Client, namespace, selector string) []*corev1.Pod {
	t.Helper()
	all, _, err := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{Namespace: namespace, LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func gone[T scheme.Object](t *testing.T, c *client.Client, namespace, name string) bool {
	t.Helper()
	_, err := client.Get[T](t.Context(), c, namespace, name)
	return apierr.IsNotFound(err)
}

func meta(namespace, name string) *metav1.ObjectMeta {
	return &metav1.ObjectMeta{Namespace: namespace, Name: name}
}

// quantities makes a resource list of pairs of name and amount.
func quantities(pairs ...string) map[string]*metav1.Quantity {
	q := map[string]*metav1.Quantity{}
	for i := 0; i < len(pairs); i += 2 {
		q[pairs[i]] = &metav1.Quantity{String_: pairs[i+1]}
	}
	return q
}

// toStatus is the border of a service: it turns errors into statuses.
func toStatus(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	return resp, apierr.From(err)
}
