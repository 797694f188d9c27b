// Package pipeline takes every write through the same phases, whether it came as a call of its own,
// as an operation of a transaction or from the server itself. It knows no transport: the caller's
// identity comes in as a value.
//
//	authorize  the caller's right to the verb, kind, namespace and name        target.go
//	decode     the object, patch or applied configuration                       decode.go, patch.go
//	default    fields that the client did not set                               internal/kinds
//	mutate     admission plug-ins that complete the object                      admission/
//	allocate   addresses, ports and other objects that the kind requires       registry/
//	validate   the whole object and the change                                  internal/kinds
//	admit      admission plug-ins that only check                               admission/
//	store      one etcd transaction, conditional on all that the plan read     commit.go
//
// The phases up to admit make a plan: the object to store and the writes that store it. Planning
// reads other objects from the watch cache and costs no round trip; commit.go plans again from
// current reads when the plan failed or was out of date.
package pipeline

import (
	"context"

	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/scheme"
	"github.com/xebec-project/xebec/services/apiserver/admission"
	"github.com/xebec-project/xebec/services/apiserver/apply"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// Pipeline makes writes. All fields are required, and not changed once it is in use.
type Pipeline struct {
	// Scheme has the kinds that are served.
	Scheme *scheme.Scheme
	// Codec reads and writes JSON of objects of these kinds.
	Codec *codec.Codec
	// Store holds the objects.
	Store *storage.Store
	// MaxTxnOps is etcd's limit on the operations of a transaction.
	MaxTxnOps int
	// Authorizer decides on rights.
	Authorizer authz.Authorizer
	// Registry has what differs between kinds.
	Registry *registry.Registry
	// Admission is the chain that every write passes.
	Admission admission.Chain
	// Merger keeps the owners of fields.
	Merger *apply.Merger
	// CheckLease refuses a lease that is not the caller's to create objects under; 0 is none.
	CheckLease func(ctx context.Context, id int64) error
}

// Authorize checks the caller's right; a's caller is filled in. A refusal is an error of the API.
func (p *Pipeline) Authorize(ctx context.Context, caller authz.Caller, a authz.Attributes) error {
	a.Caller = caller
	return rpc.Refusal(authz.Check(ctx, p.Authorizer, a))
}

// plan is one attempt to work out what a write does.
type plan struct {
	*Pipeline
	caller authz.Caller
	dryRun bool
	// get reads the objects that the plan is made from.
	get storage.Reader
}

// attributes describe a change of one object to admission; old is nil for a create and o for a
// delete.
func (p *plan) attributes(op admission.Operation, subresource string, k *scheme.Kind, o, old scheme.Object) *admission.Attributes {
	a := &admission.Attributes{
		Operation: op, Subresource: subresource, Caller: p.caller, Kind: k, Object: o, Old: old, DryRun: p.dryRun, Get: p.get,
	}
	named := o
	if o == nil {
		named = old
	}
	a.Namespace, a.Name = named.GetMetadata().GetNamespace(), named.GetMetadata().GetName()
	return a
}
