package clienttest

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Create implements apiv1.ResourceServiceServer.
func (s *Server) Create(_ context.Context, req *apiv1.CreateRequest) (*apiv1.CreateResponse, error) {
	if err := s.enter("Create", req); err != nil {
		return nil, err
	}
	resp := &apiv1.CreateResponse{}
	_, err := s.write(req, func(t *transaction) (err error) {
		resp.Object, err = t.create(req)
		return err
	})
	return resp, err
}

// Update implements apiv1.ResourceServiceServer.
func (s *Server) Update(_ context.Context, req *apiv1.UpdateRequest) (*apiv1.UpdateResponse, error) {
	if err := s.enter("Update", req); err != nil {
		return nil, err
	}
	resp := &apiv1.UpdateResponse{}
	_, err := s.write(req, func(t *transaction) (err error) {
		resp.Object, err = t.update(req.GetObject(), req.GetLeaseId(), req.GetSubresource())
		return err
	})
	return resp, err
}

// UpdateStatus implements apiv1.ResourceServiceServer.
func (s *Server) UpdateStatus(_ context.Context, req *apiv1.UpdateStatusRequest) (*apiv1.UpdateStatusResponse, error) {
	if err := s.enter("UpdateStatus", req); err != nil {
		return nil, err
	}
	resp := &apiv1.UpdateStatusResponse{}
	_, err := s.write(req, func(t *transaction) (err error) {
		resp.Object, err = t.updateStatus(req.GetObject())
		return err
	})
	return resp, err
}

// Delete implements apiv1.ResourceServiceServer.
func (s *Server) Delete(_ context.Context, req *apiv1.DeleteRequest) (*apiv1.DeleteResponse, error) {
	if err := s.enter("Delete", req); err != nil {
		return nil, err
	}
	resp := &apiv1.DeleteResponse{}
	_, err := s.write(req, func(t *transaction) (err error) {
		resp.Object, resp.Removed, err = t.delete(req)
		return err
	})
	return resp, err
}

// DeleteCollection implements apiv1.ResourceServiceServer.
func (s *Server) DeleteCollection(_ context.Context, req *apiv1.DeleteCollectionRequest) (*apiv1.DeleteCollectionResponse, error) {
	if err := s.enter("DeleteCollection", req); err != nil {
		return nil, err
	}
	k, err := s.keyFor(req.GetGroup(), req.GetKind(), req.GetNamespace(), "")
	if err != nil {
		return nil, err
	}
	if k.kind.Namespaced && k.namespace == "" {
		return nil, apierr.BadField("namespace", "required to delete a collection of %s", k.kind.Plural)
	}
	sel, err := newSelector(k.kind, k.namespace, req.GetLabelSelector(), req.GetFieldSelector())
	if err != nil {
		return nil, err
	}
	resp := &apiv1.DeleteCollectionResponse{}
	_, err = s.write(req, func(t *transaction) error {
		all, err := s.snapshot(k.kind, k.namespace, s.revision)
		if err != nil {
			return err
		}
		for _, obj := range all {
			if !sel.matches(obj) {
				continue
			}
			m := obj.GetMetadata()
			_, removed, err := t.delete(&apiv1.DeleteRequest{
				Object: &apiv1.ObjectReference{
					Group: k.kind.Group, Kind: k.kind.Name, Namespace: m.GetNamespace(), Name: m.GetName(),
				},
				GracePeriodSeconds: req.GracePeriodSeconds, PropagationPolicy: req.GetPropagationPolicy(),
			})
			if err != nil {
				return err
			}
			resp.Deleted++
			resp.Objects = append(resp.Objects, &apiv1.DeletedObject{
				Namespace: m.GetNamespace(), Name: m.GetName(), Uid: m.GetUid(), Removed: removed,
			})
		}
		return nil
	})
	return resp, err
}

