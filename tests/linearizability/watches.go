package linearizability

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// event is one change of an object.
type event struct {
	revision int64
	what     apiv1.EventType
	name     string
	value    string // of the object after the change, before it for a deletion
}

func (e event) String() string {
	return fmt.Sprintf("@%d %s %s=%s", e.revision, e.what, e.name, e.value)
}

// recorded is an event and when the recorder got it, since the history began.
type recorded struct {
	event
	at time.Duration
}

// registryPrefix is where etcd holds the objects of the test.
const registryPrefix = "/xebec/registry/core/ConfigMap/" + namespace + "/"

// record follows etcd itself from a revision on until it sees the object named last. What it
// returns is what happened; what the API says is measured by it.
func record(ctx context.Context, etcd *clientv3.Client, h *history, from int64, last string) ([]recorded, error) {
	var all []recorded
	options := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(from)}
	for resp := range etcd.Watch(clientv3.WithRequireLeader(ctx), registryPrefix, options...) {
		if err := resp.Err(); err != nil {
			if status.Code(err) != codes.Unavailable {
				return all, err
			}
			// No leader for a while: go on behind what was seen.
			if n := len(all); n > 0 {
				from = all[n-1].revision + 1
			}
			rest, err := record(ctx, etcd, h, from, last)
			return append(all, rest...), err
		}
		at := h.now()
		for _, e := range resp.Events {
			r := recorded{event: event{revision: e.Kv.ModRevision, name: string(e.Kv.Key[len(registryPrefix):])}, at: at}
			data := e.Kv.Value
			switch {
			case e.Type == clientv3.EventTypeDelete:
				r.what, data = apiv1.EventType_EVENT_TYPE_DELETED, e.PrevKv.Value
			case e.IsCreate():
				r.what = apiv1.EventType_EVENT_TYPE_ADDED
			default:
				r.what = apiv1.EventType_EVENT_TYPE_MODIFIED
			}
			var m corev1.ConfigMap
			if err := proto.Unmarshal(data, &m); err != nil {
				return all, fmt.Errorf("%s in etcd: %w", e.Kv.Key, err)
			}
			r.value = m.GetData()[valueKey]
			all = append(all, r)
			if r.name == last {
				return all, nil
			}
		}
	}
	return all, fmt.Errorf("etcd's watch ended: %w", ctx.Err())
}

// watcher follows the API through one or several apiservers, resuming whenever a watch ends.
type watcher struct {
	name     string
	replicas []*client.Client
	last     string // the name of the object to end at

	state   map[string]event // what there was at first, when it did not start at a revision
	start   int64            // the revision of the state, or the one to start after
	events  []event
	resumed int
	// skip counts the events at the revision after resume that are known already.
	resume int64
	skip   int
}

// errSeenLast ends a watch.
var errSeenLast = errors.New("the last object has been seen")

// run watches until the last object is seen or ctx ends. It returns an error that no watch should
// end with.
func (w *watcher) run(ctx context.Context) error {
	w.resume = w.start
	for attempt := 0; ; attempt++ {
		err := w.stream(ctx, w.replicas[attempt%len(w.replicas)])
		switch {
		case errors.Is(err, errSeenLast):
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: did not see %s; it is at revision %d after %d events: %w", w.name, w.last, w.resume, len(w.events), err)
		case status.Code(err) != codes.Unavailable && !errors.Is(err, io.EOF):
			return fmt.Errorf("%s: resume after revision %d: %w", w.name, w.resume, err)
		}
		w.resumed++
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (w *watcher) stream(ctx context.Context, api *client.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req := &apiv1.WatchRequest{Kind: "ConfigMap", Namespace: namespace}
	if w.resume != 0 {
		req.ResourceVersion = strconv.FormatInt(w.resume, 10)
	} else {
		w.state = make(map[string]event)
	}
	stream, err := api.Resources().Watch(ctx, req)
	if err != nil {
		return err
	}
	known := w.skip
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := w.take(resp, &known); err != nil {
			return err
		}
	}
}

// take keeps an event unless it is one of the known ones, with which a resumed watch repeats a
// revision.
func (w *watcher) take(resp *apiv1.WatchResponse, known *int) error {
	revision, err := strconv.ParseInt(resp.GetResourceVersion(), 10, 64)
	if err != nil {
		return err
	}
	if resp.GetType() == apiv1.EventType_EVENT_TYPE_BOOKMARK {
		if resp.GetInitialStateEnd() {
			w.start = revision
		}
		if w.resume != 0 || resp.GetInitialStateEnd() {
			w.resume, w.skip = revision, 0
		}
		return nil
	}
	var m corev1.ConfigMap
	if err := resp.GetObject().UnmarshalTo(&m); err != nil {
		return err
	}
	e := event{revision, resp.GetType(), m.GetMetadata().GetName(), m.GetData()[valueKey]}
	if w.resume == 0 {
		w.state[e.name] = e
		return nil
	}
	if got := m.GetMetadata().GetResourceVersion(); got != resp.GetResourceVersion() {
		return fmt.Errorf("event %v holds an object of resourceVersion %s", e, got)
	}
	if *known > 0 && revision == w.resume+1 {
		*known--
		return nil
	}
	// A change's revision may have more changes to come, so that a watch that breaks off asks for it
	// again.
	if revision != w.resume+1 || w.skip == 0 {
		w.resume, w.skip = revision-1, 0
	}
	w.skip++
	w.events = append(w.events, e)
	if e.name == w.last {
		return errSeenLast
	}
	return nil
}

// check compares what the watcher saw with what happened.
func (w *watcher) check(truth []recorded) error {
	if w.state != nil {
		want := make(map[string]event)
		for _, e := range truth {
			if e.revision > w.start {
				break
			}
			if e.what == apiv1.EventType_EVENT_TYPE_DELETED {
				delete(want, e.name)
			} else {
				want[e.name] = e.event
			}
		}
		for name, e := range want {
			if got := w.state[name]; got.value != e.value || got.revision != e.revision || got.what != apiv1.EventType_EVENT_TYPE_ADDED {
				return fmt.Errorf("%s: the state at revision %d has %v, want %v", w.name, w.start, got, e)
			}
		}
		if len(w.state) != len(want) {
			return fmt.Errorf("%s: the state at revision %d has %d objects, want %d", w.name, w.start, len(w.state), len(want))
		}
	}
	for len(truth) > 0 && truth[0].revision <= w.start {
		truth = truth[1:]
	}
	for i, e := range truth {
		if i == len(w.events) {
			return fmt.Errorf("%s: ended before %v", w.name, e)
		}
		if w.events[i] != e.event {
			return fmt.Errorf("%s: event %d is %v, want %v", w.name, i, w.events[i], e.event)
		}
	}
	if len(w.events) > len(truth) {
		return fmt.Errorf("%s: saw %v, which did not happen", w.name, w.events[len(truth)])
	}
	return nil
}
