package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/apierr"
	pacing "github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

const (
	// watchBackoffMin and watchBackoffMax are the limits of the back-off between two attempts to
	// watch, which is longer when the server asks for more.
	watchBackoffMin = 20 * time.Millisecond
	watchBackoffMax = 5 * time.Second
	// watchHealthy is the time after which a stream counts as healthy, so that the next attempt has no
	// back-off.
	watchHealthy = 10 * time.Second
)

// Sink receives the events of a Reflector in order, from one goroutine.
type Sink interface {
	// Begin is called before the objects of an initial state, which come as additions.
	Begin()
	// Handle takes a change or a bookmark. An error ends the stream, and the reflector opens another.
	Handle(event *apiv1.WatchResponse) error
	// Reached is called after each event with its revision. whole reports that the event was the end
	// of the initial state: objects that were not in it are gone.
	Reached(revision string, whole bool)
}

// Reflector watches the objects of one kind and passes the events to a sink. It keeps no objects:
// an Informer does. It starts with the state, follows the changes, resumes after a disconnect, and
// reads the state again only when the server no longer has the changes since.
type Reflector struct {
	// Kind is the kind of the objects.
	Kind *scheme.Kind
	// OnError is called with the reason why a watch ended, before the next attempt. It must not block.
	// May be nil.
	OnError func(error)

	client  *Client
	options WatchOptions
	summary bool
}

// NewReflector returns a reflector that makes no calls until Run. The ResourceVersion of the
// options is not used. It panics when T is not a registered kind.
func NewReflector[T scheme.Object](c *Client, o WatchOptions) *Reflector {
	k, err := kindFor[T]()
	if err != nil {
		panic("client.NewReflector: " + err.Error())
	}
	return &Reflector{Kind: k, client: c, options: o}
}

// Run watches until ctx ends, and returns ctx's error; nothing else stops it.
func (r *Reflector) Run(ctx context.Context, s Sink) error {
	b := pacing.Backoff{Min: watchBackoffMin, Max: watchBackoffMax}
	resume := ""
	for ctx.Err() == nil {
		begun := time.Now()
		reached, err := r.follow(ctx, resume, s)
		if ctx.Err() != nil {
			break
		}
		if r.OnError != nil {
			r.OnError(fmt.Errorf("watch %s from revision %q: %w", r.Kind.Plural, reached, err))
		}
		if apierr.IsTooOld(err) {
			reached = ""
		}
		if time.Since(begun) >= watchHealthy || reached != resume {
			b.Reset()
		}
		resume = reached
		_ = b.Wait(ctx, err)
	}
	return ctx.Err()
}

// follow reads one stream from resume on, or from the state when that is empty, until it fails. It
// returns the revision to resume from, empty when the initial state did not come to its end.
func (r *Reflector) follow(ctx context.Context, resume string, s Sink) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	options := r.options
	options.ResourceVersion = resume
	req := watchRequest(r.Kind, options)
	req.Outline = r.summary
	stream, err := r.client.resources.Watch(prioritize(ctx, r.Kind), req, grpc.WaitForReady(true))
	if err != nil {
		return resume, err
	}
	state := resume == ""
	if state {
		s.Begin()
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			err = apierr.Unavailable("the server ended the watch")
		}
		if err != nil {
			return resume, err
		}
		if err := s.Handle(resp); err != nil {
			return resume, err
		}
		if state && !resp.GetInitialStateEnd() {
			continue
		}
		if resume, err = resumeAfter(resp); err != nil {
			return resume, err
		}
		s.Reached(resp.GetResourceVersion(), state)
		state = false
	}
}

// resumeAfter returns the revision to resume from after an event. A bookmark's own revision is
// complete; a change's may have more changes to come, made in the same transaction, so that one is
// asked for again and what is known is skipped.
func resumeAfter(resp *apiv1.WatchResponse) (string, error) {
	rv := resp.GetResourceVersion()
	if resp.GetType() == apiv1.EventType_EVENT_TYPE_BOOKMARK {
		return rv, nil
	}
	n, err := strconv.ParseInt(rv, 10, 64)
	if err != nil {
		return "", fmt.Errorf("the server sent a change at revision %q: %w", rv, err)
	}
	return strconv.FormatInt(n-1, 10), nil
}
