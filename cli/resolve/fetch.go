package resolve

import (
	"context"
	"fmt"
	"slices"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/scheme"
)

// Found is what was found of one kind.
type Found struct {
	Kind    *scheme.Kind
	Objects []scheme.Object
}

// FetchOptions say which objects of a reference to a whole kind are read, and as of when.
type FetchOptions struct {
	Choice
	At             client.At
	IgnoreNotFound bool
}

// Fetch reads what the references mean, by kind in the order of their first mention. It goes on
// after objects that it can't read, but not after a cluster that it can't reach.
func Fetch(ctx context.Context, cl *client.Client, refs []Reference, o FetchOptions) ([]*Found, []error) {
	var sections []*Found
	var failures []error
	for _, r := range refs {
		at := slices.IndexFunc(sections, func(f *Found) bool { return f.Kind == r.Kind })
		if at < 0 {
			at = len(sections)
			sections = append(sections, &Found{Kind: r.Kind})
		}
		section := sections[at]
		var err error
		if r.Name == "" {
			list := o.List(r)
			list.At = o.At
			section.Objects, _, err = client.ListKind(ctx, cl, r.Kind, list)
			if r.Kind == eventKind() {
				sortEvents(section.Objects)
			}
		} else {
			var obj scheme.Object
			if obj, err = client.GetKindAt(ctx, cl, r.Kind, r.Namespace, r.Name, o.At); err == nil {
				section.Objects = append(section.Objects, obj)
			}
		}
		if err == nil || (apierr.IsNotFound(err) && o.IgnoreNotFound) {
			continue
		}
		failures = append(failures, err)
		if apierr.IsUnavailable(err) || ctx.Err() != nil {
			break
		}
	}
	return sections, failures
}

// Count returns the number of objects in all sections.
func Count(sections []*Found) int {
	n := 0
	for _, f := range sections {
		n += len(f.Objects)
	}
	return n
}

// NoneFound says where nothing was found.
func NoneFound(refs []Reference) string {
	for _, r := range refs {
		if r.Kind.Namespaced && r.Namespace != "" {
			return fmt.Sprintf("No resources found in %s namespace.", r.Namespace)
		}
	}
	return "No resources found."
}
