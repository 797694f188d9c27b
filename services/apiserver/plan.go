package apiserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kind"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// maxObjectBytes is the largest stored object: what etcd takes in one request by default, 1.5 MiB.
const maxObjectBytes = 1536 << 10

// maxAttempts bounds how often a write is planned anew because the object changed between the read and the commit.
const maxAttempts = 16

// change is what one write would do: the storage writes that make it, the first of which concerns the object itself, and
// the object as it will be.
type change struct {
	kind   *kind.Kind
	object kind.Object
	writes []storage.Write
	// conditions are the objects that the change depends on without writing them.
	conditions []storage.Condition
	// same, where an update changes nothing, is the write that stores the object again: within a transaction it holds the
	// object to the version that the plan saw.
	same *storage.Write
	// removed says that the object is gone after the write.
	removed bool
	// expected is true when the caller named the version to change, so that a conflict is the caller's to resolve.
	expected bool
	warnings []string
	// applied is what an apply did.
	applied apiv1.ApplyResult
}

// reader reads one object for a plan.
type reader func(ctx context.Context, k storage.Key) (*storage.Object, error)

// planner makes the changes of a write from the objects that get returns. It may be called several times.
type planner func(ctx context.Context, get reader) ([]*change, error)

// write plans and commits. The first plan is made from the cache, which costs no read: the commit's comparisons catch what
// was stale, and a refusal is only believed when it was planned from a linearizable read.
func (s *Service) write(ctx context.Context, fence *apiv1.Fence, dryRun bool, plan planner) ([]*change, int64, error) {
	txnFence, err := decodeFence(fence)
	if err != nil {
		return nil, 0, err
	}
	var clash error
	for attempt := range maxAttempts {
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		fresh := attempt > 0
		get := s.readCached
		if fresh {
			get = s.readCurrent()
		}
		changes, err := plan(ctx, get)
		if err != nil {
			if !fresh {
				continue
			}
			return nil, 0, err
		}
		txn := storage.Txn{Fence: txnFence}
		idle := false
		for _, c := range changes {
			idle = idle || len(c.writes) == 0
			txn.Writes = append(txn.Writes, c.writes...)
			for _, condition := range c.conditions {
				// Many objects of a transaction may live in one namespace.
				if !slices.Contains(txn.Conditions, condition) {
					txn.Conditions = append(txn.Conditions, condition)
				}
			}
		}
		// That nothing has to change, or what a dry run would do, is believed only of a linearizable read: no comparison at
		// the commit would tell.
		if (idle || dryRun) && !fresh {
			continue
		}
		if key, twice := writtenTwice(txn.Writes); twice {
			// Two operations that allocate may have picked the same address: the next plan picks anew.
			clash = apierr.BadRequest("two operations of the transaction write %s %q: do them one after the other", key.Kind, key.Name)
			continue
		}
		if dryRun || len(txn.Writes) == 0 {
			return changes, 0, nil
		}
		// Each write is a condition too, and attempts and fences have theirs.
		others := len(txn.Conditions) + 2
		if n := len(txn.Writes) + others; n > s.maxTxnOps {
			return nil, 0, apierr.BadRequest("%d writes in one transaction are more than this cluster's etcd takes, which is %d: make fewer at once, or raise etcd's --max-txn-ops and the apiserver's storage.maxTxnOps", len(txn.Writes), s.maxTxnOps-others)
		}
		revision, err := s.store.Commit(ctx, txn)
		if conflict := (*storage.ConflictError)(nil); errors.As(err, &conflict) {
			// What was deleted since is not found, rather than changed: the next plan tells. And only the object itself is the
			// caller's: a namespace that changed, or an address that was allocated to another, the next plan takes into account.
			if c := writer(changes, conflict.Index); c != nil && c.expected && fresh && conflict.Exists {
				return nil, 0, conflictOf(c)
			}
			continue
		}
		if err != nil {
			return nil, 0, storageError(err)
		}
		for _, c := range changes {
			if len(c.writes) > 0 {
				c.object.GetMetadata().ResourceVersion = strconv.FormatInt(revision, 10)
			}
			if c.removed && isDefaultAccount(c.object) {
				s.accountsLost.notify()
			}
		}
		return changes, revision, nil
	}
	if clash != nil {
		return nil, 0, clash
	}
	return nil, 0, apierr.New(codes.Aborted, apierr.ReasonConflict, fmt.Sprintf("the object changed %d times while this write was being made; try again", maxAttempts))
}