// Transact implements apiv1.ResourceServiceServer.
func (s *Server) Transact(_ context.Context, req *apiv1.TransactRequest) (*apiv1.TransactResponse, error) {
	if err := s.enter("Transact", req); err != nil {
		return nil, err
	}
	if n := len(req.GetOperations()); n > client.MaxOperations {
		return nil, apierr.BadField("operations", "%d are too many: at most %d", n, client.MaxOperations)
	}
	resp := &apiv1.TransactResponse{}
	revision, err := s.write(req, func(t *transaction) error {
		for i, op := range req.GetOperations() {
			a, err := t.operate(op)
			if err != nil {
				return apierr.AtOperation(err, i)
			}
			resp.Objects = append(resp.Objects, a)
		}
		return nil
	})
	resp.ResourceVersion = format(revision)
	return resp, err
}

func (t *transaction) operate(op *apiv1.Operation) (a *anypb.Any, err error) {
	switch o := op.GetOperation().(type) {
	case *apiv1.Operation_Create:
		return t.create(o.Create)
	case *apiv1.Operation_Update:
		return t.update(o.Update.GetObject(), 0, o.Update.GetSubresource())
	case *apiv1.Operation_UpdateStatus:
		return t.updateStatus(o.UpdateStatus.GetObject())
	case *apiv1.Operation_Delete:
		a, _, err = t.delete(o.Delete)
		return a, err
	case *apiv1.Operation_Bind:
		return t.bind(o.Bind)
	default:
		return nil, apierr.BadRequest("an operation must be set")
	}
}

func (t *transaction) create(req *apiv1.CreateRequest) (*anypb.Any, error) {
	obj, err := unwrap(req.GetObject())
	if err != nil {
		return nil, err
	}
	k := kinds.Of(obj)
	m := metadataOf(obj)
	if m.Name == "" && m.GenerateName != "" {
		m.Name = m.GenerateName + strconv.FormatUint(rand.Uint64N(1<<24)+1<<24, 36)
	}
	m.Uid, m.ResourceVersion, m.CreationTimestamp = "", "", nil
	m.DeletionTimestamp, m.DeletionGracePeriodSeconds = nil, nil
	t.server.stamp(obj)
	k.PrepareCreate(obj)
	m.Generation = 1
	k.Default(obj)
	if err := apierr.Invalid(k, m.Name, append(k.Validate(obj), k.ValidateNew(obj)...)); err != nil {
		return nil, err
	}
	key := keyOf(obj)
	if t.terminating(key.namespace) {
		return nil, apierr.NamespaceTerminating(k, key.name, key.namespace)
	}
	if t.get(key) != nil {
		return nil, apierr.AlreadyExists(k, key.name)
	}
	if id := req.GetLeaseId(); id != 0 && t.server.leases[id] == nil {
		return nil, leaseNotFound(id)
	}
	t.put(key, obj, req.GetLeaseId())
	return wrap(obj), nil
}

func (t *transaction) terminating(namespace string) bool {
	k := kinds.Of(new(corev1.Namespace))
	r := t.get(objectKey{kind: k, name: namespace})
	return r != nil && r.obj.GetMetadata().GetDeletionTimestamp() != nil
}

// current finds the stored object that obj is a new version of, and checks obj's uid and version
// against it.
func (t *transaction) current(obj scheme.Object) (objectKey, *record, error) {
	key := keyOf(obj)
	r := t.get(key)
	if r == nil {
		return key, nil, apierr.NotFound(key.kind, key.name)
	}
	have, want := r.obj.GetMetadata(), obj.GetMetadata()
	if want.GetUid() != "" && want.GetUid() != have.GetUid() {
		return key, nil, apierr.Conflict(key.kind, key.name, "its uid is "+have.GetUid()+" and not "+want.GetUid())
	}
	if want.GetResourceVersion() != "" && want.GetResourceVersion() != have.GetResourceVersion() {
		return key, nil, apierr.Conflict(key.kind, key.name, "")
	}
	return key, r, nil
}

