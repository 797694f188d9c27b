package linearizability

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/xebec-project/xebec/tests/cluster"
)

// faults breaks one process at a time, for as long as ctx lasts, and repairs it.
type faults struct {
	cluster *cluster.Cluster
	random  *rand.Rand
	logf    func(format string, args ...any)
	count   map[string]int
}

func (f *faults) run(ctx context.Context) error {
	kinds := []struct {
		name   string
		member func(context.Context) (*cluster.Process, error)
		broken time.Duration // at most
		pause  bool
	}{
		{"kill apiserver", f.apiserver, time.Second, false},
		{"kill etcd leader", f.leader, 2 * time.Second, false},
		{"pause apiserver", f.apiserver, time.Second, true},
		{"pause etcd leader", f.leader, 3 * time.Second, true},
	}
	for round := 0; ; round++ {
		if !sleep(ctx, 500*time.Millisecond+time.Duration(f.random.Int64N(int64(time.Second)))) {
			return nil
		}
		// In turn, so that a short run has all of them.
		fault := kinds[round%len(kinds)]
		p, err := fault.member(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // ctx ended
		}
		if err != nil {
			return err
		}
		f.count[fault.name]++
		began := time.Now()
		length := fault.broken/4 + time.Duration(f.random.Int64N(int64(fault.broken*3/4)))
		if fault.pause {
			p.Pause()
			sleep(ctx, length)
			p.Resume()
		} else {
			p.Kill()
			sleep(ctx, length)
			if err := p.Start(); err != nil {
				return err
			}
		}
		// The next fault waits until all is well: the test is about the loss of one of three, not two.
		if err := p.WaitServing(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("after %s: %w", fault.name, err)
		}
		f.logf(
			"%s, %s: broken for %s, back after %s",
			fault.name,
			p.Name(),
			length.Round(time.Millisecond),
			time.Since(began).Round(time.Millisecond),
		)
	}
}

func (f *faults) apiserver(context.Context) (*cluster.Process, error) {
	masters := f.cluster.Masters()
	return masters[f.random.IntN(len(masters))].Process("apiserver"), nil
}

func (f *faults) leader(ctx context.Context) (*cluster.Process, error) {
	m, err := f.cluster.EtcdLeader(ctx)
	if err != nil {
		return nil, err
	}
	return m.Process("etcd"), nil
}

// sleep returns false when ctx ended before the time was over.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
