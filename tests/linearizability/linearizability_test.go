package linearizability

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/tests/cluster"
)

const (
	masters = 3
	callers = 6
	// Calls per second of each caller: the checker's work grows with what happens at once.
	pace = 40
	// last is the object whose creation ends a history.
	last = "last"
)

// duration is how long the clients work: XEBEC_LINEARIZABILITY, such as 5m, or 20 seconds.
func duration(t *testing.T) time.Duration {
	value := os.Getenv("XEBEC_LINEARIZABILITY")
	if value == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		t.Fatal("XEBEC_LINEARIZABILITY:", err)
	}
	return d
}

// TestLinearizability runs clients and watchers on three apiservers and three members of etcd, of
// which one at a time is killed or paused, and checks all that they saw.
func TestLinearizability(t *testing.T) {
	length := duration(t)
	binaries, remove, err := cluster.Build(t.Context(), "xebecd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	ctx, cancel := context.WithTimeout(t.Context(), length+3*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Config{Binaries: binaries, Masters: masters, Services: []string{"etcd", "apiserver"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := &run{t: t, cluster: c, history: &history{began: time.Now()}, seed: seed}
	r.connect()
	r.waitNamespace(ctx)
	truth := r.work(ctx, length)
	r.checkWatches(truth)
	r.checkHistory(truth)
}

// run is one history in the making.
type run struct {
	t        *testing.T
	cluster  *cluster.Cluster
	history  *history
	seed     uint64
	replicas []*client.Client
	watchers []*watcher
}

// connect makes one client per apiserver.
func (r *run) connect() {
	for _, m := range r.cluster.Masters() {
		conn, err := r.cluster.Dial("apiserver", m)
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { conn.Close() })
		r.replicas = append(r.replicas, client.New(conn))
	}
}

func (r *run) waitNamespace(ctx context.Context) {
	for {
		_, err := client.Get[*corev1.Namespace](ctx, r.replicas[0], "", namespace)
		if err == nil {
			return
		}
		if !apierr.IsNotFound(err) || !sleep(ctx, 20*time.Millisecond) {
			r.t.Fatal(err)
		}
	}
}

// work makes the history and returns what happened to the objects, as etcd tells it.
func (r *run) work(ctx context.Context, length time.Duration) []recorded {
	etcd, err := r.cluster.Etcd()
	if err != nil {
		r.t.Fatal(err)
	}
	defer etcd.Close()
	now, err := etcd.Get(ctx, registryPrefix)
	if err != nil {
		r.t.Fatal(err)
	}
	start := now.Header.Revision
	var truth []recorded
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() (err error) {
		truth, err = record(ctx, etcd, r.history, start+1, last)
		return err
	})
	watch := func(w *watcher) {
		w.last = last
		r.watchers = append(r.watchers, w)
		all.Go(func() error { return w.run(ctx) })
	}
	for i, replica := range r.replicas {
		watch(&watcher{name: fmt.Sprintf("watcher of replica %d", i+1), replicas: []*client.Client{replica}, start: start})
		watch(&watcher{name: fmt.Sprintf("roaming watcher %d", i+1), replicas: append(r.replicas[i:len(r.replicas):len(r.replicas)], r.replicas[:i]...), start: start})
	}
	all.Go(func() error {
		if err := r.disturb(ctx, length, watch); err != nil {
			return err
		}
		// What was left unanswered may happen even later. No client sees it then, so that it need not be
		// explained.
		return r.end(ctx)
	})
	if err := all.Wait(); err != nil {
		r.t.Fatal(err)
	}
	return truth
}

// end creates the last object. The apiservers are well again by now, but a connection to one may be
// about to be replaced.
func (r *run) end(ctx context.Context) error {
	for i := 0; ; i++ {
		replica := r.replicas[i%len(r.replicas)]
		_, err := client.Create(ctx, replica, &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Namespace: namespace, Name: last}})
		if err == nil || apierr.IsAlreadyExists(err) {
			return nil
		}
		if status.Code(err) != codes.Unavailable || !sleep(ctx, 20*time.Millisecond) {
			return fmt.Errorf("create the last object: %w", err)
		}
	}
}

// disturb runs the callers and the faults, and begins a watch of the state now and then.
func (r *run) disturb(ctx context.Context, length time.Duration, watch func(*watcher)) error {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for id := range callers {
		caller := &caller{
			id: id, replicas: r.replicas, history: r.history, random: rand.New(rand.NewPCG(r.seed, uint64(id))), pace: rate.NewLimiter(pace, 1),
		}
		group.Go(func() error { return caller.run(ctx) })
	}
	f := &faults{cluster: r.cluster, random: rand.New(rand.NewPCG(r.seed, callers)), logf: r.t.Logf, count: make(map[string]int)}
	group.Go(func() error { return f.run(ctx) })
	group.Go(func() error {
		for i := 0; sleep(ctx, length/8); i++ {
			watch(&watcher{name: fmt.Sprintf("late watcher %d", i+1), replicas: r.replicas})
		}
		return nil
	})
	err := group.Wait()
	r.t.Logf("faults: %v", f.count)
	return err
}

