package client

import (
	"context"
	"errors"

	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// Create stores a new object and returns it as stored; obj is not changed.
func Create[T scheme.Object](ctx context.Context, c *Client, obj T, opts ...CreateOption) (T, error) {
	var zero T
	a, err := encode(obj)
	if err != nil {
		return zero, err
	}
	call := &createCall{CreateRequest: &apiv1.CreateRequest{
		Object: a, FieldManager: c.manager, Fence: c.fence, Conditions: c.conditions,
	}}
	for _, o := range opts {
		o.applyCreate(call)
	}
	ctx, cancel := c.bounded(prioritizeObject(ctx, obj))
	defer cancel()
	resp, err := c.resources.Create(ctx, call.CreateRequest)
	if err != nil {
		return zero, err
	}
	keepWarnings(call.warnings, resp.GetWarnings())
	return decodeLike(obj, resp.GetObject())
}

// Update replaces an object but for its status and returns it as stored; obj is not changed. With a
// metadata.resourceVersion it fails with a conflict unless that is the current version.
func Update[T scheme.Object](ctx context.Context, c *Client, obj T, opts ...UpdateOption) (T, error) {
	var zero T
	a, err := encode(obj)
	if err != nil {
		return zero, err
	}
	call := &updateCall{UpdateRequest: &apiv1.UpdateRequest{
		Object: a, FieldManager: c.manager, Fence: c.fence, Conditions: c.conditions,
	}}
	for _, o := range opts {
		o.applyUpdate(call)
	}
	ctx, cancel := c.bounded(prioritizeObject(ctx, obj))
	defer cancel()
	resp, err := c.resources.Update(ctx, call.UpdateRequest)
	if err != nil {
		return zero, err
	}
	keepWarnings(call.warnings, resp.GetWarnings())
	return decodeLike(obj, resp.GetObject())
}

// UpdateStatus replaces only the status of an object, on the condition that obj's resourceVersion,
// when set, is current.
func UpdateStatus[T scheme.Object](ctx context.Context, c *Client, obj T) (T, error) {
	var zero T
	a, err := encode(obj)
	if err != nil {
		return zero, err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	resp, err := c.resources.UpdateStatus(ctx, &apiv1.UpdateStatusRequest{
		Object: a, FieldManager: c.manager, Fence: c.fence, Conditions: c.conditions,
	})
	if err != nil {
		return zero, err
	}
	return decodeLike(obj, resp.GetObject())
}

// Apply merges the fields set in obj into the stored object, creating it when absent, and makes the
// client's field manager their owner. Fields of other owners that differ make a conflict unless
// Force is given. A field with its zero value may be lost in obj: ApplyJSON tells it apart from one
// that is left out.
func Apply[T scheme.Object](ctx context.Context, c *Client, obj T, opts ...ApplyOption) (T, apiv1.ApplyResult, error) {
	var zero T
	a, err := encode(obj)
	if err != nil {
		return zero, 0, err
	}
	resp, err := c.apply(ctx, &apiv1.ApplyRequest{Object: a}, opts)
	if err != nil {
		return zero, 0, err
	}
	stored, err := decodeLike(obj, resp.GetObject())
	return stored, resp.GetResult(), err
}

// ApplyJSON is Apply of an object as JSON, in which fields that are written are owned even when
// they are empty, false or 0. It must be the object of this kind, namespace and name.
func ApplyJSON(
	ctx context.Context,
	c *Client,
	k *scheme.Kind,
	namespace, name string,
	text []byte,
	opts ...ApplyOption,
) (scheme.Object, apiv1.ApplyResult, error) {
	resp, err := c.apply(ctx, &apiv1.ApplyRequest{Json: text, Reference: reference(k, namespace, name)}, opts)
	if err != nil {
		return nil, 0, err
	}
	stored, err := decode[scheme.Object](k, resp.GetObject())
	return stored, resp.GetResult(), err
}

// apply sends an apply whose object is set already.
func (c *Client) apply(ctx context.Context, req *apiv1.ApplyRequest, opts []ApplyOption) (*apiv1.ApplyResponse, error) {
	req.FieldManager, req.Fence, req.Conditions = c.manager, c.fence, c.conditions
	call := &applyCall{ApplyRequest: req}
	for _, o := range opts {
		o.applyApply(call)
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	resp, err := c.resources.Apply(ctx, req)
	keepWarnings(call.warnings, resp.GetWarnings())
	return resp, err
}

// Patch changes part of an object by a JSON merge patch, or by a JSON patch with the JSONPatch
// option. A metadata.resourceVersion in a merge patch makes it conditional.
func Patch[T scheme.Object](ctx context.Context, c *Client, namespace, name string, patch []byte, opts ...PatchOption) (T, error) {
	k, err := kindFor[T]()
	if err != nil {
		var zero T
		return zero, err
	}
	return patchKind[T](ctx, c, k, namespace, name, patch, opts)
}

// PatchKind is Patch for a kind known at run time.
func PatchKind(
	ctx context.Context,
	c *Client,
	k *scheme.Kind,
	namespace, name string,
	patch []byte,
	opts ...PatchOption,
) (scheme.Object, error) {
	return patchKind[scheme.Object](ctx, c, k, namespace, name, patch, opts)
}

func patchKind[T scheme.Object](
	ctx context.Context,
	c *Client,
	k *scheme.Kind,
	namespace, name string,
	patch []byte,
	opts []PatchOption,
) (T, error) {
	call := &patchCall{PatchRequest: &apiv1.PatchRequest{
		Object: reference(k, namespace, name), Type: apiv1.PatchType_PATCH_TYPE_MERGE, Patch: patch,
		FieldManager: c.manager, Fence: c.fence, Conditions: c.conditions,
	}}
	for _, o := range opts {
		o.applyPatch(call)
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	resp, err := c.resources.Patch(ctx, call.PatchRequest)
	if err != nil {
		var zero T
		return zero, err
	}
	keepWarnings(call.warnings, resp.GetWarnings())
	return decode[T](k, resp.GetObject())
}

// Delete deletes an object and reports whether it is gone already, rather than marked for deletion
// because it has a grace period or finalizers.
func Delete[T scheme.Object](ctx context.Context, c *Client, namespace, name string, opts ...DeleteOption) (removed bool, err error) {
	k, err := kindFor[T]()
	if err != nil {
		return false, err
	}
	return DeleteKind(ctx, c, k, namespace, name, opts...)
}

// DeleteKind is Delete for a kind known at run time.
func DeleteKind(ctx context.Context, c *Client, k *scheme.Kind, namespace, name string, opts ...DeleteOption) (removed bool, err error) {
	req := &apiv1.DeleteRequest{
		Object: reference(k, namespace, name), FieldManager: c.manager, Fence: c.fence, Conditions: c.conditions,
	}
	for _, o := range opts {
		o.applyDelete(req)
	}
	ctx, cancel := c.bounded(prioritize(ctx, k))
	defer cancel()
	resp, err := c.resources.Delete(ctx, req)
	return resp.GetRemoved(), err
}

// DeleteCollection deletes the objects of one namespace that both selectors match and returns their
// names. Limit, PageSize and At of o must be zero.
func DeleteCollection[T scheme.Object](
	ctx context.Context,
	c *Client,
	o ListOptions,
	opts ...DeleteCollectionOption,
) ([]*apiv1.DeletedObject, error) {
	k, err := kindFor[T]()
	if err != nil {
		return nil, err
	}
	return DeleteCollectionKind(ctx, c, k, o, opts...)
}

// DeleteCollectionKind is DeleteCollection for a kind known at run time.
func DeleteCollectionKind(
	ctx context.Context,
	c *Client,
	k *scheme.Kind,
	o ListOptions,
	opts ...DeleteCollectionOption,
) ([]*apiv1.DeletedObject, error) {
	if o.Limit != 0 || o.PageSize != 0 || !o.At.isNow() {
		return nil, errors.New("delete collection: limit, page size and revision cannot be set")
	}
	req := &apiv1.DeleteCollectionRequest{
		Group: k.Group, Version: k.Version, Kind: k.Name, Namespace: o.Namespace,
		LabelSelector: o.LabelSelector, FieldSelector: o.FieldSelector,
		FieldManager: c.manager, Fence: c.fence, Conditions: c.conditions,
	}
	for _, opt := range opts {
		opt.applyDeleteCollection(req)
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	resp, err := c.resources.DeleteCollection(ctx, req)
	return resp.GetObjects(), err
}
