package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// defaultPageSize keeps one answer well under the message limit for objects of ordinary size.
const defaultPageSize = 500

// listAttempts is how often a List starts over when its snapshot is compacted between two pages.
const listAttempts = 3

// ListOptions selects objects. The zero value selects all.
type ListOptions struct {
	Namespace     string // empty for all namespaces
	LabelSelector string // such as "app=web,tier in (a,b)"
	FieldSelector string // such as "spec.nodeName=node-1"
	Limit         int64  // most objects to return in all; 0 for no limit
	PageSize      int64  // objects per call; 0 for 500
	At            At
}

// At names a moment of the past to read, as far back as etcd has not compacted: a revision or a
// time, not both. The zero value is now.
type At struct {
	Revision string
	Time     time.Time // to within two seconds
}

func (a At) isNow() bool { return a.Revision == "" && a.Time.IsZero() }

func (a At) timestamp() *timestamppb.Timestamp {
	if a.Time.IsZero() {
		return nil
	}
	return timestamppb.New(a.Time)
}

// Get returns one object as it is now. The namespace is empty for kinds that have none.
func Get[T scheme.Object](ctx context.Context, c *Client, namespace, name string) (T, error) {
	k, err := kindFor[T]()
	if err != nil {
		var zero T
		return zero, err
	}
	return get[T](ctx, c, k, namespace, name, At{})
}

// GetKind is Get for a kind known at run time.
func GetKind(ctx context.Context, c *Client, k *scheme.Kind, namespace, name string) (scheme.Object, error) {
	return get[scheme.Object](ctx, c, k, namespace, name, At{})
}

// GetAt returns an object as it was, or fails with OUT_OF_RANGE when that is compacted.
func GetAt[T scheme.Object](ctx context.Context, c *Client, namespace, name string, at At) (T, error) {
	k, err := kindFor[T]()
	if err != nil {
		var zero T
		return zero, err
	}
	return get[T](ctx, c, k, namespace, name, at)
}

// GetKindAt is GetAt for a kind known at run time.
func GetKindAt(ctx context.Context, c *Client, k *scheme.Kind, namespace, name string, at At) (scheme.Object, error) {
	return get[scheme.Object](ctx, c, k, namespace, name, at)
}

func get[T scheme.Object](ctx context.Context, c *Client, k *scheme.Kind, namespace, name string, at At) (T, error) {
	ctx, cancel := c.bounded(prioritize(ctx, k))
	defer cancel()
	resp, err := c.resources.Get(
		ctx,
		&apiv1.GetRequest{Object: reference(k, namespace, name), AtRevision: at.Revision, AtTime: at.timestamp()},
	)
	if err != nil {
		var zero T
		return zero, err
	}
	return decode[T](k, resp.GetObject())
}

// List returns the selected objects, ordered by namespace and name, and the revision of the
// snapshot they are from: a watch that resumes there misses nothing. It fetches page after page,
// each with a deadline of its own unless ctx has one, and starts over when the snapshot is
// compacted meanwhile.
func List[T scheme.Object](ctx context.Context, c *Client, o ListOptions) ([]T, string, error) {
	k, err := kindFor[T]()
	if err != nil {
		return nil, "", err
	}
	return list[T](ctx, c, k, o)
}

// ListKind is List for a kind known at run time.
func ListKind(ctx context.Context, c *Client, k *scheme.Kind, o ListOptions) ([]scheme.Object, string, error) {
	return list[scheme.Object](ctx, c, k, o)
}

func list[T scheme.Object](ctx context.Context, c *Client, k *scheme.Kind, o ListOptions) ([]T, string, error) {
	for attempt := 1; ; attempt++ {
		objects, revision, err := listOnce[T](ctx, c, k, o)
		if err == nil {
			return objects, revision, nil
		}
		// A compacted revision that the caller asked for stays compacted.
		if !apierr.IsTooOld(err) || !o.At.isNow() || attempt == listAttempts {
			return nil, "", err
		}
	}
}

