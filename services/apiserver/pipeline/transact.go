package pipeline

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/admission"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// maxOperations bounds a transaction; see TransactRequest.
const maxOperations = 500

// Transact makes several writes in one etcd transaction.
func (p *Pipeline) Transact(ctx context.Context, caller authz.Caller, req *apiv1.TransactRequest) (*apiv1.TransactResponse, error) {
	if n := len(req.GetOperations()); n == 0 || n > maxOperations {
		return nil, apierr.BadField("operations", "must have 1 to %d operations, has %d", maxOperations, n)
	}
	targets := make([]target, len(req.GetOperations()))
	for i, op := range req.GetOperations() {
		t, err := p.targetOfOperation(op)
		targets[i] = t
		if n := len(conditionsOf(op)); err == nil && n > 0 {
			err = apierr.BadField("conditions", "must be empty in an operation: the conditions of the transaction hold for all")
		}
		if err == nil {
			err = p.Preauthorize(ctx, caller, t.attributes())
		}
		if err != nil {
			return nil, apierr.AtOperation(err, i)
		}
	}
	changes, revision, err := p.write(ctx, caller, req, func(ctx context.Context, p *plan) ([]*change, error) {
		changes := make([]*change, len(req.GetOperations()))
		seen := map[storage.Key]int{}
		for i, op := range req.GetOperations() {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			c, err := p.operate(ctx, targets[i], op)
			if err != nil {
				return nil, apierr.AtOperation(err, i)
			}
			key := registry.KeyOfObject(c.kind, c.object)
			if first, twice := seen[key]; twice {
				return nil, apierr.BadField(fmt.Sprintf("operations[%d]", i), "%s %q is written by operations[%d] already",
					c.kind.Name, key.Name, first)
			}
			if len(c.writes) == 0 && c.same != nil {
				c.writes = []storage.Write{*c.same}
			}
			seen[key], changes[i] = i, c
		}
		return changes, nil
	})
	if err != nil {
		return nil, err
	}
	resp := &apiv1.TransactResponse{Objects: make([]*anypb.Any, len(changes)), Results: make([]*apiv1.OperationResult, len(changes))}
	if revision > 0 {
		resp.ResourceVersion = strconv.FormatInt(revision, 10)
	}
	for i, c := range changes {
		if resp.Objects[i], err = c.encode(targets[i].kind); err != nil {
			return nil, err
		}
		resp.Results[i] = &apiv1.OperationResult{Warnings: c.warnings, Applied: c.applied}
	}
	return resp, nil
}

// operate plans one operation, of which t is the target.
func (p *plan) operate(ctx context.Context, t target, op *apiv1.Operation) (*change, error) {
	switch op := op.GetOperation().(type) {
	case *apiv1.Operation_Create:
		return p.create(ctx, t, op.Create)
	case *apiv1.Operation_Update:
		return p.update(ctx, t, op.Update)
	case *apiv1.Operation_UpdateStatus:
		return p.updateStatus(ctx, t, op.UpdateStatus)
	case *apiv1.Operation_Delete:
		return p.delete(ctx, t, op.Delete)
	case *apiv1.Operation_Bind:
		return p.bind(ctx, t, op.Bind)
	case *apiv1.Operation_Apply:
		return p.apply(ctx, t, op.Apply)
	case *apiv1.Operation_Patch:
		parsed, err := parsePatch(t, op.Patch)
		if err != nil {
			return nil, err
		}
		return p.patch(ctx, t, op.Patch, parsed)
	}
	return nil, apierr.Internal("operation %T has a target and no plan", op.GetOperation())
}

// bind assigns a pod that has no node to one, as Kubernetes' binding subresource does.
func (p *plan) bind(ctx context.Context, t target, op *apiv1.BindOperation) (*change, error) {
	if op.GetNodeName() == "" {
		return nil, apierr.BadField("nodeName", "is required")
	}
	k := t.kind
	stored, old, err := p.currentForWrite(ctx, t, &metav1.ObjectMeta{Uid: op.GetUid()})
	if err != nil {
		return nil, err
	}
	pod := proto.CloneOf(old.(*corev1.Pod))
	if err := registry.Bind(pod, op.GetNodeName(), time.Now()); err != nil {
		return nil, err
	}
	attributes := p.attributes(admission.Update, "binding", k, pod, old)
	if err := p.Admission.Mutate(ctx, attributes); err != nil {
		return nil, err
	}
	if err := p.Admission.Validate(ctx, attributes); err != nil {
		return nil, err
	}
	if manager := op.GetFieldManager(); manager != "" {
		if err := checkManager(manager); err != nil {
			return nil, err
		}
		if err := p.Merger.Update(old, pod, manager, time.Now()); err != nil {
			return nil, err
		}
	}
	c := &change{kind: k, object: pod, conditions: attributes.Conditions}
	return c, p.replace(ctx, c, stored)
}

// conditionsOf are the conditions of the request in an operation.
func conditionsOf(op *apiv1.Operation) []*apiv1.Condition {
	switch op := op.GetOperation().(type) {
	case *apiv1.Operation_Create:
		return op.Create.GetConditions()
	case *apiv1.Operation_Update:
		return op.Update.GetConditions()
	case *apiv1.Operation_UpdateStatus:
		return op.UpdateStatus.GetConditions()
	case *apiv1.Operation_Delete:
		return op.Delete.GetConditions()
	case *apiv1.Operation_Apply:
		return op.Apply.GetConditions()
	case *apiv1.Operation_Patch:
		return op.Patch.GetConditions()
	}
	return nil
}
