// Package client is the typed Go client of Xebec's API: calls by generics on the message types of
// the kinds, informers that mirror objects in memory, and the keeping of leases.
//
// The functions take the kind from their type parameter: Get[*corev1.Pod](ctx, c, "default",
// "web-0"). A caller that knows the kind only at run time uses the functions that end in Kind,
// which return kind.Object; the functions that take an object work with kind.Object as T.
//
// Errors are gRPC status errors as the server sent them: the predicates of internal/apierr tell
// them apart.
package client

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// DefaultTimeout is the deadline of a call whose context has none.
const DefaultTimeout = 10 * time.Second

// Client calls a ResourceService and a LeaseService over one connection. It is immutable and safe
// for concurrent use; the With methods return changed copies that share the connection.
type Client struct {
	resources apiv1.ResourceServiceClient
	leases    apiv1.LeaseServiceClient
	discovery apiv1.DiscoveryServiceClient
	timeout   time.Duration
	fence     *apiv1.Fence
	manager   string
	// conditions are those of every write.
	conditions []*apiv1.Condition
}

// Option changes how New builds a client.
type Option func(*Client)

// WithTimeout sets the deadline of calls whose context has none. Zero or less means DefaultTimeout.
func WithTimeout(d time.Duration) Option {
	return func(c *Client) {
		if d > 0 {
			c.timeout = d
		}
	}
}

// WithFieldManager sets the name under which writes own the fields they set; Apply requires one.
func WithFieldManager(name string) Option {
	return func(c *Client) { c.manager = name }
}

// New returns a client on conn, which stays the caller's to close.
func New(conn grpc.ClientConnInterface, opts ...Option) *Client {
	c := &Client{
		resources: apiv1.NewResourceServiceClient(conn),
		leases:    apiv1.NewLeaseServiceClient(conn),
		discovery: apiv1.NewDiscoveryServiceClient(conn),
		timeout:   DefaultTimeout,
	}
	for _, o := range opts {
		o(c)
	}
	return c
}

// WithFence returns a copy whose writes happen only while the election that f names is held. A nil
// f removes the fence.
func (c *Client) WithFence(f *apiv1.Fence) *Client {
	d := *c
	d.fence = f
	return &d
}

// WithFieldManager returns a copy whose writes own their fields under name.
func (c *Client) WithFieldManager(name string) *Client {
	d := *c
	d.manager = name
	return &d
}

// Fence returns the fence of this client's writes, or nil.
func (c *Client) Fence() *apiv1.Fence { return c.fence }

// Resources returns the generated client below, for calls this package does not wrap. It sets
// neither deadline nor fence.
func (c *Client) Resources() apiv1.ResourceServiceClient { return c.resources }

// Leases returns the generated lease client below. It sets no deadline.
func (c *Client) Leases() apiv1.LeaseServiceClient { return c.leases }

// Discovery returns the generated discovery client below. It sets no deadline.
func (c *Client) Discovery() apiv1.DiscoveryServiceClient { return c.discovery }

// bounded gives ctx the client's deadline unless it has one.
func (c *Client) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.timeout)
}

// kindFor returns the kind of T, which must be a message type and not an interface.
func kindFor[T scheme.Object]() (*scheme.Kind, error) {
	var zero T
	if any(zero) == nil {
		return nil, fmt.Errorf("%T is no message type: use the functions that take a kind", &zero)
	}
	if k, ok := kinds.ByMessage(zero.ProtoReflect().Descriptor().FullName()); ok {
		return k, nil
	}
	return nil, fmt.Errorf("%T is not a registered kind", zero)
}

func reference(k *scheme.Kind, namespace, name string) *apiv1.ObjectReference {
	return &apiv1.ObjectReference{Group: k.Group, Version: k.Version, Kind: k.Name, Namespace: namespace, Name: name}
}

// encode wraps an object for the wire.
func encode(obj scheme.Object) (*anypb.Any, error) {
	a, err := anypb.New(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", obj.ProtoReflect().Descriptor().FullName(), err)
	}
	return a, nil
}

// decode turns what the server sent into an object of kind k, which T must be able to hold.
func decode[T scheme.Object](k *scheme.Kind, a *anypb.Any) (T, error) {
	var zero T
	obj := k.New()
	if err := a.UnmarshalTo(obj); err != nil {
		return zero, fmt.Errorf("decode %s: %w", k.Name, err)
	}
	t, ok := obj.(T)
	if !ok {
		return zero, fmt.Errorf("decode %s: it is a %T and not a %T", k.Name, obj, zero)
	}
	return t, nil
}

// decodeLike decodes the answer to a call that sent obj.
func decodeLike[T scheme.Object](obj T, a *anypb.Any) (T, error) {
	out := obj.ProtoReflect().New().Interface()
	if err := a.UnmarshalTo(out); err != nil {
		var zero T
		return zero, fmt.Errorf("decode %s: %w", obj.ProtoReflect().Descriptor().FullName(), err)
	}
	return out.(T), nil
}

// Clone returns a deep copy of obj. Objects that come from an informer are shared: clone them
// before changing them.
func Clone[T scheme.Object](obj T) T { return proto.Clone(obj).(T) }

func decodeAll[T scheme.Object](k *scheme.Kind, into []T, objects []*anypb.Any) ([]T, error) {
	into = slices.Grow(into, len(objects))
	for _, a := range objects {
		obj, err := decode[T](k, a)
		if err != nil {
			return nil, err
		}
		into = append(into, obj)
	}
	return into, nil
}
