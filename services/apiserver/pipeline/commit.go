package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// maxAttempts bounds how often a write is planned again because the object changed between the read
// and the commit.
const maxAttempts = 16

// errContended is the error of a write whose objects changed in each attempt.
var errContended = apierr.New(codes.Aborted, apierr.ReasonConflict,
	fmt.Sprintf("the object changed %d times while this write was being made; try again", maxAttempts))

// change is what one write would do: the storage writes that make it, the first of which concerns
// the object itself, and the object as it will be.
type change struct {
	// kind is the version that is stored, and object is of it.
	kind   *scheme.Kind
	object scheme.Object
	writes []storage.Write
	// conditions are the objects that the change depends on without writing them.
	conditions []storage.Condition
	// same, where an update changes nothing, is the write that stores the object again: within a
	// transaction it holds the object to the version that the plan saw.
	same *storage.Write
	// scale is true when the response holds the Scale of the object.
	scale bool
	// removed says that the object is gone after the write.
	removed bool
	// expected is true when the caller named the version to change, so that a conflict is the caller's
	// to resolve.
	expected bool
	warnings []string
	// applied is what an apply did.
	applied apiv1.ApplyResult
}

// request is what every request for writes has.
type request interface {
	GetDryRun() bool
	GetFence() *apiv1.Fence
	GetConditions() []*apiv1.Condition
}

// planner makes the changes of a write. It may be called several times, each time with a new plan.
type planner func(ctx context.Context, p *plan) ([]*change, error)

// write plans and commits. The first plan is made from the cache, which costs no read: the commit's
// comparisons catch what was stale, and a refusal is only believed when it was planned from a
// linearizable read.
func (p *Pipeline) write(ctx context.Context, caller authz.Caller, req request, planned planner) ([]*change, int64, error) {
	demanded, err := p.preconditions(ctx, caller, req)
	if err != nil {
		return nil, 0, err
	}
	var clash error
	for attempt := range maxAttempts {
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		fresh := attempt > 0
		get := storage.Reader(p.readCached)
		if fresh {
			get = p.readCurrent()
		}
		changes, err := planned(ctx, &plan{Pipeline: p, caller: caller, dryRun: req.GetDryRun(), get: get})
		if err != nil {
			if !fresh {
				continue
			}
			return nil, 0, err
		}
		txn := storage.Txn{Preconditions: demanded.conditions}
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
		// That nothing has to change, or what a dry run would do, is believed only of a linearizable
		// read: no comparison at the commit would tell.
		if (idle || req.GetDryRun()) && !fresh {
			continue
		}
		if key, twice := writtenTwice(txn.Writes); twice {
			// Two operations that allocate may have picked the same address: the next plan picks another.
			clash = apierr.BadRequest("two operations of the transaction write %s %q: do them one after the other", key.Kind, key.Name)
			continue
		}
		if req.GetDryRun() || len(txn.Writes) == 0 {
			return changes, 0, demanded.check(ctx, get)
		}
		// Each write is a condition too, and attempts have theirs.
		others := len(txn.Conditions) + len(txn.Preconditions) + 1
		if n := len(txn.Writes) + others; n > p.MaxTxnOps {
			return nil, 0, apierr.BadRequest("%d writes in one transaction are more than this cluster's etcd accepts, %d: "+
				"make fewer at once, or raise etcd's --max-txn-ops and the apiserver's storage.maxTxnOps", len(txn.Writes), p.MaxTxnOps-others)
		}
		revision, err := p.Store.Commit(ctx, txn)
		if conflict := (*storage.ConflictError)(nil); errors.As(err, &conflict) {
			// What was deleted since is not found, rather than changed: the next plan tells. And only the
			// object itself is the caller's: a namespace that changed, or an address that was allocated to
			// another, the next plan takes into account.
			if c := writer(changes, conflict.Index); c != nil && c.expected && fresh && conflict.Exists {
				return nil, 0, conflictOf(c)
			}
			continue
		}
		if failed := (*storage.PreconditionError)(nil); errors.As(err, &failed) {
			return nil, 0, demanded.failed(failed.Index)
		}
		if err != nil {
			return nil, 0, storage.APIError(err)
		}
		for _, c := range changes {
			if len(c.writes) > 0 {
				c.object.GetMetadata().ResourceVersion = strconv.FormatInt(revision, 10)
			}
			if c.removed {
				p.Registry.For(c.kind).Removed(c.object)
			}
		}
		return changes, revision, nil
	}
	if clash != nil {
		return nil, 0, clash
	}
	return nil, 0, errContended
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
func (p *Pipeline) writeOne(
	ctx context.Context, caller authz.Caller, req request, planned func(ctx context.Context, p *plan) (*change, error),
) (*change, error) {
	changes, _, err := p.write(ctx, caller, req, func(ctx context.Context, p *plan) ([]*change, error) {
		c, err := planned(ctx, p)
		return []*change{c}, err
	})
	if err != nil {
		return nil, err
	}
	return changes[0], nil
}

// writer finds the change whose object the write of this index in the whole transaction stores, nil
// when that write goes with a change, such as an allocation, or is none.
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

// readCached reads for a first plan. What is not in the cache counts as absent: a plan that goes on
// from there writes on the condition that it is, and one that is refused is made again from a
// linearizable read.
func (p *Pipeline) readCached(_ context.Context, key storage.Key) (*storage.Object, error) {
	if o, ok := p.Store.GetCached(key); ok {
		return o, nil
	}
	return nil, fmt.Errorf("get %s: %w", key, storage.ErrNotFound)
}

// readCurrent returns a reader for one plan: its first read brings the cache up to date, so that
// the whole plan is made of what was acknowledged before it, at the cost of one round trip to etcd.
func (p *Pipeline) readCurrent() storage.Reader {
	current := false
	return func(ctx context.Context, key storage.Key) (*storage.Object, error) {
		if current && p.Store.Holds(key.Group, key.Kind) {
			return p.readCached(ctx, key)
		}
		o, err := p.Store.Get(ctx, key)
		current = err == nil || errors.Is(err, storage.ErrNotFound)
		return o, err
	}
}