// update replaces an object, or what a subresource changes of it, and moves it to a lease unless
// that is 0.
func (t *transaction) update(a *anypb.Any, lease int64, subresource string) (*anypb.Any, error) {
	if subresource == "status" {
		return t.updateStatus(a)
	}
	obj, err := unwrap(a)
	if err != nil {
		return nil, err
	}
	key, old, err := t.current(obj)
	if err != nil {
		return nil, err
	}
	if lease != 0 {
		if t.server.leases[lease] == nil {
			return nil, leaseNotFound(lease)
		}
		moved := *old
		moved.lease = lease
		old = &moved
	}
	k := key.kind
	part, validate := k.Part(subresource), k.ValidateUpdate
	switch {
	case part != nil:
		validate = part.Validate
	case subresource != "":
		return nil, apierr.BadField("subresource", "%q is not accepted for %s", subresource, k.Plural)
	}
	m, was := metadataOf(obj), old.obj.GetMetadata()
	m.Uid, m.Generation, m.CreationTimestamp = was.GetUid(), was.GetGeneration(), was.GetCreationTimestamp()
	m.DeletionTimestamp = was.GetDeletionTimestamp()
	m.DeletionGracePeriodSeconds = was.DeletionGracePeriodSeconds
	if part != nil {
		k.PreparePart(part, obj, old.obj)
	} else {
		k.Default(obj)
		k.PrepareUpdate(obj, old.obj)
	}
	if err := apierr.Invalid(k, key.name, k.Validate(obj)); err != nil {
		return nil, err
	}
	if err := apierr.Invalid(k, key.name, validate(obj, old.obj)); err != nil {
		return nil, err
	}
	return t.replace(key, old, obj), nil
}

func (t *transaction) updateStatus(a *anypb.Any) (*anypb.Any, error) {
	obj, err := unwrap(a)
	if err != nil {
		return nil, err
	}
	key, old, err := t.current(obj)
	if err != nil {
		return nil, err
	}
	if !key.kind.HasStatus() {
		return nil, apierr.Unsupported("%s have no status", key.kind.Plural)
	}
	key.kind.PrepareStatusUpdate(obj, old.obj)
	if err := apierr.Invalid(key.kind, key.name, key.kind.ValidateStatusUpdate(obj, old.obj)); err != nil {
		return nil, err
	}
	return t.replace(key, old, obj), nil
}

// replace stores obj in place of old unless nothing differs, or removes it when it was only waiting
// for the finalizers that obj no longer has.
func (t *transaction) replace(key objectKey, old *record, obj scheme.Object) *anypb.Any {
	m := metadataOf(obj)
	m.ResourceVersion = old.obj.GetMetadata().GetResourceVersion()
	if proto.Equal(obj, old.obj) {
		return wrap(old.obj)
	}
	t.put(key, obj, old.lease)
	if m.DeletionTimestamp != nil && m.GetDeletionGracePeriodSeconds() == 0 && !held(obj) {
		return wrap(t.remove(key))
	}
	return wrap(obj)
}

// held reports whether finalizers keep the object.
func held(obj scheme.Object) bool {
	if ns, ok := obj.(*corev1.Namespace); ok && len(ns.GetSpec().GetFinalizers()) > 0 {
		return true
	}
	return len(obj.GetMetadata().GetFinalizers()) > 0
}

