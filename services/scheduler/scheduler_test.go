package scheduler

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/plugins"
	"github.com/xebec-project/xebec/services/scheduler/plugins/noderesources"
)

// run runs a scheduler on the fake API until stop is called or the test ends.
func run(t *testing.T, cfg Config, c *client.Client) (stop func()) {
	t.Helper()
	s, err := New(cfg, Deps{Host: "master-1", Client: c, Logger: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("the scheduler stopped: %v", err)
		}
	})
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// eventually waits on the fake clock until cond holds, and returns how long that took.
func eventually(t *testing.T, what string, cond func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	for time.Since(begun) < time.Minute {
		synctest.Wait()
		if cond() {
			return time.Since(begun)
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Fatalf("not within a minute: %s", what)
	return 0
}

func getPod(t *testing.T, c *client.Client, name string) *corev1.Pod {
	t.Helper()
	p, err := client.Get[*corev1.Pod](t.Context(), c, "default", name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// unbound returns how many pods have no node.
func unbound(t *testing.T, c *client.Client) int {
	t.Helper()
	left, _, err := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{FieldSelector: "spec.nodeName="})
	if err != nil {
		t.Fatal(err)
	}
	return len(left)
}

// eventsOf returns a pod's events with this reason, and the message of the last.
func eventsOf(t *testing.T, c *client.Client, name, reason string) (count int, message string) {
	t.Helper()
	all, _, err := client.List[*corev1.Event](t.Context(), c, client.ListOptions{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.GetInvolvedObject().GetName() == name && e.GetReason() == reason {
			count += int(max(e.GetCount(), 1))
			message = e.GetMessage()
		}
	}
	return count, message
}

func TestPodsAreBoundInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		for i := range 4 {
			clienttest.Seed(s, newNode(fmt.Sprint("n", i), "100"))
		}
		for i := range 120 {
			clienttest.Seed(s, newPod(fmt.Sprint("p", i), "1"))
		}
		var mu sync.Mutex // of batches: bindings are concurrent
		var batches []int
		s.Intercept(func(method string, req proto.Message) error {
			if tx, ok := req.(*apiv1.TransactRequest); ok && tx.GetOperations()[0].GetBind() != nil {
				if tx.GetFence() == nil {
					t.Error("a binding is not fenced by the election")
				}
				mu.Lock()
				defer mu.Unlock()
				batches = append(batches, len(tx.GetOperations()))
			}
			return nil
		})
		cfg := DefaultConfig()
		cfg.BatchSize = 50
		run(t, cfg, c)
		eventually(t, "all pods are bound", func() bool { return unbound(t, c) == 0 })
		mu.Lock()
		defer mu.Unlock()
		total := 0
		for _, n := range batches {
			total += n
		}
		if len(batches) != 3 || total != 120 {
			t.Errorf("batches of %v, want 50, 50 and 20", batches)
		}
		eventually(t, "an event tells the node", func() bool {
			n, message := eventsOf(t, c, "p7", "Scheduled")
			return n == 1 && message == "Successfully assigned default/p7 to "+getPod(t, c, "p7").GetSpec().GetNodeName()
		})
	})
}

func TestUnschedulablePods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, newNode("n", "1"))
		clienttest.Seed(s, newPod("large", "4"))
		run(t, DefaultConfig(), c)
		condition := func() *corev1.PodCondition { return core.PodCondition(getPod(t, c, "large"), "PodScheduled") }
		const message = "0/1 nodes are available: 1 Insufficient cpu. " +
			"preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
		eventually(t, "the pod is reported", func() bool { return condition().GetMessage() == message })
		if got := condition(); got.GetStatus() != "False" || got.GetReason() != "Unschedulable" {
			t.Errorf("condition %v", got)
		}
		eventually(t, "an event says why", func() bool {
			_, got := eventsOf(t, c, "large", "FailedScheduling")
			return got == message
		})

		// What does not help causes no attempt, and so no event. Without events, the pod is tried every
		// five minutes.
		clienttest.Seed(s, newNode("n", "2"))
		clienttest.Seed(s, newPod("other", "1", on("n")))
		clienttest.Remove(s, getPod(t, c, "other"))
		<-time.After(4 * time.Minute)
		if n, _ := eventsOf(t, c, "large", "FailedScheduling"); n != 1 {
			t.Errorf("the pod was tried %d times", n)
		}
		writes := s.Calls("UpdateStatus")
		<-time.After(2 * time.Minute)
		if n, _ := eventsOf(t, c, "large", "FailedScheduling"); n != 2 {
			t.Errorf("the pod was tried %d times in six minutes, want twice", n)
		}
		if got := s.Calls("UpdateStatus"); got != writes {
			t.Error("the same condition was written again")
		}

		clienttest.Seed(s, newNode("n", "4"))
		if took := eventually(t, "the pod is bound", func() bool { return unbound(t, c) == 0 }); took > time.Second {
			t.Errorf("it took %v from the change that helped", took)
		}
	})
}

// TestReportsDelayNoPod has a status API that does not answer.
func TestReportsDelayNoPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, newNode("n", "4"))
		for i := range 100 {
			clienttest.Seed(s, newPod(fmt.Sprint("large", i), "8"))
		}
		release := make(chan struct{})
		s.Intercept(func(method string, _ proto.Message) error {
			if method == "UpdateStatus" {
				<-release
			}
			return nil
		})
		stop := run(t, DefaultConfig(), c)
		eventually(t, "a report is under way", func() bool { return s.Calls("UpdateStatus") > 0 })
		clienttest.Seed(s, newPod("small", "1"))
		eventually(t, "the pod that fits is bound", func() bool { return getPod(t, c, "small").GetSpec().GetNodeName() == "n" })
		close(release)
		stop()
	})
}

