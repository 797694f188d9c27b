package client

import (
	"context"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// MaxOperations is the most operations one transaction may hold.
const MaxOperations = 500

// Operation is one write of a transaction, made by the Op functions.
type Operation func(c *Client) (*apiv1.Operation, error)

// OpCreate creates obj; of the options only UnderLease has an effect in a transaction.
func OpCreate(obj scheme.Object, opts ...CreateOption) Operation {
	return func(c *Client) (*apiv1.Operation, error) {
		a, err := encode(obj)
		if err != nil {
			return nil, err
		}
		call := &createCall{CreateRequest: &apiv1.CreateRequest{Object: a, FieldManager: c.manager}}
		for _, o := range opts {
			o.applyCreate(call)
		}
		return &apiv1.Operation{Operation: &apiv1.Operation_Create{Create: call.CreateRequest}}, nil
	}
}

// OpApplyJSON applies an object as ApplyJSON does; of the options only Force and Subresource have
// an effect in a transaction.
func OpApplyJSON(k *scheme.Kind, namespace, name string, text []byte, opts ...ApplyOption) Operation {
	return func(c *Client) (*apiv1.Operation, error) {
		call := &applyCall{ApplyRequest: &apiv1.ApplyRequest{Json: text, Reference: reference(k, namespace, name), FieldManager: c.manager}}
		for _, o := range opts {
			o.applyApply(call)
		}
		return &apiv1.Operation{Operation: &apiv1.Operation_Apply{Apply: call.ApplyRequest}}, nil
	}
}

// OpUpdate replaces obj but for its status, on the same condition as Update; of the options only
// UnderLease has an effect in a transaction.
func OpUpdate(obj scheme.Object, opts ...UpdateOption) Operation {
	return func(c *Client) (*apiv1.Operation, error) {
		a, err := encode(obj)
		if err != nil {
			return nil, err
		}
		call := &updateCall{UpdateRequest: &apiv1.UpdateRequest{Object: a, FieldManager: c.manager}}
		for _, o := range opts {
			o.applyUpdate(call)
		}
		return &apiv1.Operation{Operation: &apiv1.Operation_Update{Update: call.UpdateRequest}}, nil
	}
}

// OpUpdateStatus replaces obj's status.
func OpUpdateStatus(obj scheme.Object) Operation {
	return func(c *Client) (*apiv1.Operation, error) {
		a, err := encode(obj)
		if err != nil {
			return nil, err
		}
		return &apiv1.Operation{Operation: &apiv1.Operation_UpdateStatus{
			UpdateStatus: &apiv1.UpdateStatusRequest{Object: a, FieldManager: c.manager},
		}}, nil
	}
}

// OpPatch changes a part of an object as Patch does; of the options only JSONPatch, StrategicPatch
// and Subresource have an effect in a transaction.
func OpPatch(k *scheme.Kind, namespace, name string, patch []byte, opts ...PatchOption) Operation {
	return func(c *Client) (*apiv1.Operation, error) {
		call := &patchCall{PatchRequest: &apiv1.PatchRequest{
			Object: reference(k, namespace, name), Type: apiv1.PatchType_PATCH_TYPE_MERGE, Patch: patch, FieldManager: c.manager,
		}}
		for _, o := range opts {
			o.applyPatch(call)
		}
		return &apiv1.Operation{Operation: &apiv1.Operation_Patch{Patch: call.PatchRequest}}, nil
	}
}

// OpDelete deletes an object.
func OpDelete(k *scheme.Kind, namespace, name string, opts ...DeleteOption) Operation {
	return func(c *Client) (*apiv1.Operation, error) {
		req := &apiv1.DeleteRequest{Object: reference(k, namespace, name), FieldManager: c.manager}
		for _, o := range opts {
			o.applyDelete(req)
		}
		return &apiv1.Operation{Operation: &apiv1.Operation_Delete{Delete: req}}, nil
	}
}

// OpBind assigns a pod that has no node yet to one; a uid that is not empty must match.
func OpBind(namespace, name, uid, node string) Operation {
	return func(c *Client) (*apiv1.Operation, error) {
		return &apiv1.Operation{Operation: &apiv1.Operation_Bind{Bind: &apiv1.BindOperation{
			Namespace: namespace, Name: name, Uid: uid, NodeName: node, FieldManager: c.manager,
		}}}, nil
	}
}

// Result holds what a transaction wrote.
type Result struct {
	Revision string // of the transaction
	objects  []*anypb.Any
	results  []*apiv1.OperationResult
}

// Len returns the number of operations done.
func (r *Result) Len() int { return len(r.objects) }

// Object decodes the object that operation i left, for a removal its last state.
func (r *Result) Object(i int) (scheme.Object, error) {
	a := r.objects[i]
	m, err := a.UnmarshalNew()
	if err != nil {
		return nil, err
	}
	return m.(scheme.Object), nil
}

// ObjectLike is Object for an object of the type of like, which may be of a kind that the program
// was not compiled with.
func (r *Result) ObjectLike(i int, like scheme.Object) (scheme.Object, error) {
	return decodeLike(like, r.objects[i])
}

// Applied tells what the apply that is operation i did, and the warnings of that operation.
func (r *Result) Applied(i int) (apiv1.ApplyResult, []string) {
	if i >= len(r.results) {
		return 0, nil // of a server that does not tell
	}
	return r.results[i].GetApplied(), r.results[i].GetWarnings()
}

// Transact makes all the writes at one revision, or none of them. There may be at most
// MaxOperations, on different objects. The client's fence and conditions hold for them all.
func Transact(ctx context.Context, c *Client, ops ...Operation) (*Result, error) {
	return transact(ctx, c, false, ops)
}

// TryTransact is Transact that checks everything and stores nothing.
func TryTransact(ctx context.Context, c *Client, ops ...Operation) (*Result, error) {
	return transact(ctx, c, true, ops)
}

func transact(ctx context.Context, c *Client, dryRun bool, ops []Operation) (*Result, error) {
	req := &apiv1.TransactRequest{
		Fence: c.fence, Conditions: c.conditions, DryRun: dryRun, Operations: make([]*apiv1.Operation, 0, len(ops)),
	}
	for _, op := range ops {
		o, err := op(c)
		if err != nil {
			return nil, err
		}
		req.Operations = append(req.Operations, o)
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	resp, err := c.resources.Transact(ctx, req)
	if err != nil {
		return nil, err
	}
	return &Result{Revision: resp.GetResourceVersion(), objects: resp.GetObjects(), results: resp.GetResults()}, nil
}
