package apiserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kind"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/authz"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// Create stores a new object.
func (s *Service) Create(ctx context.Context, req *apiv1.CreateRequest) (*apiv1.CreateResponse, error) {
	if err := s.preauthorizeObject(ctx, authz.Create, req.GetObject()); err != nil {
		return nil, err
	}
	c, err := s.writeOne(ctx, req.GetFence(), req.GetDryRun(), func(ctx context.Context, get reader) (*change, error) {
		return s.planCreate(ctx, get, req)
	})
	if err != nil {
		return nil, err
	}
	out, err := encodeAny(c.kind, c.object)
	return &apiv1.CreateResponse{Object: out, Warnings: c.warnings}, err
}

// Update replaces an object but for its status.
func (s *Service) Update(ctx context.Context, req *apiv1.UpdateRequest) (*apiv1.UpdateResponse, error) {
	if err := s.preauthorizeObject(ctx, authz.Update, req.GetObject()); err != nil {
		return nil, err
	}
	c, err := s.writeOne(ctx, req.GetFence(), req.GetDryRun(), func(ctx context.Context, get reader) (*change, error) {
		return s.planUpdate(ctx, get, req)
	})
	if err != nil {
		return nil, err
	}
	out, err := encodeAny(c.kind, c.object)
	return &apiv1.UpdateResponse{Object: out, Warnings: c.warnings}, err
}

// UpdateStatus replaces only the object's status.
func (s *Service) UpdateStatus(ctx context.Context, req *apiv1.UpdateStatusRequest) (*apiv1.UpdateStatusResponse, error) {
	if err := s.preauthorizeObject(ctx, authz.UpdateStatus, req.GetObject()); err != nil {
		return nil, err
	}
	c, err := s.writeOne(ctx, req.GetFence(), false, func(ctx context.Context, get reader) (*change, error) {
		return s.planUpdateStatus(ctx, get, req)
	})
	if err != nil {
		return nil, err
	}
	out, err := encodeAny(c.kind, c.object)
	return &apiv1.UpdateStatusResponse{Object: out}, err
}

// Delete removes an object or marks it for deletion.
func (s *Service) Delete(ctx context.Context, req *apiv1.DeleteRequest) (*apiv1.DeleteResponse, error) {
	if err := s.preauthorizeReference(ctx, authz.Delete, req.GetObject()); err != nil {
		return nil, err
	}
	c, err := s.writeOne(ctx, req.GetFence(), req.GetDryRun(), func(ctx context.Context, get reader) (*change, error) {
		return s.planDelete(ctx, get, req)
	})
	if err != nil {
		return nil, err
	}
	out, err := encodeAny(c.kind, c.object)
	return &apiv1.DeleteResponse{Object: out, Removed: c.removed}, err
}

// DeleteCollection deletes what a List with the same selectors returns, object by object.
func (s *Service) DeleteCollection(ctx context.Context, req *apiv1.DeleteCollectionRequest) (*apiv1.DeleteCollectionResponse, error) {
	sel, err := s.selectFor(ctx, authz.Delete, req)
	if err != nil {
		return nil, err
	}
	if sel.kind.Namespaced && req.GetNamespace() == "" {
		return nil, apierr.BadField("namespace", "is required: a collection is deleted one namespace at a time")
	}
	list, err := s.store.List(ctx, storage.ListOptions{Group: sel.kind.Group, Kind: sel.kind.Name, Namespace: req.GetNamespace(), Match: sel.match})
	if err != nil {
		return nil, storageError(err)
	}
	resp := &apiv1.DeleteCollectionResponse{}
	for _, o := range list.Objects {
		_, err := s.Delete(ctx, &apiv1.DeleteRequest{
			Object:             &apiv1.ObjectReference{Group: sel.kind.Group, Kind: sel.kind.Name, Namespace: o.Key.Namespace, Name: o.Key.Name},
			GracePeriodSeconds: req.GracePeriodSeconds, PropagationPolicy: req.GetPropagationPolicy(), DryRun: req.GetDryRun(), Fence: req.GetFence(),
			Uid: o.Meta().GetUid(),
		})
		switch {
		case apierr.IsNotFound(err) || apierr.IsConflict(err): // gone, or another one of its name by now
		case err != nil:
			return nil, fmt.Errorf("after deleting %d objects: %w", resp.Deleted, err)
		default:
			resp.Deleted++
		}
	}
	return resp, nil
}

