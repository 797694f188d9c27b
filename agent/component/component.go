// Package component starts the parts of a program in order, runs them until one fails or the
// program ends, and stops them in the reverse order.
package component

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Component is one part of a program.
type Component struct {
	// Name identifies the component in errors.
	Name string
	// Start prepares the component and returns when the components after it may use it. What the
	// component does from then on are its tasks. The context ends when the first component fails or
	// the program ends.
	Start func(ctx context.Context, tasks *Tasks) error
	// Stop releases what Start took, after the component's tasks have returned. It is not called when
	// Start failed. Nil: there is nothing to release.
	Stop func()
}

// Tasks are the goroutines of one component. A task returns when the context of Start ends; an
// error before that ends all components.
type Tasks struct {
	wg   sync.WaitGroup
	fail func(error)
}

// Go runs a task. Start may call it, and so may a task of the same component.
func (t *Tasks) Go(task func() error) {
	t.wg.Go(func() {
		if err := task(); err != nil {
			t.fail(err)
		}
	})
}

// Run starts the components in order, and stops them in the reverse order after ctx ends or one of
// them fails. It returns the first failure, or the cause of ctx's end.
func Run(ctx context.Context, components []Component) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type started struct {
		tasks *Tasks
		stop  func()
	}
	var all []started
	for _, c := range components {
		if ctx.Err() != nil {
			break
		}
		fail := func(err error) { cancel(fmt.Errorf("%s: %w", c.Name, err)) }
		tasks := &Tasks{fail: fail}
		stop := c.Stop
		if err := c.Start(ctx, tasks); err != nil {
			fail(err)
			stop = nil
		}
		all = append(all, started{tasks, stop})
	}
	<-ctx.Done()
	for _, s := range slices.Backward(all) {
		s.tasks.wg.Wait()
		if s.stop != nil {
			s.stop()
		}
	}
	return context.Cause(ctx)
}