func listOnce[T scheme.Object](ctx context.Context, c *Client, k *scheme.Kind, o ListOptions) ([]T, string, error) {
	page := o.PageSize
	if page <= 0 {
		page = defaultPageSize
	}
	req := &apiv1.ListRequest{
		Group: k.Group, Version: k.Version, Kind: k.Name, Namespace: o.Namespace,
		LabelSelector: o.LabelSelector, FieldSelector: o.FieldSelector, AtRevision: o.At.Revision, AtTime: o.At.timestamp(),
	}
	var objects []T
	for {
		req.Limit = page
		if rest := o.Limit - int64(len(objects)); o.Limit > 0 && rest < page {
			req.Limit = rest
		}
		resp, err := c.listPage(ctx, req)
		if err != nil {
			return nil, "", err
		}
		if objects, err = decodeAll(k, objects, resp.GetObjects()); err != nil {
			return nil, "", err
		}
		if resp.GetContinue() == "" || (o.Limit > 0 && int64(len(objects)) >= o.Limit) {
			return objects, resp.GetResourceVersion(), nil
		}
		req.Continue = resp.GetContinue()
	}
}

func (c *Client) listPage(ctx context.Context, req *apiv1.ListRequest) (*apiv1.ListResponse, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	return c.resources.List(ctx, req)
}

// WatchOptions selects what to watch. The zero value watches all, from the present state on.
type WatchOptions struct {
	Namespace       string // empty for all namespaces
	LabelSelector   string
	FieldSelector   string
	ResourceVersion string // changes after this revision; empty for the state first
}

// Event is one change that a watch reports.
type Event[T scheme.Object] struct {
	Type            apiv1.EventType
	Object          T // the zero value for a bookmark
	ResourceVersion string
	InitialStateEnd bool // set on the bookmark after the initial state
}

// Watch yields changes in order, for as long as one stream lives: until ctx ends, the loop breaks,
// or an error, which is yielded last. It does not resume; Informer does.
func Watch[T scheme.Object](ctx context.Context, c *Client, o WatchOptions) iter.Seq2[Event[T], error] {
	k, err := kindFor[T]()
	if err != nil {
		return func(yield func(Event[T], error) bool) { yield(Event[T]{}, err) }
	}
	return watch[T](ctx, c, k, o)
}

// WatchKind is Watch for a kind known at run time.
func WatchKind(ctx context.Context, c *Client, k *scheme.Kind, o WatchOptions) iter.Seq2[Event[scheme.Object], error] {
	return watch[scheme.Object](ctx, c, k, o)
}

func watch[T scheme.Object](ctx context.Context, c *Client, k *scheme.Kind, o WatchOptions) iter.Seq2[Event[T], error] {
	return func(yield func(Event[T], error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.resources.Watch(ctx, watchRequest(k, o))
		for err == nil {
			var resp *apiv1.WatchResponse
			if resp, err = stream.Recv(); err != nil {
				break
			}
			ev := Event[T]{
				Type:            resp.GetType(),
				ResourceVersion: resp.GetResourceVersion(),
				InitialStateEnd: resp.GetInitialStateEnd(),
			}
			if resp.GetObject() != nil {
				if ev.Object, err = decode[T](k, resp.GetObject()); err != nil {
					break
				}
			}
			if !yield(ev, nil) {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			err = apierr.Unavailable("the server ended the watch of %s", k.Plural)
		}
		yield(Event[T]{}, err)
	}
}

func watchRequest(k *scheme.Kind, o WatchOptions) *apiv1.WatchRequest {
	return &apiv1.WatchRequest{
		Group: k.Group, Version: k.Version, Kind: k.Name, Namespace: o.Namespace,
		LabelSelector: o.LabelSelector, FieldSelector: o.FieldSelector, ResourceVersion: o.ResourceVersion,
	}
}