// lossy loses the answers to the first writes: they are done, and the caller does not know.
type lossy struct {
	grpc.ClientConnInterface
	mu   sync.Mutex
	lose int
}

func (l *lossy) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	err := l.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if tx, ok := args.(*apiv1.TransactRequest); ok && tx.GetOperations()[0].GetBind() != nil && err == nil && l.lose > 0 {
		l.lose--
		return apierr.Unavailable("the answer was lost")
	}
	return err
}

func TestLostAnswersOfBindings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := clienttest.NewServer()
		conn := &lossy{ClientConnInterface: clienttest.Serve(t, s), lose: 3}
		c := client.New(conn)
		clienttest.Seed(s, newNode("n", "10"))
		for i := range 10 {
			clienttest.Seed(s, newPod(fmt.Sprint("p", i), "1"))
		}
		run(t, DefaultConfig(), c)
		eventually(t, "all pods are bound, with an event", func() bool {
			for i := range 10 {
				if n, _ := eventsOf(t, c, fmt.Sprint("p", i), "Scheduled"); n != 1 {
					return false
				}
			}
			return unbound(t, c) == 0
		})
	})
}

// TestNextLeaderGoesOn stops a leader whose bindings have no answer, and starts another.
func TestNextLeaderGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, newNode("n", "2"))
		clienttest.Seed(s, newPod("a", "1"), newPod("b", "1"), newPod("c", "1"))
		s.Intercept(func(method string, req proto.Message) error {
			if tx, ok := req.(*apiv1.TransactRequest); ok && tx.GetOperations()[0].GetBind() != nil {
				return apierr.Unavailable("no quorum")
			}
			return nil
		})
		stop := run(t, DefaultConfig(), c)
		eventually(t, "the pod for which no room is left is reported", func() bool {
			return core.PodCondition(getPod(t, c, "c"), "PodScheduled").GetStatus() == "False"
		})
		stop()
		s.Intercept(nil)
		if n := unbound(t, c); n != 3 {
			t.Fatalf("%d pods are bound without an API", 3-n)
		}
		run(t, DefaultConfig(), c)
		eventually(t, "two pods are bound", func() bool { return unbound(t, c) == 1 })
	})
}

func TestConfig(t *testing.T) {
	with := func(profiles ...Profile) Config { return Config{SchedulerName: "a", BatchSize: 1, Profiles: profiles} }
	changed := func(c plugins.Config) Profile { return Profile{SchedulerName: "b", Config: c} }
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default configuration: %v", err)
	}
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{BatchSize: 1}, "schedulerName: is required"},
		{Config{SchedulerName: "a"}, "batchSize: must be 1 to 500, is 0"},
		{Config{SchedulerName: "a", BatchSize: 501}, "batchSize: must be 1 to 500, is 501"},
		{with(Profile{}), `schedulerProfiles[0].schedulerName: invalid name ""`},
		{with(Profile{SchedulerName: "b"}, Profile{SchedulerName: "b"}), `schedulerProfiles[1].schedulerName: "b" has a profile already`},
		{with(changed(plugins.Config{Disabled: []string{"NodePort"}})), `schedulerProfiles[0].disabled[0]: unknown plug-in "NodePort", did you mean NodePorts?`},
		{with(changed(plugins.Config{Weights: map[string]int{"InterpodAffinity": 1}})),
			`schedulerProfiles[0].weights: unknown plug-in "InterpodAffinity", did you mean InterPodAffinity?`},
		{with(changed(plugins.Config{Weights: map[string]int{"NodePorts": 1}})), "schedulerProfiles[0].weights: plug-in NodePorts does not rate nodes"},
		{with(changed(plugins.Config{Weights: map[string]int{"NodeAffinity": 0}})), "schedulerProfiles[0].weights.NodeAffinity: must be 1 to 100, is 0"},
		{with(changed(plugins.Config{ScoringStrategy: noderesources.Strategy{Type: "Most"}})), `schedulerProfiles[0].scoringStrategy.type: unknown strategy "Most"`},
		{with(changed(plugins.Config{ScoringStrategy: noderesources.Strategy{Type: "RequestedToCapacityRatio"}})),
			"schedulerProfiles[0].scoringStrategy.shape: at least one point is required"},
		{with(changed(plugins.Config{DefaultConstraints: &[]plugins.Constraint{{MaxSkew: 1, TopologyKey: "zone"}}})),
			`schedulerProfiles[0].defaultConstraints[0].whenUnsatisfiable: want DoNotSchedule or ScheduleAnyway, not ""`},
	} {
		if _, err := New(tt.cfg, Deps{Host: "h"}); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.cfg, err, tt.want)
		}
	}
}

// TestProfilesByName schedules pods by the profiles that they name.
func TestProfilesByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Profiles = []Profile{{SchedulerName: "packing", Config: plugins.Config{
			ScoringStrategy: noderesources.Strategy{Type: noderesources.MostAllocated}, Weights: map[string]int{"NodeResourcesFit": 100},
		}}}
		l := idleLoopWith(t, cfg)
		l.nodeChanged(nil, newNode("empty", "8"))
		l.nodeChanged(nil, newNode("full", "8"))
		l.podChanged(nil, newPod("x", "4", on("full")))
		named := func(name string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.SchedulerName = name } }
		l.podChanged(nil, newPod("p", "1"))
		l.podChanged(nil, newPod("q", "1", named("packing")))
		l.podChanged(nil, newPod("r", "1", named("other")))
		if got, _, _ := scheduled(l); got != "p@empty q@full" {
			t.Errorf("assigned %s", got)
		}
	})
}
