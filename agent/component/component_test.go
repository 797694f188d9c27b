package component_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/xebec-project/xebec/agent/component"
)

// journal records the order of calls.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) want(t *testing.T, lines ...string) {
	t.Helper()
	if !slices.Equal(j.lines, lines) {
		t.Errorf("calls %q, want %q", j.lines, lines)
	}
}

// named returns a component that records its start and stop, with a task that records the end of
// its context.
func (j *journal) named(name string) component.Component {
	return component.Component{
		Name: name,
		Start: func(ctx context.Context, tasks *component.Tasks) error {
			j.add("start " + name)
			tasks.Go(func() error {
				<-ctx.Done()
				return ctx.Err()
			})
			return nil
		},
		Stop: func() { j.add("stop " + name) },
	}
}

func TestRunStopsInReverseOrder(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var j journal
	last := component.Component{Name: "last", Start: func(context.Context, *component.Tasks) error {
		cancel()
		return nil
	}}
	if err := component.Run(ctx, []component.Component{j.named("a"), j.named("b"), last}); !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v, want the context's error", err)
	}
	j.want(t, "start a", "start b", "stop b", "stop a")
}

func TestRunStopsWhatStartedWhenAStartFails(t *testing.T) {
	var j journal
	broken := j.named("broken")
	failure := errors.New("no such device")
	broken.Start = func(context.Context, *component.Tasks) error { return failure }
	err := component.Run(t.Context(), []component.Component{j.named("a"), broken, j.named("c")})
	if !errors.Is(err, failure) || err.Error() != "broken: no such device" {
		t.Errorf("Run returned %v, want the failure of the component and its name", err)
	}
	j.want(t, "start a", "stop a")
}

func TestRunReturnsTheFirstFailureOfATask(t *testing.T) {
	var j journal
	failure := errors.New("connection refused")
	late := component.Component{Name: "late", Start: func(ctx context.Context, tasks *component.Tasks) error {
		tasks.Go(func() error {
			<-ctx.Done()
			return errors.New("too late")
		})
		return nil
	}}
	failing := component.Component{Name: "failing", Start: func(_ context.Context, tasks *component.Tasks) error {
		tasks.Go(func() error {
			tasks.Go(func() error { return failure }) // tasks may have tasks
			return nil
		})
		return nil
	}}
	if err := component.Run(t.Context(), []component.Component{j.named("a"), late, failing}); !errors.Is(err, failure) {
		t.Errorf("Run returned %v, want %v", err, failure)
	}
	j.want(t, "start a", "stop a")
}

func TestStopFollowsTheTasks(t *testing.T) {
	var j journal
	ctx, cancel := context.WithCancel(t.Context())
	c := component.Component{
		Name: "slow",
		Start: func(ctx context.Context, tasks *component.Tasks) error {
			tasks.Go(func() error {
				<-ctx.Done()
				j.add("task ended")
				return ctx.Err()
			})
			cancel()
			return nil
		},
		Stop: func() { j.add("stop") },
	}
	if err := component.Run(ctx, []component.Component{c}); !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
	j.want(t, "task ended", "stop")
}