func (s *Service) planCreate(ctx context.Context, get reader, req *apiv1.CreateRequest) (*change, error) {
	t, err := targetOf(req.GetObject())
	if err != nil {
		return nil, err
	}
	ask := t.ask(authz.Create)
	ask.NodeName = t.node
	if err := s.authorize(ctx, ask); err != nil {
		return nil, err
	}
	if err := checkManager(req.GetFieldManager()); err != nil {
		return nil, err
	}
	k, o, err := decodeAny(req.GetObject())
	if err != nil {
		return nil, err
	}
	o.GetMetadata().ManagedFields = nil // the server's to keep; an exported object brings its own
	return s.createChange(ctx, get, k, o, req.GetFieldManager(), req.GetLeaseId())
}

// createChange makes a complete object of what a client sent, checks it and plans its creation.
func (s *Service) createChange(ctx context.Context, get reader, k *kind.Kind, o kind.Object, manager string, lease int64) (*change, error) {
	meta := o.GetMetadata()
	if meta.GetResourceVersion() != "" {
		return nil, apierr.BadField("metadata.resourceVersion", "must not be set on an object to be created")
	}
	if meta.GetName() == "" && meta.GetGenerateName() != "" {
		meta.Name = meta.GetGenerateName() + nameSuffix()
	}
	now := time.Now()
	meta.Uid, meta.CreationTimestamp = uuid.NewString(), timestamppb.New(now.Truncate(time.Second))
	meta.DeletionTimestamp, meta.DeletionGracePeriodSeconds = nil, nil
	k.PrepareCreate(o)
	conditions, err := s.checkNamespace(ctx, get, k, o)
	if err != nil {
		return nil, err
	}
	if err := s.checkLease(ctx, lease); err != nil {
		return nil, err
	}
	k.Default(o)
	if err := s.admitAccount(ctx, get, o); err != nil {
		return nil, err
	}
	extra, err := s.admit(ctx, get, o, nil)
	if err != nil {
		return nil, err
	}
	if namespace, ok := o.(*corev1.Namespace); ok && namespace.GetMetadata().GetName() != "" {
		account, err := accountWrite(ctx, get, namespace.GetMetadata().GetName())
		if err != nil {
			return nil, err
		}
		extra = append(extra, account...)
	}
	if errs := append(k.Validate(o), k.ValidateNew(o)...); len(errs) > 0 {
		return nil, apierr.Invalid(k, meta.GetName(), errs)
	}
	key := keyOfObject(k, o)
	if _, err := get(ctx, key); err == nil {
		return nil, apierr.AlreadyExists(k, key.Name)
	} else if !errors.Is(err, storage.ErrNotFound) {
		return nil, storageError(err)
	}
	if manager != "" && len(meta.GetManagedFields()) == 0 {
		if err := s.merger.Update(nil, o, manager, now); err != nil {
			return nil, err
		}
	}
	b, err := encode(k, o)
	if err != nil {
		return nil, err
	}
	writes := append([]storage.Write{{Key: key, Bytes: b, Lease: lease}}, extra...)
	return &change{kind: k, object: o, writes: writes, conditions: conditions, warnings: warnings(k, o)}, nil
}

func (s *Service) planUpdate(ctx context.Context, get reader, req *apiv1.UpdateRequest) (*change, error) {
	stored, err := s.storedForUpdate(ctx, get, authz.Update, req.GetObject())
	if err != nil {
		return nil, err
	}
	if err := checkManager(req.GetFieldManager()); err != nil {
		return nil, err
	}
	k, o, err := decodeAny(req.GetObject())
	if err != nil {
		return nil, err
	}
	old, err := decodeWanted(k, stored, o.GetMetadata())
	if err != nil {
		return nil, err
	}
	return s.updateChange(ctx, get, k, stored, old, o, req.GetFieldManager())
}

