package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

const (
	// kills is how many leaders die, one after another.
	kills = 3
	// around is how long writes go on before and after a kill.
	around = 4 * time.Second
)

// writer writes one object after another through the gateways, with a timeout of its own, and notes
// when each was acknowledged.
type writer struct {
	api     apiv1.ResourceServiceClient
	timeout time.Duration

	mu           sync.Mutex
	acknowledged []time.Time
	failed       int
}

func (w *writer) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		call, cancel := context.WithTimeout(ctx, w.timeout)
		err := create(call, w.api, fmt.Sprintf("written-%d-%d", w.timeout.Milliseconds(), n))
		cancel()
		w.mu.Lock()
		if err == nil {
			w.acknowledged = append(w.acknowledged, time.Now())
		} else {
			w.failed++
		}
		w.mu.Unlock()
		// Two clients that write as fast as they can would only measure each other.
		pause(ctx, 5*time.Millisecond)
	}
}

// gap returns the longest time between acknowledgements since a moment.
func (w *writer) gap(since time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	longest, last := time.Duration(0), since
	for _, t := range w.acknowledged {
		if t.After(since) {
			longest = max(longest, t.Sub(last))
			last = t
		}
	}
	return max(longest, time.Since(last))
}

// measureFailover kills all processes of the master whose etcd leads, several times, while clients
// write.
func measureFailover(ctx context.Context, b *bench) (result, error) {
	c, err := b.start(ctx, 3)
	if err != nil {
		return result{}, err
	}
	defer c.Close()
	callers, closeAll, err := dialMany(c, 2)
	if err != nil {
		return result{}, err
	}
	defer closeAll()
	writers := []*writer{{api: callers[0], timeout: 250 * time.Millisecond}, {api: callers[1], timeout: 30 * time.Second}}
	work, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for _, w := range writers {
		all.Go(func() { w.run(work) })
	}
	defer all.Wait()
	defer cancel()

	gaps := make([][]time.Duration, len(writers))
	for range kills {
		pause(ctx, around)
		leader, err := c.EtcdLeader(ctx)
		if err != nil {
			return result{}, err
		}
		killed := time.Now()
		// All at once, as when the machine goes.
		var dying sync.WaitGroup
		for _, p := range leader.Processes() {
			dying.Go(p.Kill)
		}
		dying.Wait()
		pause(ctx, around)
		for i, w := range writers {
			gaps[i] = append(gaps[i], w.gap(killed))
		}
		for _, p := range leader.Processes() {
			if err := p.Start(); err != nil {
				return result{}, err
			}
		}
		if err := c.WaitServing(ctx); err != nil {
			return result{}, err
		}
	}
	var figures, notes []string
	for i, w := range writers {
		slices.Sort(gaps[i])
		figures = append(figures, fmt.Sprintf("%.2f s with %s", gaps[i][kills/2].Seconds(), w.timeout))
		notes = append(notes, fmt.Sprintf("client timeout %s: gaps %v, %d writes, %d failed", w.timeout, gaps[i], len(w.acknowledged), w.failed))
	}
	if ctx.Err() != nil {
		return result{}, errors.New("no time left")
	}
	return result{
		figure: strings.Join(figures, "; "),
		notes:  append(notes, fmt.Sprintf("the median of %d kills of all of a master's processes", kills)),
	}, nil
}