func (t *transaction) delete(req *apiv1.DeleteRequest) (*anypb.Any, bool, error) {
	key, err := t.server.keyForReference(req.GetObject())
	if err != nil {
		return nil, false, err
	}
	r := t.get(key)
	if r == nil {
		return nil, false, apierr.NotFound(key.kind, key.name)
	}
	have := r.obj.GetMetadata()
	if req.GetUid() != "" && req.GetUid() != have.GetUid() {
		return nil, false, apierr.Conflict(key.kind, key.name, "its uid is "+have.GetUid()+" and not "+req.GetUid())
	}
	if v := req.GetResourceVersion(); v != "" && v != have.GetResourceVersion() {
		return nil, false, apierr.Conflict(key.kind, key.name, "")
	}
	obj := client.Clone(r.obj)
	m := metadataOf(obj)
	grace := int64(0)
	switch {
	case req.GracePeriodSeconds != nil && key.kind.GracePeriod != nil:
		grace = req.GetGracePeriodSeconds()
	case key.kind.GracePeriod != nil:
		grace = key.kind.GracePeriod(obj)
	}
	for policy, finalizer := range map[apiv1.PropagationPolicy]string{
		apiv1.PropagationPolicy_PROPAGATION_POLICY_FOREGROUND: "foregroundDeletion",
		apiv1.PropagationPolicy_PROPAGATION_POLICY_ORPHAN:     "orphan",
	} {
		if policy == req.GetPropagationPolicy() && !slices.Contains(m.Finalizers, finalizer) {
			m.Finalizers = append(m.Finalizers, finalizer)
		}
	}
	if m.DeletionTimestamp != nil && m.GetDeletionGracePeriodSeconds() < grace {
		grace = m.GetDeletionGracePeriodSeconds() // A deletion can only be hastened.
	}
	if grace == 0 && !held(obj) {
		return wrap(t.remove(key)), true, nil
	}
	if m.DeletionTimestamp == nil || grace < m.GetDeletionGracePeriodSeconds() {
		m.DeletionTimestamp = timestamppb.New(time.Now().Add(time.Duration(grace) * time.Second).Truncate(time.Second))
		m.DeletionGracePeriodSeconds = &grace
	}
	if ns, ok := obj.(*corev1.Namespace); ok {
		if ns.Status == nil {
			ns.Status = &corev1.NamespaceStatus{}
		}
		ns.Status.Phase = "Terminating"
	}
	return t.replace(key, r, obj), false, nil
}

func (t *transaction) bind(req *apiv1.BindOperation) (*anypb.Any, error) {
	k := kinds.Of(new(corev1.Pod))
	key := objectKey{k, req.GetNamespace(), req.GetName()}
	r := t.get(key)
	if r == nil {
		return nil, apierr.NotFound(k, key.name)
	}
	pod := client.Clone(r.obj).(*corev1.Pod)
	switch {
	case req.GetUid() != "" && req.GetUid() != pod.GetMetadata().GetUid():
		return nil, apierr.Conflict(k, key.name, "its uid is "+pod.GetMetadata().GetUid()+" and not "+req.GetUid())
	case pod.GetMetadata().GetDeletionTimestamp() != nil:
		return nil, apierr.Conflict(k, key.name, "it is being deleted")
	case pod.GetSpec().GetNodeName() != "":
		return nil, apierr.Conflict(k, key.name, "it is bound to "+pod.GetSpec().GetNodeName()+" already")
	}
	if pod.Spec == nil {
		pod.Spec = &corev1.PodSpec{}
	}
	pod.Spec.NodeName = req.GetNodeName()
	return t.replace(key, r, pod), nil
}

func (s *Server) keyForReference(ref *apiv1.ObjectReference) (objectKey, error) {
	return s.keyFor(ref.GetGroup(), ref.GetKind(), ref.GetNamespace(), ref.GetName())
}

func unwrap(a *anypb.Any) (scheme.Object, error) {
	k, ok := kinds.OfTypeURL(a.GetTypeUrl())
	if !ok {
		return nil, apierr.BadField("object", "%q is not a kind", a.GetTypeUrl())
	}
	obj := k.New()
	if err := a.UnmarshalTo(obj); err != nil {
		return nil, apierr.BadField("object", "%v", err)
	}
	if m := obj.GetMetadata(); k.Namespaced && m.GetNamespace() == "" {
		return nil, apierr.BadField("metadata.namespace", "required for %s", k.Plural)
	}
	return obj, nil
}

// atRevision returns a copy of obj with a resourceVersion.
func atRevision(obj scheme.Object, revision int64) scheme.Object {
	obj = client.Clone(obj)
	metadataOf(obj).ResourceVersion = format(revision)
	return obj
}
