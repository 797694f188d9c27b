package resolve

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Events lists the events about an object, the latest last.
func Events(ctx context.Context, cl *client.Client, obj scheme.Object) ([]scheme.Object, error) {
	k, meta := kinds.Of(obj), obj.GetMetadata()
	selector := "involvedObject.kind=" + k.Name + ",involvedObject.name=" + meta.GetName()
	if meta.GetNamespace() != "" {
		selector += ",involvedObject.namespace=" + meta.GetNamespace()
	}
	// Events about an object without a namespace may lie in any; those about a node name it as uid in
	// Kubernetes, which is why the uid is not compared for kinds without a namespace.
	if k.Namespaced {
		selector += ",involvedObject.uid=" + meta.GetUid()
	}
	in := client.ListOptions{Namespace: meta.GetNamespace(), FieldSelector: selector}
	found, _, err := client.ListKind(ctx, cl, eventKind(), in)
	sortEvents(found)
	return found, err
}

func eventKind() *scheme.Kind { return kinds.Of(&corev1.Event{}) }

// sortEvents puts what happened last at the end.
func sortEvents(objects []scheme.Object) {
	slices.SortStableFunc(objects, func(a, b scheme.Object) int {
		return cmp.Or(
			core.EventLastSeen(a.(*corev1.Event)).AsTime().Compare(core.EventLastSeen(b.(*corev1.Event)).AsTime()),
			// Times are in seconds, in which much happens to a pod; events are written in their order.
			cmp.Compare(revision(a), revision(b)),
		)
	})
}

// revision is the object's resource version as a number, 0 when it has none.
func revision(o scheme.Object) int64 {
	n, _ := strconv.ParseInt(o.GetMetadata().GetResourceVersion(), 10, 64)
	return n
}