// storedForWrite reads the object that a request would change and checks the caller's right to it.
func (s *Service) storedForWrite(ctx context.Context, get reader, verb authz.Verb, t target) (*storage.Object, error) {
	ask := t.ask(verb)
	stored, err := get(ctx, t.key)
	missing := errors.Is(err, storage.ErrNotFound)
	if stored != nil {
		ask.NodeName = nodeOf(t.kind, stored)
	}
	if denied := s.authorize(ctx, ask); denied != nil && !(missing && s.mayMiss(ctx, ask)) {
		return nil, denied
	}
	if missing {
		return nil, apierr.NotFound(t.kind, t.key.Name)
	}
	return stored, storageError(err)
}

// storedForUpdate is storedForWrite for the object that a request holds a new state of.
func (s *Service) storedForUpdate(ctx context.Context, get reader, verb authz.Verb, object *anypb.Any) (*storage.Object, error) {
	t, err := targetOf(object)
	if err != nil {
		return nil, err
	}
	return s.storedForWrite(ctx, get, verb, t)
}

// currentForWrite is storedForWrite, with the object decoded and the version that the request names, if it does, checked.
func (s *Service) currentForWrite(ctx context.Context, get reader, verb authz.Verb, k *kind.Kind, want *metav1.ObjectMeta) (*storage.Object, kind.Object, error) {
	stored, err := s.storedForWrite(ctx, get, verb, target{kind: k, key: keyOf(k, want.GetNamespace(), want.GetName())})
	if err != nil {
		return nil, nil, err
	}
	old, err := decodeWanted(k, stored, want)
	if err != nil {
		return nil, nil, err
	}
	return stored, old, nil
}

// decodeWanted decodes a stored object, which must be of the version and uid that a request names, if it does.
func decodeWanted(k *kind.Kind, stored *storage.Object, want *metav1.ObjectMeta) (kind.Object, error) {
	old, err := decodeStored(k, stored)
	if err != nil {
		return nil, err
	}
	if v := want.GetResourceVersion(); v != "" && v != old.GetMetadata().GetResourceVersion() {
		if _, err := parseRevision("metadata.resourceVersion", v); err != nil {
			return nil, err
		}
		return nil, apierr.Conflict(k, want.GetName(), fmt.Sprintf("it is at resourceVersion %s, not %s; read it again and redo the change", old.GetMetadata().GetResourceVersion(), v))
	}
	if uid := want.GetUid(); uid != "" && uid != old.GetMetadata().GetUid() {
		return nil, apierr.Conflict(k, want.GetName(), fmt.Sprintf("its uid is %s, not %s: it was deleted and created again", old.GetMetadata().GetUid(), uid))
	}
	return old, nil
}

// updateChange plans replacing old, stored as it is, by updated.
func (s *Service) updateChange(ctx context.Context, get reader, k *kind.Kind, stored *storage.Object, old, updated kind.Object, manager string) (*change, error) {
	expected := updated.GetMetadata().GetResourceVersion() != ""
	extra, err := s.completeUpdate(ctx, get, k, old, updated)
	if err != nil {
		return nil, err
	}
	if manager == "" && len(old.GetMetadata().GetManagedFields()) > 0 {
		manager = callerOf(ctx).User
	}
	updated.GetMetadata().ManagedFields = old.GetMetadata().GetManagedFields()
	if manager != "" {
		if err := s.merger.Update(old, updated, manager, time.Now()); err != nil {
			return nil, err
		}
	}
	c, err := s.replaceChange(ctx, get, k, stored, updated, extra)
	if err != nil {
		return nil, err
	}
	c.expected, c.warnings = expected, warnings(k, updated)
	return c, nil
}

