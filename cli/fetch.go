package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// found is what was found of one kind.
type found struct {
	kind    *kind.Kind
	objects []kind.Object
}

// fetchOptions say which objects of a reference to a whole kind are read, and as of when.
type fetchOptions struct {
	choice
	at             client.At
	ignoreNotFound bool
}

// fetch reads what the references mean, by kind in the order of their first mention. It goes on after objects that it
// can't read, but not after a cluster that it can't reach.
func (s *shell) fetch(ctx context.Context, cl *client.Client, refs []reference, o fetchOptions) ([]*found, []error) {
	var sections []*found
	var failures []error
	for _, r := range refs {
		at := slices.IndexFunc(sections, func(f *found) bool { return f.kind == r.kind })
		if at < 0 {
			at = len(sections)
			sections = append(sections, &found{kind: r.kind})
		}
		section := sections[at]
		var err error
		if r.name == "" {
			list := o.list(r)
			list.At = o.at
			section.objects, _, err = client.ListKind(ctx, cl, r.kind, list)
			if r.kind.Name == "Event" {
				sortEvents(section.objects)
			}
		} else {
			var obj kind.Object
			if obj, err = client.GetKindAt(ctx, cl, r.kind, r.namespace, r.name, o.at); err == nil {
				section.objects = append(section.objects, obj)
			}
		}
		if err == nil || (apierr.IsNotFound(err) && o.ignoreNotFound) {
			continue
		}
		failures = append(failures, err)
		if apierr.IsUnavailable(err) || ctx.Err() != nil {
			break
		}
	}
	return sections, failures
}

func countOf(sections []*found) int {
	n := 0
	for _, f := range sections {
		n += len(f.objects)
	}
	return n
}

// sortEvents puts what happened last at the end.
func sortEvents(objects []kind.Object) {
	slices.SortStableFunc(objects, func(a, b kind.Object) int {
		return cmp.Or(
			kind.EventLastSeen(a.(*corev1.Event)).AsTime().Compare(kind.EventLastSeen(b.(*corev1.Event)).AsTime()),
			// Times are in seconds, in which much happens to a pod; events are written in their order.
			cmp.Compare(revision(a), revision(b)),
		)
	})
}

// revision is the object's resource version as a number, 0 when it has none.
func revision(o kind.Object) int64 {
	n, _ := strconv.ParseInt(o.GetMetadata().GetResourceVersion(), 10, 64)
	return n
}

// emptiness says where nothing was found.
func emptiness(refs []reference) string {
	for _, r := range refs {
		if r.kind.Namespaced && r.namespace != "" {
			return fmt.Sprintf("No resources found in %s namespace.", r.namespace)
		}
	}
	return "No resources found."
}
