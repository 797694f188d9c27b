package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	// maxBatch is the most dependents that one transaction creates or deletes.
	maxBatch = 250
	// maxBatchBytes keeps a transaction under etcd's default request limit of 1.5 MiB.
	maxBatchBytes = 1 << 20
	// operationBytes is what an operation of a transaction adds to its object.
	operationBytes = 512
	// observePause is how soon an owner is looked at again whose writes the informer does not show
	// yet. The changes themselves bring the owner back sooner, as a rule.
	observePause = time.Second
)

// DependentsConfig says what depends on what.
type DependentsConfig[O, T scheme.Object] struct {
	// Client writes the dependents.
	Client *client.Client
	// Owners mirrors the owners.
	Owners *client.Informer[O]
	// Dependents mirrors all objects of the dependents' kind. It needs the index of ByController.
	Dependents *client.Informer[T]
	// Selector returns the selector of an owner's dependents.
	Selector func(O) *metav1.LabelSelector
	// Claimable reports whether a dependent may be adopted and released; nil means each one. One
	// that is being deleted never is adopted.
	Claimable func(T) bool
	// Member reports whether a dependent that the selector chooses belongs to the owner; nil means
	// each one. Others are not adopted, and are released.
	Member func(O, T) bool
	// Unchanged creates dependents only while the owner is as the informer shows it: Create fails with
	// apierr.IsConditionFailed otherwise. It is for owners whose status counts dependents that are
	// gone. When the informer of dependents shows that one was counted, and that of the owners does
	// not yet, it would be created again.
	Unchanged bool
	// Finalizer is added to a dependent that is adopted, and taken from one that is released; empty
	// for none.
	Finalizer string
}

// Dependents are the objects of kind T that objects of kind O control: the pods of ReplicaSets, for
// example. It decides which they are (Claim), creates and deletes them, and knows the writes that
// the informer does not show yet. It does what Kubernetes' ControllerRefManager, expectations and
// PodControl do together.
//
// Its methods may be called concurrently, but not for the same owner: a Controller takes care of
// it.
type Dependents[O, T scheme.Object] struct {
	DependentsConfig[O, T]
	expectations *expectations
}

// NewDependents returns the dependents of the configured kinds.
func NewDependents[O, T scheme.Object](cfg DependentsConfig[O, T]) *Dependents[O, T] {
	if cfg.Claimable == nil {
		cfg.Claimable = func(T) bool { return true }
	}
	if cfg.Member == nil {
		cfg.Member = func(O, T) bool { return true }
	}
	return &Dependents[O, T]{DependentsConfig: cfg, expectations: newExpectations()}
}

// byController names the index of ByController.
const byController = "controller"

// ByController returns the index that an informer of dependents needs.
func ByController[T scheme.Object]() map[string]func(T) []string {
	return map[string]func(T) []string{byController: func(o T) []string {
		if ref := kinds.ControllerOf(o); ref != nil {
			return []string{ref.GetUid()}
		}
		return []string{orphansOf(o.GetMetadata().GetNamespace())}
	}}
}

// orphansOf is the indexed value of a namespace's objects that have no controller. No uid begins
// like it.
func orphansOf(namespace string) string { return "/" + namespace }

// ControlledBy returns the objects that the owner of this uid controls, from an informer with the
// index of ByController.
func ControlledBy[T scheme.Object](i *client.Informer[T], uid string) []T {
	return i.ByIndex(byController, uid)
}

// Watch makes changes of dependents enqueue their owner, or, while they have none, the owners that
// could adopt them.
func (d *Dependents[O, T]) Watch(c *Controller) {
	Owned(c, d.Dependents, d.Owners.Kind())
	Map(c, d.Dependents, d.adopters)
}

// Forget drops what is remembered of an owner that does not exist any more.
func (d *Dependents[O, T]) Forget(owner Key) { d.expectations.forget(owner) }

