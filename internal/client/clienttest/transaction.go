package clienttest

import (
	"slices"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
)

// transaction collects writes over the stored objects and commits them at one revision. The server
// is locked for as long as one is open.
type transaction struct {
	server   *Server
	revision int64
	order    []objectKey
	staged   map[objectKey]*record // nil for a removal
}

func (s *Server) begin() *transaction {
	return &transaction{server: s, revision: s.revision + 1, staged: map[objectKey]*record{}}
}

func (t *transaction) get(k objectKey) *record {
	if r, ok := t.staged[k]; ok {
		return r
	}
	return t.server.objects[k]
}

func (t *transaction) stage(k objectKey, r *record) {
	if _, ok := t.staged[k]; !ok {
		t.order = append(t.order, k)
	}
	t.staged[k] = r
}

// put stages obj, which it owns from then on, with the transaction's revision as its version.
func (t *transaction) put(k objectKey, obj scheme.Object, lease int64) {
	metadataOf(obj).ResourceVersion = format(t.revision)
	created := t.revision
	if old := t.get(k); old != nil {
		created = old.created
	}
	t.stage(k, &record{obj: obj, created: created, lease: lease})
}

// remove stages the removal of k and returns its last state.
func (t *transaction) remove(k objectKey) scheme.Object {
	last := client.Clone(t.get(k).obj)
	metadataOf(last).ResourceVersion = format(t.revision)
	t.stage(k, nil)
	return last
}

// commit stores what was staged and wakes the watches. Without writes the revision stays.
func (t *transaction) commit() {
	if len(t.order) == 0 {
		return
	}
	s := t.server
	s.revision = t.revision
	for _, k := range t.order {
		old, now := s.objects[k], t.staged[k]
		if now == nil {
			delete(s.objects, k)
		} else {
			s.objects[k] = now
		}
		s.attach(k, old, now)
		if old != nil || now != nil {
			s.history = append(s.history, change{revision: t.revision, key: k, old: old, new: now})
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// request is what all requests that write have.
type request interface {
	GetFence() *apiv1.Fence
	GetConditions() []*apiv1.Condition
	GetDryRun() bool
}

// write runs f in a transaction that is committed unless f fails or it is a dry run.
func (s *Server) write(req request, f func(*transaction) error) (revision int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkFence(req.GetFence()); err != nil {
		return 0, err
	}
	for _, c := range req.GetConditions() {
		if err := s.checkCondition(c); err != nil {
			return 0, err
		}
	}
	t := s.begin()
	if err := f(t); err != nil {
		return 0, err
	}
	if !req.GetDryRun() {
		t.commit()
	}
	return s.revision, nil
}

func (s *Server) checkFence(f *apiv1.Fence) error {
	if f == nil {
		return nil
	}
	k := kinds.Of(new(coordinationv1.Lease))
	r := s.objects[objectKey{k, f.GetNamespace(), f.GetName()}]
	if r == nil || format(r.created) != f.GetCreateRevision() {
		return apierr.ElectionLost(f.GetNamespace() + "/" + f.GetName())
	}
	return nil
}

func (s *Server) checkCondition(c *apiv1.Condition) error {
	k, err := s.keyForReference(c.GetObject())
	if err != nil {
		return err
	}
	r, holds := s.objects[k], false
	switch c.GetExpectation() {
	case apiv1.Expectation_EXPECTATION_EXISTS:
		holds = r != nil
	case apiv1.Expectation_EXPECTATION_ABSENT:
		holds = r == nil
	case apiv1.Expectation_EXPECTATION_AT_REVISION:
		holds = r != nil && r.obj.GetMetadata().GetResourceVersion() == c.GetResourceVersion()
	case apiv1.Expectation_EXPECTATION_CREATED_AT:
		holds = r != nil && format(r.created) == c.GetResourceVersion()
	default:
		return apierr.BadField("conditions", "an expectation is required")
	}
	if !holds {
		return apierr.FailedPrecondition(apierr.ReasonConditionFailed, k.name, "the condition on %s %q does not hold", k.kind.Resource(), k.name)
	}
	return nil
}

// snapshot returns the objects of a kind and namespace as they were at a revision, ordered by
// namespace and name.
func (s *Server) snapshot(k *scheme.Kind, namespace string, revision int64) ([]scheme.Object, error) {
	if revision < s.compacted {
		return nil, tooOld(revision, s.compacted)
	}
	in := func(key objectKey) bool {
		return key.kind == k && (namespace == "" || key.namespace == namespace)
	}
	then := map[objectKey]*record{}
	for key, r := range s.objects {
		if in(key) {
			then[key] = r
		}
	}
	for _, c := range slices.Backward(s.history) {
		if c.revision <= revision {
			break
		}
		if !in(c.key) {
			continue
		}
		if c.old == nil {
			delete(then, c.key)
		} else {
			then[c.key] = c.old
		}
	}
	objects := make([]scheme.Object, 0, len(then))
	for _, r := range then {
		objects = append(objects, r.obj)
	}
	slices.SortFunc(objects, func(a, b scheme.Object) int { return compare(a, b) })
	return objects, nil
}

func newUID() string { return uuid.NewString() }

func protoValue(m proto.Message) protoreflect.Value {
	return protoreflect.ValueOfMessage(m.ProtoReflect())
}
