package hollow

import (
	"context"
	"fmt"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// watch passes the events of a kind to a sink until ctx ends. An informer's store, once for each of
// thousands of nodes, would be most of the process's memory.
func watch[T scheme.Object](ctx context.Context, group *errgroup.Group, n *node, fields string, s client.Sink) {
	reflector := client.NewReflector[T](n.client, client.WatchOptions{FieldSelector: fields})
	reflector.OnError = func(err error) {
		n.log.Debug("Watch ended, resuming", zap.String(metrics.KeyWatch, reflector.Kind.Plural), zap.Error(err))
	}
	group.Go(func() error { return reflector.Run(ctx, s) })
}

// listener receives the changes of objects, encoded.
type listener interface {
	changed(object []byte) error
	removed(object []byte) error
}

// deliver passes an event to a listener.
func deliver(event *apiv1.WatchResponse, l listener) error {
	switch t := event.GetType(); t {
	case apiv1.EventType_EVENT_TYPE_BOOKMARK:
		return nil
	case apiv1.EventType_EVENT_TYPE_ADDED, apiv1.EventType_EVENT_TYPE_MODIFIED:
		return l.changed(event.GetObject().GetValue())
	case apiv1.EventType_EVENT_TYPE_DELETED:
		return l.removed(event.GetObject().GetValue())
	default:
		return fmt.Errorf("the server sent an event of unknown type %v", t)
	}
}

// discard drops all events: a real node keeps these objects, and a simulated one has no use for
// them.
type discard struct{}

// Begin implements client.Sink.
func (discard) Begin() {}

// Handle implements client.Sink.
func (discard) Handle(*apiv1.WatchResponse) error { return nil }

// Reached implements client.Sink.
func (discard) Reached(string, bool) {}

func unmarshal(b []byte, object proto.Message) error {
	if err := proto.Unmarshal(b, object); err != nil {
		return fmt.Errorf("decode %s: %w", object.ProtoReflect().Descriptor().Name(), err)
	}
	return nil
}