// writtenTwice finds a key that two writes of a transaction share, which etcd does not take.
func writtenTwice(writes []storage.Write) (storage.Key, bool) {
	if len(writes) < 2 {
		return storage.Key{}, false
	}
	seen := make(map[storage.Key]bool, len(writes))
	for _, w := range writes {
		if seen[w.Key] {
			return w.Key, true
		}
		seen[w.Key] = true
	}
	return storage.Key{}, false
}

// writeOne is write for a plan of one change.
func (s *Service) writeOne(ctx context.Context, fence *apiv1.Fence, dryRun bool, plan func(ctx context.Context, get reader) (*change, error)) (*change, error) {
	changes, _, err := s.write(ctx, fence, dryRun, func(ctx context.Context, get reader) ([]*change, error) {
		c, err := plan(ctx, get)
		return []*change{c}, err
	})
	if err != nil {
		return nil, err
	}
	return changes[0], nil
}

// writer finds the change whose object the write of this index in the whole transaction stores, nil when that write goes with
// a change, such as an allocation, or is none.
func writer(changes []*change, index int) *change {
	for _, c := range changes {
		if index < 0 {
			return nil
		}
		if index == 0 && len(c.writes) > 0 {
			return c
		}
		index -= len(c.writes)
	}
	return nil
}

func conflictOf(c *change) error {
	return apierr.Conflict(c.kind, c.object.GetMetadata().GetName(), "it changed since it was read; read it again and redo the change")
}

// readCached reads for a first plan. What is not in the cache counts as absent: a plan that goes on from there writes on
// the condition that it is, and one that is refused is made again from a linearizable read.
func (s *Service) readCached(_ context.Context, key storage.Key) (*storage.Object, error) {
	if o, ok := s.store.GetCached(key); ok {
		return o, nil
	}
	return nil, fmt.Errorf("get %s: %w", key, storage.ErrNotFound)
}

// readCurrent returns a reader for one plan: its first read brings the cache up to date, so that the whole plan is made of
// what was acknowledged before it, at the cost of one round trip to etcd.
func (s *Service) readCurrent() reader {
	current := false
	return func(ctx context.Context, key storage.Key) (*storage.Object, error) {
		if current {
			return s.readCached(ctx, key)
		}
		o, err := s.store.Get(ctx, key)
		current = err == nil || errors.Is(err, storage.ErrNotFound)
		return o, err
	}
}

// current reads and decodes an object that the server itself writes.
func current(ctx context.Context, get reader, k *kind.Kind, key storage.Key) (*storage.Object, kind.Object, error) {
	stored, err := get(ctx, key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil, apierr.NotFound(k, key.Name)
	}
	if err != nil {
		return nil, nil, storageError(err)
	}
	o, err := decodeStored(k, stored)
	return stored, o, err
}

func decodeStored(k *kind.Kind, stored *storage.Object) (kind.Object, error) {
	o := k.New()
	if err := proto.Unmarshal(stored.Bytes, o); err != nil {
		return nil, fmt.Errorf("decode stored %s %s: %w", k.Name, stored.Key.Name, err)
	}
	if o.GetMetadata() == nil {
		return nil, fmt.Errorf("stored %s %s has no metadata", k.Name, stored.Key.Name)
	}
	o.GetMetadata().ResourceVersion = strconv.FormatInt(stored.Revision, 10)
	return o, nil
}

