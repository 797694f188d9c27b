package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	jobNodes = 500
	jobs     = 10000
	cronJobs = 1000
	// jobsLimit bounds a row: nodes start at 100 per second, and CronJobs wait for a minute to begin.
	jobsLimit = 5 * time.Minute
)

func jobsFor(*bench) time.Duration { return jobsLimit }

func jobSpec() *batchv1.JobSpec {
	return &batchv1.JobSpec{Template: &corev1.PodTemplateSpec{Spec: &corev1.PodSpec{
		RestartPolicy: core.RestartNever, Containers: []*corev1.Container{{Name: "main", Image: "bench:1"}},
	}}}
}

// startJobs brings up a control plane with as many simulated nodes as Jobs need.
func startJobs(ctx context.Context, b *bench) (*simulation, error) {
	return b.startSimulation(ctx, jobNodes, func(service string, settings map[string]any) {
		// The default range has room for 256 nodes.
		switch service {
		case "nodes", "cloud":
			settings["clusterCIDR"] = crowdCIDR
		}
	})
}

// measureJobs creates Jobs of one pod each, and waits until all are complete.
func measureJobs(ctx context.Context, b *bench) (result, error) {
	sim, err := startJobs(ctx, b)
	if err != nil {
		return result{}, err
	}
	defer sim.close()
	c, api := sim.cluster, sim.api
	m, err := newMeter(c.Processes())
	if err != nil {
		return result{}, err
	}
	stop := b.profile(ctx, c, "jobs", b.length)
	began := time.Now()
	var created time.Duration
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := createAll(groupCtx, jobs, func(ctx context.Context, i int) error {
			return createOne(ctx, api, &batchv1.Job{
				Metadata: &metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("job-", i)}, Spec: jobSpec(),
			})
		})
		created = time.Since(began)
		return err
	})
	group.Go(func() error { return waitComplete(groupCtx, api) })
	err = group.Wait()
	took := time.Since(began)
	if err := errors.Join(err, stop()); err != nil {
		return result{}, err
	}
	cpu, note, err := m.read()
	if err != nil {
		return result{}, err
	}
	return result{
		figure: fmt.Sprintf("%.1f s, %.0f Jobs/s, %.2f CPU-ms each", took.Seconds(), jobs/took.Seconds(), cpu.Seconds()*1000/jobs),
		notes:  []string{fmt.Sprintf("all were created after %.1f s", created.Seconds()), note},
	}, nil
}

// waitComplete watches Jobs until all are complete. One that counts another number of pods than its
// own is an error.
func waitComplete(ctx context.Context, api *client.Client) error {
	complete := map[string]bool{}
	for event, err := range client.Watch[*batchv1.Job](ctx, api, client.WatchOptions{Namespace: "default"}) {
		if err != nil {
			return fmt.Errorf("with %d Jobs complete: %w", len(complete), err)
		}
		st, name := event.Object.GetStatus(), event.Object.GetMetadata().GetName()
		if st.GetCompletionTime() == nil {
			continue
		}
		if st.GetSucceeded() != 1 || st.GetFailed() != 0 {
			return fmt.Errorf("job %s counts %d succeeded and %d failed pods, of one pod", name, st.GetSucceeded(), st.GetFailed())
		}
		if complete[name] = true; len(complete) == jobs {
			return nil
		}
	}
	return errors.New("the watch ended")
}

// measureCronJobs creates CronJobs that are due every minute, and waits for the Jobs of the second
// minute that begins after all are there.
func measureCronJobs(ctx context.Context, b *bench) (result, error) {
	sim, err := startJobs(ctx, b)
	if err != nil {
		return result{}, err
	}
	defer sim.close()
	c, api := sim.cluster, sim.api
	// None is due before all are there: a minute has more than the half that this leaves.
	if second := time.Now().Second(); second > 30 {
		pause(ctx, time.Duration(61-second)*time.Second)
	}
	err = createAll(ctx, cronJobs, func(ctx context.Context, i int) error {
		return createOne(ctx, api, &batchv1.CronJob{
			Metadata: &metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("cron-", i)},
			Spec: &batchv1.CronJobSpec{
				Schedule: "* * * * *", Suspend: proto.Bool(false), JobTemplate: &batchv1.JobTemplateSpec{Spec: jobSpec()},
			},
		})
	})
	if err != nil {
		return result{}, err
	}
	due := time.Now().Truncate(time.Minute).Add(time.Minute)
	pause(ctx, time.Until(due)-time.Second)
	m, err := newMeter(c.Processes())
	if err != nil {
		return result{}, err
	}
	late, complete, err := watchDue(ctx, api, due)
	if err != nil {
		return result{}, err
	}
	cpu, note, err := m.read()
	if err != nil {
		return result{}, err
	}
	slices.Sort(late)
	return result{
		figure: fmt.Sprintf("Jobs created p50 %s, last %s; all complete after %.1f s; %.2f CPU-s",
			milliseconds(quantile(late, 0.5)), milliseconds(late[len(late)-1]), complete.Seconds(), cpu.Seconds()),
		notes: []string{note},
	}, nil
}

// watchDue returns how long after the due time the Job of each CronJob was seen, and when the last
// one was complete.
func watchDue(ctx context.Context, api *client.Client, due time.Time) (late []time.Duration, complete time.Duration, err error) {
	seen, done := map[string]bool{}, map[string]bool{}
	for event, err := range client.Watch[*batchv1.Job](ctx, api, client.WatchOptions{Namespace: "default"}) {
		if err != nil {
			return nil, 0, fmt.Errorf("with %d Jobs created and %d complete: %w", len(seen), len(done), err)
		}
		meta := event.Object.GetMetadata()
		created := meta.GetCreationTimestamp().AsTime()
		if meta == nil || created.Before(due) || !created.Before(due.Add(time.Minute)) {
			continue // Of another minute.
		}
		name := meta.GetName()
		if !seen[name] {
			seen[name], late = true, append(late, time.Since(due))
		}
		if event.Object.GetStatus().GetCompletionTime() != nil {
			done[name] = true
		}
		switch {
		case len(seen) > cronJobs:
			return nil, 0, fmt.Errorf("%d CronJobs made more Jobs than one each", cronJobs)
		case len(done) == cronJobs:
			return late, time.Since(due), nil
		}
	}
	return nil, 0, errors.New("the watch ended")
}
