package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/scheduler/schedulerperftest"
)

const (
	// creators is how many creates are under way at a time.
	creators = 16
	// perfLimit bounds a row of scheduler_perf: some create 50,000 pods.
	perfLimit = 6 * time.Minute
)

// schedulerPerfRows are the workloads of Kubernetes' benchmark, each a row that -run has to name.
func schedulerPerfRows() []row {
	var rows []row
	for _, w := range schedulerperftest.Workloads {
		demanded := "-"
		if w.Threshold > 0 {
			demanded = fmt.Sprintf("at least %d pods/s", w.Threshold)
		}
		rows = append(rows, row{
			name:  "sched-" + w.Name,
			title: fmt.Sprintf("scheduler_perf %s, %d nodes, %d pods, with API and etcd", w.Name, len(w.AllNodes()), w.Measured.Count),
			// These are the thresholds of Kubernetes' own tests, not figures of a machine of this kind.
			kubernetes: demanded, aim: "-",
			measure: func(ctx context.Context, b *bench) (result, error) { return measureSchedulerPerf(ctx, b, w) },
			limit:   func(*bench) time.Duration { return perfLimit },
		})
	}
	return rows
}

// measureSchedulerPerf creates the nodes and pods of a workload, and returns the pods per second
// from the first create to the last binding. The nodes are objects alone, as in Kubernetes'
// benchmark, and no service but the scheduler acts on them.
func measureSchedulerPerf(ctx context.Context, b *bench, w schedulerperftest.Workload) (result, error) {
	c, err := b.startServices(ctx, "etcd", "apiserver", "auth", "gateway", "scheduler")
	if err != nil {
		return result{}, err
	}
	defer c.Close()
	conn, err := c.Dial("gateway")
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	api := client.New(conn)
	if err := prepare(ctx, api, w); err != nil {
		return result{}, err
	}
	m, err := newMeter(c.Processes())
	if err != nil {
		return result{}, err
	}
	stop := b.profile(ctx, c, "sched-"+w.Name, b.length)
	background, cancel := context.WithCancel(ctx)
	disturbances, background := errgroup.WithContext(background)
	if w.Churn != nil {
		disturbances.Go(func() error {
			return everySecond(background, schedulerperftest.ChurnPerSecond, func(i int) error {
				_, err := client.Create(background, api, w.Churn.Pod(i))
				return err
			})
		})
	}
	if w.Deleted != nil {
		disturbances.Go(func() error {
			return everySecond(background, schedulerperftest.DeletionsPerSecond, func(i int) error {
				_, err := client.Delete[*corev1.Pod](background, api, w.Deleted.Namespace, w.Deleted.Pod(i%w.Deleted.Count).GetMetadata().GetName())
				return err
			})
		})
	}
	began := time.Now()
	err = schedule(ctx, api, w.Measured)
	took := time.Since(began)
	cancel()
	if err := errors.Join(err, disturbances.Wait(), stop()); err != nil {
		return result{}, err
	}
	cpu, note, err := m.read()
	if err != nil {
		return result{}, err
	}
	n := float64(w.Measured.Count)
	return result{
		figure: fmt.Sprintf("%.0f pods/s, %.2f CPU-ms each", n/took.Seconds(), cpu.Seconds()*1000/n),
		notes:  []string{note},
	}, nil
}

// prepare creates what is there before the measurement.
func prepare(ctx context.Context, api *client.Client, w schedulerperftest.Workload) error {
	if _, err := client.Create(ctx, api, schedulerperftest.Class()); err != nil {
		return err
	}
	for _, name := range schedulerperftest.Namespaces {
		if _, err := client.Create(ctx, api, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: name}}); err != nil {
			return err
		}
	}
	nodes := w.AllNodes()
	err := createAll(ctx, len(nodes), func(ctx context.Context, i int) error {
		n, err := client.Create(ctx, api, &corev1.Node{Metadata: nodes[i].GetMetadata()})
		if err != nil {
			return err
		}
		n.Status = nodes[i].GetStatus()
		_, err = client.UpdateStatus(ctx, api, n)
		return err
	})
	if err != nil {
		return fmt.Errorf("create the nodes: %w", err)
	}
	if w.Waiting != nil {
		if err := createPods(ctx, api, w.Waiting); err != nil {
			return err
		}
	}
	for _, p := range []*schedulerperftest.Pods{w.Initial, w.Deleted} {
		if p == nil {
			continue
		}
		if err := schedule(ctx, api, p); err != nil {
			return err
		}
	}
	// What the last pods set going is over by then.
	pause(ctx, 3*time.Second)
	return nil
}

// schedule creates pods and waits until all are bound.
func schedule(ctx context.Context, api *client.Client, pods *schedulerperftest.Pods) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return createPods(ctx, api, pods) })
	group.Go(func() error {
		names := make(map[string]bool, pods.Count)
		for i := range pods.Count {
			names[pods.Pod(i).GetMetadata().GetName()] = true
		}
		for event, err := range client.Watch[*corev1.Pod](ctx, api, client.WatchOptions{Namespace: pods.Namespace}) {
			if err != nil {
				return fmt.Errorf("with %d of %d pods %s not bound: %w", len(names), pods.Count, pods.Name, err)
			}
			if event.Object.GetSpec().GetNodeName() != "" {
				delete(names, event.Object.GetMetadata().GetName())
			}
			if len(names) == 0 {
				return nil
			}
		}
		return errors.New("the watch ended")
	})
	return group.Wait()
}

func createPods(ctx context.Context, api *client.Client, pods *schedulerperftest.Pods) error {
	return createAll(ctx, pods.Count, func(ctx context.Context, i int) error { return createOne(ctx, api, pods.Pod(i)) })
}

func createOne[T scheme.Object](ctx context.Context, api *client.Client, object T) error {
	_, err := client.Create(ctx, api, object)
	return err
}

// createAll makes count calls, some at a time, and ends at the first error.
func createAll(ctx context.Context, count int, call func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(creators)
	for i := range count {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return call(ctx, i)
		})
	}
	return group.Wait()
}

// everySecond makes so many calls per second until the context ends.
func everySecond(ctx context.Context, calls int, call func(i int) error) error {
	ticker := time.NewTicker(time.Second / time.Duration(calls))
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := call(i); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}
