// Package watch follows objects of the cluster until a condition holds, across lost connections.
package watch

import (
	"context"
	"time"

	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// Waits between attempts to watch again.
const (
	MinRetry = 200 * time.Millisecond
	MaxRetry = 2 * time.Second
)

// Follow calls see with each event of a watch until it says that it is done, resuming after lost
// connections. When the changes in between are no longer known it starts over with the state;
// whenever it begins with the state it calls
// begin first.
func Follow(
	ctx context.Context,
	s *session.Session,
	cl *client.Client,
	k *scheme.Kind,
	o client.WatchOptions,
	begin func(),
	see func(client.Event[scheme.Object]) (done bool, err error),
) error {
	wait, lost := MinRetry, false
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
			wait, lost = MinRetry, false
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
		case s.Unreachable(failure) && !lost:
			lost = true
			s.Labelf(terminal.Yellow, "Warning:", "connection lost, retrying: %s", session.Cause(failure))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(wait, asked)):
			wait = min(2*wait, MaxRetry)
		}
	}
}

// Observe calls see with the state of one object, nil while it does not exist, now and after every
// change.
func Observe(
	ctx context.Context,
	s *session.Session,
	cl *client.Client,
	r resolve.Reference,
	see func(scheme.Object) (done bool, err error),
) error {
	var present scheme.Object
	o := client.WatchOptions{Namespace: r.Namespace, FieldSelector: "metadata.name=" + r.Name}
	return Follow(ctx, s, cl, r.Kind, o, func() { present = nil }, func(ev client.Event[scheme.Object]) (bool, error) {
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