// encode is the object's stored form: without resourceVersion, which is the revision of the write.
func encode(k *kind.Kind, o kind.Object) ([]byte, error) {
	meta := o.GetMetadata()
	version := meta.ResourceVersion
	meta.ResourceVersion = ""
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(o)
	meta.ResourceVersion = version
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", k.Name, meta.GetName(), err)
	}
	if len(b) > maxObjectBytes {
		return nil, apierr.TooLarge(k, meta.GetName(), len(b), maxObjectBytes)
	}
	return b, nil
}

func keyOf(k *kind.Kind, namespace, name string) storage.Key {
	return storage.Key{Group: k.Group, Kind: k.Name, Namespace: namespace, Name: name}
}

func keyOfObject(k *kind.Kind, o kind.Object) storage.Key {
	return keyOf(k, o.GetMetadata().GetNamespace(), o.GetMetadata().GetName())
}

func decodeFence(f *apiv1.Fence) (*storage.Fence, error) {
	if f == nil {
		return nil, nil
	}
	revision, err := parseRevision("fence.createRevision", f.GetCreateRevision())
	if err != nil {
		return nil, err
	}
	return &storage.Fence{Key: storage.Key{Group: "coordination.k8s.io", Kind: "Lease", Namespace: f.GetNamespace(), Name: f.GetName()}, CreateRevision: revision}, nil
}

// parseRevision reads a resourceVersion of a request.
func parseRevision(field, s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		return 0, apierr.BadField(field, "%q is not a resourceVersion: it is a positive decimal number that the API returned", s)
	}
	return n, nil
}

// decodeAny unpacks an object of a request.
func decodeAny(a *anypb.Any) (*kind.Kind, kind.Object, error) {
	t, err := targetOf(a)
	if err != nil {
		return nil, nil, err
	}
	k := t.kind
	o := k.New()
	if err := proto.Unmarshal(a.GetValue(), o); err != nil {
		return nil, nil, apierr.BadField("object.value", "does not decode as %s: %v", k.MessageName(), err)
	}
	if o.GetMetadata() == nil {
		return nil, nil, apierr.BadField("metadata", "is required")
	}
	if keyOfObject(k, o) != t.key {
		// Rights were checked for t.
		return nil, nil, apierr.Internal("%s decodes as %v, its encoded form as %v", k.MessageName(), keyOfObject(k, o), t.key)
	}
	return k, o, nil
}

// encodeAny packs an object for a response.
func encodeAny(k *kind.Kind, o kind.Object) (*anypb.Any, error) {
	b, err := proto.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", k.Name, o.GetMetadata().GetName(), err)
	}
	return &anypb.Any{TypeUrl: k.TypeURL(), Value: b}, nil
}

// resolve finds the kind that a request names.
func resolve(group, name string) (*kind.Kind, error) {
	k, ok := kind.ByGroupKind(group, name)
	if !ok {
		return nil, apierr.BadField("kind", "no kind %q in group %q; xebec api-resources lists the kinds", shortened(name), shortened(group))
	}
	return k, nil
}

// resolveReference checks that a request names one object.
func resolveReference(ref *apiv1.ObjectReference) (*kind.Kind, storage.Key, error) {
	if ref == nil {
		return nil, storage.Key{}, apierr.BadField("object", "is required")
	}
	k, err := resolve(ref.GetGroup(), ref.GetKind())
	if err != nil {
		return nil, storage.Key{}, err
	}
	switch {
	case ref.GetName() == "":
		return nil, storage.Key{}, apierr.BadField("object.name", "is required")
	case k.Namespaced && ref.GetNamespace() == "":
		return nil, storage.Key{}, apierr.BadField("object.namespace", "is required: %s live in namespaces", k.Plural)
	case !k.Namespaced && ref.GetNamespace() != "":
		return nil, storage.Key{}, apierr.BadField("object.namespace", "must be empty: %s live in no namespace", k.Plural)
	}
	return k, keyOf(k, ref.GetNamespace(), ref.GetName()), nil
}