// Create creates n dependents of the owner, many in one transaction. build returns the one of an
// index from 0 to n-1, without its controller reference; it may be called again for an index. The
// result names those that were created, also when others could not be. None are created, without an
// error, for an owner that is being deleted: the informer of dependents may show that they were
// orphaned before the informer of owners shows why.
func (d *Dependents[O, T]) Create(ctx context.Context, owner O, n int, build func(i int) T) ([]Key, error) {
	api := d.Client
	if d.Unchanged {
		if owner.GetMetadata().GetDeletionTimestamp() != nil {
			return nil, nil
		}
		api = api.WithConditions(client.AtRevision(owner))
	} else if live, err := d.isLive(ctx, owner); err != nil || !live {
		return nil, err
	}
	created := make([]Key, 0, n)
	for limit := maxBatch; len(created) < n; {
		ops := d.creations(owner, len(created), min(n, len(created)+limit), build)
		result, err := client.Transact(ctx, api, ops...)
		switch {
		case apierr.IsBadRequest(err) && len(ops) > 1:
			// The server takes fewer operations at once, or one of the objects is invalid. Halving
			// the batch ends with the one that is refused.
			limit = len(ops) / 2
			continue
		case err != nil:
			d.failed(owner, err)
			return created, err
		}
		batch, err := decode[T](result)
		if err != nil {
			d.expectations.expectUncertain(client.KeyOf(owner), owner.GetMetadata().GetUid())
			return created, err
		}
		created = append(created, d.expect(owner, result.Revision, true, batch...)...)
	}
	return created, nil
}

// CreateNamed creates one dependent of the owner under the name that it has, without its controller
// reference, and returns it as stored.
func (d *Dependents[O, T]) CreateNamed(ctx context.Context, owner O, obj T) (T, error) {
	m := obj.GetMetadata()
	m.OwnerReferences = append(m.OwnerReferences, kinds.NewControllerRef(owner))
	created, err := client.Create(ctx, d.Client, obj)
	if err != nil {
		d.failed(owner, err)
		return created, err
	}
	d.expect(owner, created.GetMetadata().GetResourceVersion(), true, created)
	return created, nil
}

// creations are the operations that create the dependents from one index up to another, or as many
// of them as fit in one transaction.
func (d *Dependents[O, T]) creations(owner O, from, to int, build func(i int) T) []client.Operation {
	ops := make([]client.Operation, 0, to-from)
	size := 0
	for i := from; i < to; i++ {
		obj := build(i)
		m := obj.GetMetadata()
		m.OwnerReferences = append(m.OwnerReferences, kinds.NewControllerRef(owner))
		size += proto.Size(obj) + operationBytes
		if size > maxBatchBytes && len(ops) > 0 {
			break
		}
		ops = append(ops, client.OpCreate(obj))
	}
	return ops
}

func decode[T scheme.Object](result *client.Result) ([]T, error) {
	objects := make([]T, result.Len())
	for i := range objects {
		o, err := result.Object(i)
		if err != nil {
			return nil, err
		}
		obj, ok := o.(T)
		if !ok {
			return nil, fmt.Errorf("the server answered with a %T", o)
		}
		objects[i] = obj
	}
	return objects, nil
}

