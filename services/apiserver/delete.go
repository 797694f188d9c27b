package apiserver

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kind"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/authz"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// planDelete plans a deletion in the steps that Kubernetes takes: an object with a grace period or finalizers is marked,
// and removed by the delete with grace 0 or the update that takes the last finalizer away; any other is removed at once.
func (s *Service) planDelete(ctx context.Context, get reader, req *apiv1.DeleteRequest) (*change, error) {
	k, key, err := resolveReference(req.GetObject())
	if err != nil {
		return nil, err
	}
	if g := req.GracePeriodSeconds; g != nil && *g < 0 {
		return nil, apierr.BadField("gracePeriodSeconds", "must not be negative, is %d", *g)
	}
	want := &metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Uid: req.GetUid(), ResourceVersion: req.GetResourceVersion()}
	stored, o, err := s.currentForWrite(ctx, get, authz.Delete, k, want)
	if err != nil {
		return nil, err
	}
	if k.Name == "Namespace" && slices.Contains(kind.PermanentNamespaces, key.Name) {
		return nil, apierr.Forbidden(k, key.Name, "the cluster cannot do without this namespace")
	}
	meta := o.GetMetadata()
	grace := int64(0)
	if k.GracePeriod != nil {
		grace = k.GracePeriod(o)
		if req.GracePeriodSeconds != nil && (grace > 0 || agentEnds(o)) {
			grace = req.GetGracePeriodSeconds()
		}
	}
	setPropagation(meta, req.GetPropagationPolicy())
	if meta.GetDeletionTimestamp() == nil || grace < meta.GetDeletionGracePeriodSeconds() {
		// The grace counts from the first request; a later one can only shorten it.
		start := time.Now()
		if t := meta.GetDeletionTimestamp(); t != nil {
			start = t.AsTime().Add(-time.Duration(meta.GetDeletionGracePeriodSeconds()) * time.Second)
		} else {
			meta.Generation++
		}
		meta.DeletionTimestamp = timestamppb.New(start.Add(time.Duration(grace) * time.Second).Truncate(time.Second))
		meta.DeletionGracePeriodSeconds = &grace
	}
	if ns, ok := o.(*corev1.Namespace); ok {
		if ns.Status == nil {
			ns.Status = &corev1.NamespaceStatus{}
		}
		ns.Status.Phase = "Terminating"
	}
	c, err := s.replaceChange(ctx, get, k, stored, o, nil)
	if err != nil {
		return nil, err
	}
	c.expected = req.GetResourceVersion() != ""
	return c, nil
}

// agentEnds reports whether an object is a pod that a node's agent runs and confirms the end of.
func agentEnds(o kind.Object) bool {
	p, ok := o.(*corev1.Pod)
	return ok && p.GetSpec().GetNodeName() != "" && !kind.IsPodFinished(p)
}

// finished reports whether an object is marked for deletion and nothing holds it any more.
func finished(o kind.Object) bool {
	meta := o.GetMetadata()
	return meta.GetDeletionTimestamp() != nil && meta.GetDeletionGracePeriodSeconds() == 0 && len(meta.GetFinalizers()) == 0
}

// setPropagation marks what becomes of the object's dependents. A policy that is named takes the place of one that an
// earlier request or the object itself had named.
func setPropagation(meta *metav1.ObjectMeta, policy apiv1.PropagationPolicy) {
	want := ""
	switch policy {
	case apiv1.PropagationPolicy_PROPAGATION_POLICY_UNSPECIFIED:
		return
	case apiv1.PropagationPolicy_PROPAGATION_POLICY_FOREGROUND:
		want = kind.FinalizerForeground
	case apiv1.PropagationPolicy_PROPAGATION_POLICY_ORPHAN:
		want = kind.FinalizerOrphan
	}
	meta.Finalizers = slices.DeleteFunc(meta.GetFinalizers(), func(f string) bool {
		return f != want && (f == kind.FinalizerForeground || f == kind.FinalizerOrphan)
	})
	if want != "" && !slices.Contains(meta.GetFinalizers(), want) {
		meta.Finalizers = append(meta.GetFinalizers(), want)
	}
}

// release plans giving back what a removed object had allocated.
func (s *Service) release(ctx context.Context, get reader, o kind.Object) ([]storage.Write, error) {
	svc, ok := o.(*corev1.Service)
	if !ok {
		return nil, nil
	}
	addresses, err := s.allocations.release(ctx, get, svc)
	if err != nil {
		return nil, err
	}
	ports, err := s.nodePorts.release(ctx, get, svc)
	return append(addresses, ports...), err
}
