package hollow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/metrics"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// follower watches objects and keeps none: an informer's store, once for each of thousands of
// nodes, would be most of the process's memory.
type follower struct {
	client      *client.Client
	group, kind string
	field       string
	log         *zap.Logger
}

// listener receives the events of a follower in order, from one goroutine. An error ends the
// stream, and the follower opens another.
type listener interface {
	// begin is called before a state, and whole after it.
	begin()
	whole()
	// changed and removed are given the encoded object.
	changed(object []byte) error
	removed(object []byte) error
}

// watchHealthy is how long a stream must have lived for the next attempt to count as the first.
const watchHealthy = 10 * time.Second

// run follows until ctx ends, and returns ctx's error.
func (f follower) run(ctx context.Context, l listener) error {
	pace := backoff.Backoff{Min: retryMin, Max: retryMax}
	resume := ""
	for {
		began := time.Now()
		reached, err := f.stream(ctx, resume, l)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.log.Debug("Watch ended, resuming", zap.String(metrics.KeyWatch, f.kind), zap.Error(err))
		if apierr.IsTooOld(err) {
			reached = ""
		}
		if time.Since(began) >= watchHealthy || reached != resume {
			pace.Reset()
		}
		resume = reached
		if err := pace.Wait(ctx, err); err != nil {
			return err
		}
	}
}

// stream reads one stream until it fails, and returns the revision to resume from, empty when the
// state was not read whole.
func (f follower) stream(ctx context.Context, resume string, l listener) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := f.client.Resources().
		Watch(ctx, &apiv1.WatchRequest{Group: f.group, Kind: f.kind, FieldSelector: f.field, ResourceVersion: resume}, grpc.WaitForReady(true))
	if err != nil {
		return resume, err
	}
	state := resume == ""
	if state {
		l.begin()
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			err = apierr.Unavailable("the server ended the watch")
		}
		if err != nil {
			return resume, err
		}
		bookmark := false
		switch t := resp.GetType(); t {
		case apiv1.EventType_EVENT_TYPE_BOOKMARK:
			bookmark = true
		case apiv1.EventType_EVENT_TYPE_ADDED, apiv1.EventType_EVENT_TYPE_MODIFIED:
			err = l.changed(resp.GetObject().GetValue())
		case apiv1.EventType_EVENT_TYPE_DELETED:
			err = l.removed(resp.GetObject().GetValue())
		default:
			err = fmt.Errorf("the server sent an event of unknown type %v", t)
		}
		if err != nil {
			return resume, err
		}
		if state {
			if !resp.GetInitialStateEnd() {
				continue
			}
			state = false
			l.whole()
		}
		revision := resp.GetResourceVersion()
		if bookmark {
			resume = revision
			continue
		}
		// More changes of the same transaction may follow: that revision is asked for again.
		number, err := strconv.ParseInt(revision, 10, 64)
		if err != nil {
			return "", fmt.Errorf("the server sent a change at revision %q: %w", revision, err)
		}
		resume = strconv.FormatInt(number-1, 10)
	}
}

// nothing listens to what a real node keeps and this one has no use for.
type nothing struct{}

func (nothing) begin()               {}
func (nothing) whole()               {}
func (nothing) changed([]byte) error { return nil }
func (nothing) removed([]byte) error { return nil }

func unmarshal(b []byte, object proto.Message) error {
	if err := proto.Unmarshal(b, object); err != nil {
		return fmt.Errorf("decode %s: %w", object.ProtoReflect().Descriptor().Name(), err)
	}
	return nil
}
