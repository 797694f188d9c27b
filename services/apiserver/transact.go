package apiserver

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/authz"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// maxOperations bounds a transaction; see TransactRequest.
const maxOperations = 500

// Transact makes several writes in one etcd transaction.
func (s *Service) Transact(ctx context.Context, req *apiv1.TransactRequest) (*apiv1.TransactResponse, error) {
	if n := len(req.GetOperations()); n == 0 || n > maxOperations {
		return nil, apierr.BadField("operations", "must hold 1 to %d operations, holds %d", maxOperations, n)
	}
	for i, op := range req.GetOperations() {
		t, verb, err := targetOfOperation(op)
		if err == nil {
			err = s.preauthorize(ctx, t.ask(verb))
		}
		if err != nil {
			return nil, apierr.AtOperation(err, i)
		}
	}
	changes, revision, err := s.write(ctx, req.GetFence(), req.GetDryRun(), func(ctx context.Context, get reader) ([]*change, error) {
		changes := make([]*change, len(req.GetOperations()))
		seen := map[storage.Key]int{}
		for i, op := range req.GetOperations() {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			c, err := s.planOperation(ctx, get, op)
			if err != nil {
				return nil, apierr.AtOperation(err, i)
			}
			key := keyOfObject(c.kind, c.object)
			if first, twice := seen[key]; twice {
				return nil, apierr.BadField(fmt.Sprintf("operations[%d]", i), "%s %q is written by operations[%d] already", c.kind.Name, key.Name, first)
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
		if resp.Objects[i], err = encodeAny(c.kind, c.object); err != nil {
			return nil, err
		}
		resp.Results[i] = &apiv1.OperationResult{Warnings: c.warnings, Applied: c.applied}
	}
	return resp, nil
}

func (s *Service) planOperation(ctx context.Context, get reader, op *apiv1.Operation) (*change, error) {
	switch op := op.GetOperation().(type) {
	case *apiv1.Operation_Create:
		return s.planCreate(ctx, get, op.Create)
	case *apiv1.Operation_Update:
		return s.planUpdate(ctx, get, op.Update)
	case *apiv1.Operation_UpdateStatus:
		return s.planUpdateStatus(ctx, get, op.UpdateStatus)
	case *apiv1.Operation_Delete:
		return s.planDelete(ctx, get, op.Delete)
	case *apiv1.Operation_Bind:
		return s.planBind(ctx, get, op.Bind)
	case *apiv1.Operation_Apply:
		return s.planApply(ctx, get, op.Apply)
	}
	return nil, apierr.BadField("operation", "is required: one of create, update, updateStatus, delete, bind, apply")
}

// planBind assigns a pod that has no node to one, as Kubernetes' binding subresource does.
func (s *Service) planBind(ctx context.Context, get reader, op *apiv1.BindOperation) (*change, error) {
	if op.GetNodeName() == "" {
		return nil, apierr.BadField("nodeName", "is required")
	}
	k, key, err := resolveReference(podReference(op))
	if err != nil {
		return nil, err
	}
	stored, o, err := s.currentForWrite(ctx, get, authz.Bind, k, &metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Uid: op.GetUid()})
	if err != nil {
		return nil, err
	}
	pod := o.(*corev1.Pod)
	switch {
	case pod.GetSpec().GetNodeName() != "":
		return nil, apierr.Conflict(k, key.Name, fmt.Sprintf("it is bound to node %q already", pod.GetSpec().GetNodeName()))
	case pod.GetMetadata().GetDeletionTimestamp() != nil:
		return nil, apierr.Conflict(k, key.Name, "it is being deleted")
	}
	pod.Spec.NodeName = op.GetNodeName()
	if pod.Status == nil {
		pod.Status = &corev1.PodStatus{}
	}
	setScheduled(pod.Status, time.Now())
	return s.replaceChange(ctx, get, k, stored, pod, nil)
}

func setScheduled(status *corev1.PodStatus, now time.Time) {
	scheduled := &corev1.PodCondition{Type: "PodScheduled", Status: "True", LastTransitionTime: timestamppb.New(now.Truncate(time.Second))}
	for i, c := range status.GetConditions() {
		if c.GetType() == scheduled.GetType() {
			status.Conditions[i] = scheduled
			return
		}
	}
	status.Conditions = append(status.Conditions, scheduled)
}