// completeUpdate makes a complete object of what a client sent in place of old and checks it. It returns the writes that
// must go with it.
func (s *Service) completeUpdate(ctx context.Context, get reader, k *kind.Kind, old, updated kind.Object) ([]storage.Write, error) {
	keepServerMetadata(updated.GetMetadata(), old.GetMetadata())
	k.Default(updated)
	k.PrepareUpdate(updated, old)
	extra, err := s.admit(ctx, get, updated, old)
	if err != nil {
		return nil, err
	}
	if errs := k.Validate(updated); len(errs) > 0 {
		return nil, apierr.Invalid(k, old.GetMetadata().GetName(), errs)
	}
	if errs := k.ValidateUpdate(updated, old); len(errs) > 0 {
		return nil, apierr.Invalid(k, old.GetMetadata().GetName(), errs)
	}
	return extra, nil
}

func (s *Service) planUpdateStatus(ctx context.Context, get reader, req *apiv1.UpdateStatusRequest) (*change, error) {
	stored, err := s.storedForUpdate(ctx, get, authz.UpdateStatus, req.GetObject())
	if err != nil {
		return nil, err
	}
	k, o, err := decodeAny(req.GetObject())
	if err != nil {
		return nil, err
	}
	if !k.HasStatus {
		return nil, apierr.Unsupported("%s have no status", k.Resource())
	}
	meta := o.GetMetadata()
	expected := meta.GetResourceVersion() != ""
	old, err := decodeWanted(k, stored, meta)
	if err != nil {
		return nil, err
	}
	k.PrepareStatusUpdate(o, old)
	if err := s.restrictStatus(ctx, get, o, old); err != nil {
		return nil, err
	}
	if errs := k.ValidateStatusUpdate(o, old); len(errs) > 0 {
		return nil, apierr.Invalid(k, stored.Key.Name, errs)
	}
	c, err := s.replaceChange(ctx, get, k, stored, o, nil)
	if err != nil {
		return nil, err
	}
	c.expected = expected
	return c, nil
}

// replaceChange plans storing o in place of stored: nothing when they are the same, and its removal when o was only kept
// for finalizers that are gone now.
func (s *Service) replaceChange(ctx context.Context, get reader, k *kind.Kind, stored *storage.Object, o kind.Object, extra []storage.Write) (*change, error) {
	c := &change{kind: k, object: o}
	if finished(o) {
		release, err := s.release(ctx, get, o)
		if err != nil {
			return nil, err
		}
		c.writes, c.removed = append([]storage.Write{{Key: stored.Key, Delete: true, Expect: stored.Revision}}, release...), true
		return c, nil
	}
	b, err := encode(k, o)
	if err != nil {
		return nil, err
	}
	o.GetMetadata().ResourceVersion = strconv.FormatInt(stored.Revision, 10)
	write := storage.Write{Key: stored.Key, Bytes: b, Expect: stored.Revision, Lease: stored.Lease}
	if bytes.Equal(b, stored.Bytes) && len(extra) == 0 {
		c.same = &write
		return c, nil
	}
	c.writes = append([]storage.Write{write}, extra...)
	return c, nil
}

// warnings are what a client's user should know about an accepted object: fields that have no effect yet.
func warnings(k *kind.Kind, o kind.Object) []string {
	return append(codec.Warnings(o), k.Warnings(o)...)
}

// keepServerMetadata puts back what only the server writes.
func keepServerMetadata(meta, old *metav1.ObjectMeta) {
	meta.Uid, meta.CreationTimestamp = old.GetUid(), old.GetCreationTimestamp()
	meta.Generation, meta.GenerateName = old.GetGeneration(), old.GetGenerateName()
	meta.DeletionTimestamp, meta.DeletionGracePeriodSeconds = old.GetDeletionTimestamp(), old.DeletionGracePeriodSeconds
}

// suffixAlphabet has no vowels and no look-alikes, so that names are neither words nor misread.
const suffixAlphabet = "bcdfghjklmnpqrstvwxz2456789"

// nameSuffix is five random characters for generateName.
func nameSuffix() string {
	b := make([]byte, 5)
	rand.Read(b)
	for i := range b {
		b[i] = suffixAlphabet[int(b[i])%len(suffixAlphabet)]
	}
	return string(b)
}
