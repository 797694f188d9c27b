package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/tests/cluster"
)

const (
	// connections make calls at once, each one after another.
	connections = 16
	// stored is how many objects there are to get.
	stored = 1000
	// objectBytes is the size of an object.
	objectBytes = 1024
)

func configMap(name string) (*anypb.Any, error) {
	return anypb.New(&corev1.ConfigMap{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name},
		Data:     map[string]string{"payload": strings.Repeat("x", objectBytes)},
	})
}

func create(ctx context.Context, api apiv1.ResourceServiceClient, name string) error {
	object, err := configMap(name)
	if err != nil {
		return err
	}
	_, err = api.Create(ctx, &apiv1.CreateRequest{Object: object})
	return err
}

// measureCreates makes objects for a while.
func measureCreates(ctx context.Context, b *bench) (result, error) {
	return b.calls(ctx, "creates", 0, func(ctx context.Context, api apiv1.ResourceServiceClient, caller, call int) error {
		return create(ctx, api, fmt.Sprintf("object-%d-%d", caller, call))
	})
}

// measureGets reads objects for a while.
func measureGets(ctx context.Context, b *bench) (result, error) {
	return b.calls(ctx, "gets", stored, func(ctx context.Context, api apiv1.ResourceServiceClient, _, _ int) error {
		name := "stored-" + strconv.Itoa(rand.IntN(stored))
		_, err := api.Get(ctx, &apiv1.GetRequest{Object: &apiv1.ObjectReference{Kind: "ConfigMap", Namespace: "default", Name: name}})
		return err
	})
}

// calls starts a master with some objects, makes calls over many connections to its gateway, and
// tells what they cost.
func (b *bench) calls(
	ctx context.Context,
	name string,
	objects int,
	call func(ctx context.Context, api apiv1.ResourceServiceClient, caller, call int) error,
) (result, error) {
	c, err := b.start(ctx, 1)
	if err != nil {
		return result{}, err
	}
	defer c.Close()
	callers, closeAll, err := dialMany(c, connections)
	if err != nil {
		return result{}, err
	}
	defer closeAll()
	if err := fill(ctx, callers, objects); err != nil {
		return result{}, err
	}
	// A second of warming up, then what counts.
	if _, err := load(ctx, time.Second, callers, func(ctx context.Context, api apiv1.ResourceServiceClient, caller, n int) error {
		return call(ctx, api, caller, -1-n)
	}); err != nil {
		return result{}, err
	}
	m, err := newMeter(c.Processes())
	if err != nil {
		return result{}, err
	}
	stop := b.profile(ctx, c, name, b.length)
	began := time.Now()
	latencies, err := load(ctx, b.length, callers, call)
	took := time.Since(began)
	if err := errors.Join(err, stop()); err != nil {
		return result{}, err
	}
	total, note, err := m.read()
	if err != nil {
		return result{}, err
	}
	n := len(latencies)
	return result{
		figure: fmt.Sprintf("%.0f/s, p50 %s, p99 %s, %.2f CPU-ms each", float64(n)/took.Seconds(),
			milliseconds(quantile(latencies, .5)), milliseconds(quantile(latencies, .99)), total.Seconds()*1000/float64(n)),
		notes: []string{fmt.Sprintf("%d calls; %s", n, note)},
	}, nil
}

// dialMany makes connections to the gateways, each used already.
func dialMany(c *cluster.Cluster, n int) (callers []apiv1.ResourceServiceClient, closeAll func(), err error) {
	var conns []*grpc.ClientConn
	closeAll = func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}
	for range n {
		conn, err := c.Dial("gateway")
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		conns = append(conns, conn)
		callers = append(callers, apiv1.NewResourceServiceClient(conn))
	}
	return callers, closeAll, nil
}

// fill makes the objects to read.
func fill(ctx context.Context, callers []apiv1.ResourceServiceClient, objects int) error {
	group, ctx := errgroup.WithContext(ctx)
	for i, api := range callers {
		group.Go(func() error {
			for n := i; n < objects; n += len(callers) {
				if err := create(ctx, api, "stored-"+strconv.Itoa(n)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// load makes every caller call one call after another for a while, and returns how long each took,
// sorted.
func load(
	ctx context.Context,
	length time.Duration,
	callers []apiv1.ResourceServiceClient,
	call func(ctx context.Context, api apiv1.ResourceServiceClient, caller, n int) error,
) ([]time.Duration, error) {
	end := time.Now().Add(length)
	var mu sync.Mutex
	var all []time.Duration
	group, ctx := errgroup.WithContext(ctx)
	for caller, api := range callers {
		group.Go(func() error {
			var own []time.Duration
			for n := 1; time.Now().Before(end); n++ {
				began := time.Now()
				if err := call(ctx, api, caller, n); err != nil {
					return err
				}
				own = append(own, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, own...)
			return nil
		})
	}
	err := group.Wait()
	slices.Sort(all)
	return all, err
}

const (
	// watchers is how many see each object.
	watchers = 100
	// watched is how many objects they see, one after another.
	watched = 300
)

// measureWatch makes objects one at a time and waits until all watchers have seen each.
func measureWatch(ctx context.Context, b *bench) (result, error) {
	c, err := b.start(ctx, 1)
	if err != nil {
		return result{}, err
	}
	defer c.Close()
	callers, closeAll, err := dialMany(c, watchers+1)
	if err != nil {
		return result{}, err
	}
	defer closeAll()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	seen := make(chan struct{}, watchers)
	for _, api := range callers[:watchers] {
		stream, err := api.Watch(ctx, &apiv1.WatchRequest{Kind: "ConfigMap", Namespace: "default"}, grpc.WaitForReady(true))
		if err != nil {
			return result{}, err
		}
		group.Go(func() error {
			for {
				resp, err := stream.Recv()
				if ctx.Err() != nil {
					return nil //nolint:nilerr // ctx ended
				}
				if err != nil {
					return err
				}
				if resp.GetInitialStateEnd() || resp.GetType() == apiv1.EventType_EVENT_TYPE_ADDED {
					seen <- struct{}{}
				}
			}
		})
	}
	everyone := func() error {
		for range watchers {
			select {
			case <-seen:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	if err := everyone(); err != nil {
		return result{}, err
	}
	m, err := newMeter(c.Processes())
	if err != nil {
		return result{}, err
	}
	var took []time.Duration
	for n := range watched {
		pause(ctx, 5*time.Millisecond)
		began := time.Now()
		if err := create(ctx, callers[watchers], "watched-"+strconv.Itoa(n)); err != nil {
			return result{}, err
		}
		if err := everyone(); err != nil {
			return result{}, err
		}
		took = append(took, time.Since(began))
	}
	_, note, err := m.read()
	if err != nil {
		return result{}, err
	}
	cancel()
	if err := group.Wait(); err != nil {
		return result{}, err
	}
	slices.Sort(took)
	return result{
		figure: fmt.Sprintf("p50 %s, p99 %s", milliseconds(quantile(took, .5)), milliseconds(quantile(took, .99))),
		notes:  []string{fmt.Sprintf("%d creates, a connection per watcher; %s", watched, note)},
	}, nil
}
