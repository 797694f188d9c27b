package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// groupsInFlight is how many requests for groups may be under way at a time. While they are,
	// commits wait for the next group; a commit that arrives before that is sent at once.
	groupsInFlight = 2
	// A group holds so many commits and so many bytes at most, and only commits of so many writes:
	// larger ones gain nothing and would delay the others.
	groupCommits = 64
	groupBytes   = 256 << 10
	groupWrites  = 4
	// groupConditions is how many conditions such a commit may have: that of an election and that of a
	// namespace.
	groupConditions = 2
	// groupOpsEach bounds the operations that one such commit brings to a group: writes or reads,
	// conditions and the nested transaction itself, counted by etcd per branch.
	groupOpsEach = groupWrites + groupConditions + 1
)

// groups gathers small commits that come at the same time into one etcd transaction of nested ones,
// of which each succeeds or fails on its own: the requests are what costs processor time, not the
// writes in them.
type groups struct {
	mu       sync.Mutex
	waiting  []*groupMember
	inFlight int
}

// groupMember is one attempt at a commit that waits for its group.
type groupMember struct {
	ctx  context.Context // of the caller
	txn  Txn
	ops  txnOps
	size int
	done chan struct{}

	left    bool    // not sent, for the caller had left; guarded by groups.mu
	outcome outcome // valid once done
}

// groupable reports whether a transaction may be put into a group.
func groupable(txn Txn) bool {
	if len(txn.Writes) > groupWrites || len(txn.Conditions)+len(txn.Preconditions) > groupConditions {
		return false
	}
	return txn.size() <= groupBytes/4
}

func (t Txn) size() int {
	n := 0
	for _, w := range t.Writes {
		n += len(w.Bytes)
	}
	return n
}

// attemptGrouped is attempt for a groupable transaction.
func (s *Store) attemptGrouped(ctx context.Context, txn Txn, ops txnOps) outcome {
	m := &groupMember{ctx: ctx, txn: txn, ops: ops, size: txn.size(), done: make(chan struct{})}
	g := &s.groups
	g.mu.Lock()
	if g.inFlight < groupsInFlight {
		g.inFlight++
		g.mu.Unlock()
		// In the caller's own goroutine: a commit without others needs no other.
		s.sendGroup([]*groupMember{m})
		s.nextGroup()
	} else {
		g.waiting = append(g.waiting, m)
		g.mu.Unlock()
	}
	// The group's request is not the caller's to cancel.
	select {
	case <-m.done:
		return m.outcome
	case <-ctx.Done():
		if g.leave(m) {
			return outcome{err: fmt.Errorf("%w: the write waited for others and was not sent to etcd: %w", ErrUnavailable, ctx.Err())}
		}
		return outcome{err: writeError(ctx.Err())}
	}
}

// leave removes a member whose caller has left, and reports whether it was not sent.
func (g *groups) leave(m *groupMember) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.waiting, m); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
		m.left = true
	}
	return m.left
}

// nextGroup sends the commits that wait, or frees the place.
func (s *Store) nextGroup() {
	g := &s.groups
	g.mu.Lock()
	group := g.take(s.cfg.MaxTxnOps)
	if len(group) == 0 {
		g.inFlight--
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	go func() {
		s.sendGroup(group)
		s.nextGroup()
	}()
}

// take removes from the waiting commits, in their order, as many as fit into one group, and those
// whose caller has left. Two that use the same key never share a group, unless both only read it:
// etcd refuses two writes of a key, and what one writes the other must see.
func (g *groups) take(maxOps int) []*groupMember {
	var group, left []*groupMember
	size := 0
	writes, reads := make(map[Key]bool), make(map[Key]bool)
	for i, m := range g.waiting {
		if m.ctx.Err() != nil {
			m.left = true
			continue
		}
		if len(group) == groupCommits || len(group) > 0 && (len(group)+1)*groupOpsEach > maxOps {
			left = append(left, g.waiting[i:]...)
			break
		}
		if size+m.size > groupBytes && len(group) > 0 || m.overlaps(writes, reads) {
			left = append(left, m)
		} else {
			group = append(group, m)
			size += m.size
		}
		// Those left count as well, so that none overtakes an earlier one of its keys.
		for _, w := range m.txn.Writes {
			writes[w.Key] = true
		}
		for _, key := range m.txn.reads() {
			reads[key] = true
		}
	}
	g.waiting = left
	return group
}

func (m *groupMember) overlaps(writes, reads map[Key]bool) bool {
	for _, w := range m.txn.Writes {
		if writes[w.Key] || reads[w.Key] {
			return true
		}
	}
	return slices.ContainsFunc(m.txn.reads(), func(key Key) bool { return writes[key] })
}

// reads are the keys that the transaction depends on without writing them.
func (t Txn) reads() []Key {
	conditions := t.conditions()
	keys := make([]Key, len(conditions))
	for i, c := range conditions {
		keys[i] = c.Key
	}
	return keys
}

// sendGroup makes the attempts of a group and reports the outcomes to its members.
func (s *Store) sendGroup(group []*groupMember) {
	if len(group) > 1 && s.sendNested(group) {
		return
	}
	// One alone, or one that etcd refuses spoils the group: nothing was written, each is tried by
	// itself.
	for _, m := range group {
		if len(group) > 1 && m.ctx.Err() != nil {
			close(m.done) // the caller has left
			continue
		}
		ctx, cancel := s.groupContext()
		m.outcome = s.attempt(ctx, m.txn, m.ops)
		cancel()
		close(m.done)
	}
}

// groupContext bounds a group's request, which is none of its members' to cancel.
func (s *Store) groupContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), s.cfg.WriteTimeout)
}

// sendNested makes the attempts in one transaction. It returns false when etcd refused it for what
// may be one member's fault.
func (s *Store) sendNested(group []*groupMember) bool {
	nested := make([]clientv3.Op, 0, len(group))
	for _, m := range group {
		// The epoch is the outer transaction's condition.
		nested = append(nested, clientv3.OpTxn(m.ops.ifs[1:], m.ops.then, m.ops.otherwise[1:]))
	}
	ctx, cancel := s.groupContext()
	defer cancel()
	epoch := s.epoch.Load()
	resp, err := s.request(ctx, epoch, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.cli.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(epochKey), "=", epoch)).
			Then(nested...).
			Else(clientv3.OpGet(epochKey, clientv3.WithKeysOnly())).
			Commit()
	})
	if err = writeError(err); err != nil && !errors.Is(err, ErrUnavailable) {
		return false
	}
	if err == nil && !resp.Succeeded {
		s.learnEpoch(epoch, resp.Responses[0])
	}
	for i, m := range group {
		m.outcome.epoch = epoch
		switch {
		case err != nil:
			m.outcome.err = err
		case !resp.Succeeded:
			m.outcome.stale = true
		default:
			if own := resp.Responses[i].GetResponseTxn(); own.GetSucceeded() {
				m.outcome.revision = resp.Header.Revision
			} else {
				m.outcome.err = m.txn.explain(own.GetResponses())
			}
		}
		close(m.done)
	}
	return true
}

// learnEpoch takes the epoch from what a transaction whose epoch was not this one read.
func (s *Store) learnEpoch(tried int64, read *pb.ResponseOp) (changed bool) {
	var now int64
	if kvs := read.GetResponseRange().GetKvs(); len(kvs) > 0 {
		now = kvs[0].ModRevision
	}
	if now == tried {
		return false
	}
	s.epoch.CompareAndSwap(tried, now)
	return true
}
