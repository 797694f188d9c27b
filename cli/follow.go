package cli

import (
	"context"
	"time"

	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
)

// Waits between attempts to watch again.
const (
	minRetry = 200 * time.Millisecond
	maxRetry = 2 * time.Second
)

// follow calls see with each event of a watch until it says that it is done, resuming after lost connections. When the
// changes in between are no longer known it starts over with the state; whenever it begins with the state it calls
// begin first.
func (s *shell) follow(ctx context.Context, cl *client.Client, k *kind.Kind, o client.WatchOptions, begin func(), see func(client.Event[kind.Object]) (done bool, err error)) error {
	wait, lost := minRetry, false
	for {
		if o.ResourceVersion == "" {
			begin()
		}
		var failure error
		for ev, err := range client.WatchKind(ctx, cl, k, o) {
			if err != nil {
				failure = err
				break
			}
			wait, lost = minRetry, false
			if ev.ResourceVersion != "" && (o.ResourceVersion != "" || ev.InitialStateEnd) {
				o.ResourceVersion = ev.ResourceVersion
			}
			done, err := see(ev)
			if done || err != nil {
				return err
			}
		}
		asked, busy := apierr.Busy(failure)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case apierr.IsTooOld(failure):
			o.ResourceVersion = ""
			continue
		case !apierr.IsRetryable(failure) && !busy:
			return failure
		case s.unreachable(failure) && !lost:
			lost = true
			s.labelf(yellow, "Warning:", "the connection is lost, trying again: %s", connectionCause(failure))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(wait, asked)):
			wait = min(2*wait, maxRetry)
		}
	}
}

// observe calls see with the state of one object, nil while it does not exist, now and after every change.
func (s *shell) observe(ctx context.Context, cl *client.Client, r reference, see func(kind.Object) (done bool, err error)) error {
	var present kind.Object
	o := client.WatchOptions{Namespace: r.namespace, FieldSelector: "metadata.name=" + r.name}
	return s.follow(ctx, cl, r.kind, o, func() { present = nil }, func(ev client.Event[kind.Object]) (bool, error) {
		switch ev.Type {
		case apiv1.EventType_EVENT_TYPE_BOOKMARK:
			if !ev.InitialStateEnd || present != nil {
				return false, nil
			}
		case apiv1.EventType_EVENT_TYPE_DELETED:
			present = nil
		default:
			present = ev.Object
		}
		return see(present)
	})
}