// Delete deletes dependents of the owner, many in one transaction, each only if its uid is the
// given one's. One that is gone already is not an error. The result names those that were deleted,
// also when others could not be.
func (d *Dependents[O, T]) Delete(ctx context.Context, owner O, victims []T) ([]Key, error) {
	deleted := make([]Key, 0, len(victims))
	for batch := range slices.Chunk(victims, maxBatch) {
		some, err := d.deleteBatch(ctx, owner, batch)
		deleted = append(deleted, some...)
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// deleteBatch deletes dependents in one transaction. When that fails, because one of them is gone
// or because agents write to them at the same time, it tries each half.
func (d *Dependents[O, T]) deleteBatch(ctx context.Context, owner O, batch []T) ([]Key, error) {
	ops := make([]client.Operation, len(batch))
	for i, obj := range batch {
		m := obj.GetMetadata()
		ops[i] = client.OpDelete(d.Dependents.Kind(), m.GetNamespace(), m.GetName(), client.IfUID(m.GetUid()))
	}
	result, err := client.Transact(ctx, d.Client, ops...)
	changed := apierr.IsNotFound(err) || apierr.IsConflict(err)
	switch {
	case err == nil:
		return d.expect(owner, result.Revision, false, batch...), nil
	case len(batch) > 1 && (changed || apierr.IsBadRequest(err)):
		half := len(batch) / 2
		first, err := d.deleteBatch(ctx, owner, batch[:half])
		if err != nil {
			return first, err
		}
		second, err := d.deleteBatch(ctx, owner, batch[half:])
		return append(first, second...), err
	case changed:
		return nil, nil
	}
	d.failed(owner, err)
	return nil, err
}

// failed notes a write of the owner's dependents that failed with err.
func (d *Dependents[O, T]) failed(owner O, err error) {
	if outcomeUnknown(err) {
		d.expectations.expectUncertain(client.KeyOf(owner), owner.GetMetadata().GetUid())
	}
}

// outcomeUnknown reports whether a write that failed with err may have happened.
func outcomeUnknown(err error) bool {
	switch apierr.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal, codes.Unknown:
		return true
	}
	return false
}

// expect makes the owner wait until the informer shows the objects as its dependents, or as gone.
// It returns their keys.
func (d *Dependents[O, T]) expect(owner O, revision string, created bool, objects ...T) []Key {
	keys, changes := make([]Key, len(objects)), make([]dependent, len(objects))
	for i, obj := range objects {
		keys[i] = client.KeyOf(obj)
		changes[i] = dependent{keys[i], created}
	}
	d.expectations.expect(client.KeyOf(owner), owner.GetMetadata().GetUid(), revision, changes...)
	return keys
}

// settled reports whether the informer shows all that was written for the owner. When that is
// uncertain it asks the API.
func (d *Dependents[O, T]) settled(ctx context.Context, owner O) (bool, error) {
	key, uid := client.KeyOf(owner), owner.GetMetadata().GetUid()
	if d.expectations.uncertain(key, uid) {
		if err := d.refresh(ctx, owner); err != nil {
			return false, err
		}
	}
	return d.expectations.satisfied(key, uid, d.Dependents.Revision(), func(e dependent) bool { return d.observed(owner, e) }), nil
}

// observed reports whether the informer shows a change.
func (d *Dependents[O, T]) observed(owner O, e dependent) bool {
	obj, ok := d.Dependents.Get(e.key.Namespace, e.key.Name)
	owned := ok && kinds.IsControlledBy(obj, owner)
	if e.created {
		return owned
	}
	return !owned || obj.GetMetadata().GetDeletionTimestamp() != nil
}

// refresh replaces the owner's expectations by what the API shows and the informer does not.
func (d *Dependents[O, T]) refresh(ctx context.Context, owner O) error {
	m := owner.GetMetadata()
	all, revision, err := client.List[T](ctx, d.Client, client.ListOptions{Namespace: m.GetNamespace()})
	if err != nil {
		return fmt.Errorf("list the %s after a write of unknown outcome: %w", d.Dependents.Kind().Plural, err)
	}
	var missing []dependent
	live := map[string]bool{}
	for _, obj := range all {
		if !kinds.IsControlledBy(obj, owner) {
			continue
		}
		live[obj.GetMetadata().GetUid()] = obj.GetMetadata().GetDeletionTimestamp() == nil
		if e := (dependent{client.KeyOf(obj), true}); !d.observed(owner, e) {
			missing = append(missing, e)
		}
	}
	for _, obj := range ControlledBy(d.Dependents, m.GetUid()) {
		e := dependent{client.KeyOf(obj), false}
		if !live[obj.GetMetadata().GetUid()] && !d.observed(owner, e) {
			missing = append(missing, e)
		}
	}
	d.expectations.replace(client.KeyOf(owner), m.GetUid(), revision, missing...)
	return nil
}
