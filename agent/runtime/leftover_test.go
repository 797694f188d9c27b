package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
)

// TestLeftovers looks for what commands leave running in a container.
func TestLeftovers(t *testing.T) {
	n := start(t)
	// The first process of the container collects orphans, as a shell does while it waits.
	s := n.start(n.config("main", "sh", "-c", "sleep 7000 & while :; do sleep 0.1 & wait $!; done"))
	// sleeps returns the arguments of the sleep commands that run, of those from the 1000th second on.
	sleeps := func() []string {
		t.Helper()
		var out bytes.Buffer
		if code, err := n.rt.Exec(t.Context(), s.ID, runtime.ExecConfig{Command: []string{"busybox", "ps", "-o", "args"}, Stdout: &out}); err != nil || code != 0 {
			t.Fatalf("ps: code %d, %v", code, err)
		}
		var found []string
		for line := range strings.Lines(out.String()) {
			if args, ok := strings.CutPrefix(strings.TrimSpace(line), "sleep "); ok && len(args) == 4 {
				found = append(found, args)
			}
		}
		slices.Sort(found)
		return found
	}
	expect := func(what string, want ...string) {
		t.Helper()
		containerdtest.Eventually(t, 60*time.Second, what, func() bool { return slices.Equal(sleeps(), append(slices.Clone(want), "7000")) })
	}
	run := func(ctx context.Context, alone bool, script string) (uint32, error) {
		return n.rt.Exec(ctx, s.ID, runtime.ExecConfig{Command: []string{"sh", "-c", script}, Alone: alone})
	}
	cancelled := func(script string, begun ...string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() {
			_, err := run(ctx, false, script)
			over <- err
		}()
		expect("the command has begun", begun...)
		cancel()
		if err := <-over; !errors.Is(err, context.Canceled) {
			t.Errorf("the command ended with %v", err)
		}
	}

	cancelled("sleep 1000 & sleep 1001; sleep 1002", "1000", "1001")
	expect("children end with a command that is cut off")
	cancelled("busybox setsid sleep 1000 & sh -c 'busybox setsid sh -c \"sleep 1001; true\"; true' & (sleep 1002 &); sleep 1003", "1000", "1001", "1002", "1003")
	expect("descendants of other sessions, and orphans of the command's session, end too")

	if code, err := run(t.Context(), false, "sleep 2000 & exit 3"); err != nil || code != 3 {
		t.Errorf("code %d, %v", code, err)
	}
	expect("what a command that ends leaves behind goes on", "2000")
	if code, err := run(t.Context(), true, "sleep 2001 & (sleep 2002 &); exit 0"); err != nil || code != 0 {
		t.Errorf("code %d, %v", code, err)
	}
	expect("what a command leaves behind ends with it where that is asked for, and nothing else does", "2000")

	// The agent that ran the command is killed.
	over := make(chan string, 1)
	go func() {
		code, err := run(context.WithoutCancel(t.Context()), false, "sleep 3000 & sleep 3001")
		over <- fmt.Sprint(code, err)
	}()
	expect("the command has begun", "2000", "3000", "3001")
	status, err := n.rt.Status(t.Context(), s.ID)
	if err == nil {
		err = n.rt.EndCommands(t.Context(), status)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := <-over; !strings.HasPrefix(got, "137") {
		t.Errorf("the command ended with %s", got)
	}
	expect("commands of an agent that is gone are ended, and nothing else is", "2000")
	if status, err := n.rt.Status(t.Context(), s.ID); err != nil || status.State != runtime.Running {
		t.Errorf("the container is %+v, %v", status, err)
	}
}