// checkWatches compares what each watcher saw with what happened.
func (r *run) checkWatches(truth []recorded) {
	resumed := 0
	for _, w := range r.watchers {
		resumed += w.resumed
		if err := w.check(truth); err != nil {
			r.t.Error(err)
		}
	}
	r.t.Logf("%d watchers saw %d events and resumed %d times", len(r.watchers), len(truth), resumed)
}

// checkHistory searches for an order of the operations that explains all answers.
func (r *run) checkHistory(truth []recorded) {
	operations, err := settle(r.history.operations, truth)
	if err != nil {
		r.t.Error(err)
	}
	var history []porcupine.Operation
	outcomes := make(map[outcome]int)
	for _, o := range r.history.operations {
		outcomes[o.out.outcome]++
	}
	open := 0
	for _, o := range operations {
		if o.end == math.MaxInt64 {
			open++
		}
		history = append(history, porcupine.Operation{ClientId: o.client, Input: o.in, Call: int64(o.call), Output: o.out, Return: int64(o.end)})
	}
	r.t.Logf("%d operations, %v, of which %d stay open", len(operations), outcomes, open)
	result, info := porcupine.CheckOperationsVerbose(model, history, 5*time.Minute)
	switch result {
	case porcupine.Ok:
		return
	case porcupine.Unknown:
		r.t.Error("the checker found no answer in its time")
		return
	}
	file := filepath.Join(os.TempDir(), fmt.Sprintf("linearizability-%d.html", r.seed))
	if err := porcupine.VisualizePath(model, info, file); err != nil {
		r.t.Error(err)
	}
	r.t.Errorf("no order of the operations explains their answers; %s shows all; it goes wrong at the end of these:\n%s", file, culprits(history))
}

// culprits returns the last operations of the shortest beginning of a history that goes wrong.
func culprits(history []porcupine.Operation) string {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	// What had not returned by then may or may not have happened.
	beginning := func(n int) []porcupine.Operation {
		end := history[n-1].Return
		part := slices.Clone(history[:n])
		for _, o := range history[n:] {
			if o.Call < end && o.Input.(request).read == "" {
				o.Output, o.Return = response{outcome: unknown}, math.MaxInt64
				part = append(part, o)
			}
		}
		return part
	}
	n := 1 + sort.Search(len(history)-1, func(i int) bool { return !porcupine.CheckOperations(model, beginning(i+1)) })
	var b strings.Builder
	for _, o := range history[max(0, n-25):n] {
		fmt.Fprintf(&b, "client %d, %s to %s: %s\n", o.ClientId, time.Duration(o.Call), time.Duration(o.Return), model.DescribeOperation(o.Input, o.Output))
	}
	return b.String()
}

// around shows what happened in etcd about a revision.
func around(truth []recorded, revision int64) string {
	var b strings.Builder
	for _, e := range truth {
		if revision-5 <= e.revision && e.revision <= revision+5 {
			fmt.Fprintf(&b, "%v\n", e)
		}
	}
	return b.String()
}

// settle decides, by what happened in etcd, which of the operations without an answer happened, and
// until when. It checks as well that every write that was answered happened as it was answered, and
// none twice.
func settle(operations []operation, truth []recorded) ([]operation, error) {
	var errs []error
	puts := make(map[string]recorded)
	type removal struct {
		name     string
		revision int64
	}
	removals := make(map[removal]bool) // true when a caller knows that it was its own
	unclaimed := make(map[string]int)
	for _, e := range truth {
		if e.what == apiv1.EventType_EVENT_TYPE_DELETED {
			removals[removal{e.name, e.revision}] = false
			unclaimed[e.name]++
			continue
		}
		if before, twice := puts[e.value]; twice {
			errs = append(errs, fmt.Errorf("%v was written before, at revision %d", e, before.revision))
		}
		puts[e.value] = e
	}
	for _, o := range operations {
		if o.out.outcome != done {
			continue
		}
		for _, w := range o.in.writes {
			if w.verb == remove {
				r := removal{nameOf(w.key), o.out.revision}
				claimed, happened := removals[r]
				if !happened || claimed {
					errs = append(errs, fmt.Errorf("client %d: %v → %v: etcd knows no such deletion:\n%s", o.client, o.in, o.out, around(truth, o.out.revision)))
				}
				removals[r] = true
				unclaimed[r.name]--
			} else if e := puts[w.value]; e.revision != o.out.revision {
				errs = append(errs, fmt.Errorf("client %d: %v → %v: in etcd it is at revision %d:\n%s", o.client, o.in, o.out, e.revision, around(truth, o.out.revision)))
			}
		}
	}
	var settled []operation
	for _, o := range operations {
		if o.out.outcome != unknown {
			settled = append(settled, o)
			continue
		}
		w := o.in.writes[0]
		e, happened := puts[w.value]
		switch {
		case w.verb == remove && unclaimed[nameOf(w.key)] > 0:
			// A deletion leaves no name of whose it was. The model lets it happen at any time, or never.
			o.end = math.MaxInt64
		case w.verb == remove || !happened:
			continue
		default:
			o.out = response{outcome: done, revision: e.revision}
			o.end = max(o.end, e.at)
		}
		settled = append(settled, o)
	}
	return settled, errors.Join(errs...)
}
