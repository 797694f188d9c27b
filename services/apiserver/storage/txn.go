package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Expectations of a Write besides a revision.
const (
	// ExpectAbsent: the key must not exist.
	ExpectAbsent int64 = 0
	// ExpectExists: the key must exist, at any revision.
	ExpectExists int64 = -1
)

// Write is one write of a transaction.
type Write struct {
	// Key names the object.
	Key Key
	// Bytes is the encoded message to store, without a resourceVersion. It must not be modified until
	// Commit returned.
	Bytes []byte
	// Delete removes the key; Bytes and Lease are not used then.
	Delete bool
	// Expect is the revision at which the key must have been modified last, or ExpectAbsent, or
	// ExpectExists.
	Expect int64
	// Lease is the lease that the object is deleted with, 0 for none. An update that should keep the
	// object's lease must name it again.
	Lease int64
}

// Condition makes a transaction depend on a key that it need not write.
type Condition struct {
	// Key is the key.
	Key Key
	// Revision is the revision at which the key must have been modified last, or ExpectAbsent, or
	// ExpectExists.
	Revision int64
	// CreateRevision, when not 0, is the revision at which the key must have been created; Revision is
	// not used then.
	CreateRevision int64
}

// Holds reports whether the condition holds for a key that was created and modified last at these
// revisions, both 0 when it does not exist.
func (c Condition) Holds(create, mod int64) bool {
	switch {
	case c.CreateRevision != 0:
		return create == c.CreateRevision
	case c.Revision == ExpectExists:
		return create != 0
	}
	return mod == c.Revision
}

func (c Condition) compare() clientv3.Cmp {
	key := c.Key.String()
	switch {
	case c.CreateRevision != 0:
		return clientv3.Compare(clientv3.CreateRevision(key), "=", c.CreateRevision)
	case c.Revision == ExpectExists:
		return clientv3.Compare(clientv3.CreateRevision(key), ">", 0)
	}
	return clientv3.Compare(clientv3.ModRevision(key), "=", c.Revision)
}

// Txn is a set of writes that happen all at one revision, or not at all. No key may be written
// twice.
type Txn struct {
	Writes []Write
	// Conditions are what the plan of the transaction depends on: when one does not hold, the
	// transaction must be planned again.
	Conditions []Condition
	// Preconditions are required by the caller: when one does not hold, the transaction fails and is
	// not planned again.
	Preconditions []Condition
}

// Commit makes the writes of a transaction and returns their revision. When a key is not as
// expected it returns a *ConflictError, and when a precondition does not hold a *PreconditionError,
// which takes precedence; see the errors of this package for others. After ErrUnknownOutcome it is
// not known whether the writes happened: read before trying again. This is rare: while WriteTimeout
// and ctx last, Commit continues through the loss of etcd's leader, and never writes twice. Reads
// that start after Commit returned see the writes, in this store and in every other on the same
// etcd.
func (s *Store) Commit(ctx context.Context, txn Txn) (int64, error) {
	if len(txn.Writes) == 0 {
		return 0, errors.New("transaction without writes")
	}
	for i, w := range txn.Writes {
		if !w.Key.valid() {
			return 0, fmt.Errorf("write %d: key %+v is malformed", i, w.Key)
		}
	}
	for i, c := range txn.conditions() {
		if !c.Key.valid() {
			return 0, fmt.Errorf("condition %d: key %+v is malformed", i, c.Key)
		}
	}
	ops := newTxnOps(txn)
	if n := max(len(ops.then), len(ops.ifs)); n > s.cfg.MaxTxnOps {
		return 0, fmt.Errorf("%w: %d operations, the limit is %d", ErrTooLarge, n, s.cfg.MaxTxnOps)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	since := s.cache.at() // the transaction can only happen after it
	attempt := s.attempt
	if groupable(txn) {
		attempt = s.attemptGrouped
	}
	for {
		made := attempt(ctx, txn, ops)
		switch {
		case made.stale:
			continue
		case errors.Is(made.err, ErrNoSpace):
			return s.settleNoSpace(ctx, txn, since, made.err)
		case !errors.Is(made.err, ErrUnknownOutcome), ctx.Err() != nil:
			return made.revision, made.err
		}
		revision, happened, err := s.settle(ctx, txn, since, made)
		if happened || err != nil {
			return revision, err
		}
	}
}

// txnOps is a transaction in etcd's terms. When it fails, the else branch reads the epoch and then
// what explain needs. The first condition is the attempt's.
type txnOps struct {
	ifs       []clientv3.Cmp
	then      []clientv3.Op
	otherwise []clientv3.Op
}

func newTxnOps(txn Txn) txnOps {
	n := len(txn.Writes)
	reads := n + len(txn.Conditions) + len(txn.Preconditions) + 1
	ops := txnOps{
		ifs: make([]clientv3.Cmp, 1, reads), then: make([]clientv3.Op, 0, n), otherwise: make([]clientv3.Op, 0, reads),
	}
	ops.otherwise = append(ops.otherwise, clientv3.OpGet(epochKey, clientv3.WithKeysOnly()))
	for _, w := range txn.Writes {
		key := w.Key.String()
		switch w.Expect {
		case ExpectExists:
			ops.ifs = append(ops.ifs, clientv3.Compare(clientv3.CreateRevision(key), ">", 0))
		default:
			ops.ifs = append(ops.ifs, clientv3.Compare(clientv3.ModRevision(key), "=", w.Expect))
		}
		if w.Delete {
			ops.then = append(ops.then, clientv3.OpDelete(key))
		} else {
			ops.then = append(ops.then, clientv3.OpPut(key, string(w.Bytes), clientv3.WithLease(clientv3.LeaseID(w.Lease))))
		}
		ops.otherwise = append(ops.otherwise, clientv3.OpGet(key, clientv3.WithKeysOnly()))
	}
	for _, c := range txn.conditions() {
		ops.ifs = append(ops.ifs, c.compare())
		ops.otherwise = append(ops.otherwise, clientv3.OpGet(c.Key.String(), clientv3.WithKeysOnly()))
	}
	return ops
}

// conditions are the preconditions and the conditions, in the order in which the transaction names
// them.
func (t Txn) conditions() []Condition { return slices.Concat(t.Preconditions, t.Conditions) }

// explain finds out why the transaction failed from what its else branch read.
func (t Txn) explain(responses []*pb.ResponseOp) error {
	read := func(i int) (exists bool, create, mod int64) {
		if kvs := responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
			return true, kvs[0].CreateRevision, kvs[0].ModRevision
		}
		return false, 0, 0
	}
	for i, c := range t.Preconditions {
		if _, create, mod := read(len(t.Writes) + i); !c.Holds(create, mod) {
			return &PreconditionError{Index: i, Condition: c}
		}
	}
	for i, w := range t.Writes {
		exists, _, mod := read(i)
		if ok := w.Expect == mod || w.Expect == ExpectExists && exists; !ok {
			return &ConflictError{Index: i, Key: w.Key, Exists: exists, Revision: mod}
		}
	}
	for i, c := range t.Conditions {
		if exists, create, mod := read(len(t.Writes) + len(t.Preconditions) + i); !c.Holds(create, mod) {
			return &ConflictError{Index: NotWritten, Key: c.Key, Exists: exists, Revision: mod}
		}
	}
	return errors.New("etcd: transaction failed though all its conditions hold")
}
