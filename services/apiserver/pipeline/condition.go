package pipeline

import (
	"context"
	"errors"
	"fmt"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// maxConditions bounds the conditions of a request; see CreateRequest.
const maxConditions = 100

// preconditions are what a caller demands of other objects. A fence comes first.
type preconditions struct {
	conditions []storage.Condition
	// kinds are those of the objects of conditions.
	kinds  []*scheme.Kind
	fenced bool
}

// preconditions reads the fence and the conditions of a request and checks the caller's right to
// know of the objects.
func (p *Pipeline) preconditions(ctx context.Context, caller authz.Caller, req request) (preconditions, error) {
	var out preconditions
	if f := req.GetFence(); f != nil {
		revision, err := ParseRevision("fence.createRevision", f.GetCreateRevision())
		if err != nil {
			return out, err
		}
		leases := kinds.Of(new(coordinationv1.Lease))
		key := registry.KeyOf(leases, f.GetNamespace(), f.GetName())
		out.conditions = append(out.conditions, storage.Condition{Key: key, CreateRevision: revision})
		out.kinds = append(out.kinds, leases)
		out.fenced = true
	}
	if n := len(req.GetConditions()); n > maxConditions {
		return out, apierr.BadField("conditions", "must not be more than %d, are %d", maxConditions, n)
	}
	for i, c := range req.GetConditions() {
		k, key, err := p.ResolveReference(c.GetObject())
		if err != nil {
			return out, fmt.Errorf("conditions[%d]: %w", i, err)
		}
		if err := p.authorizeCondition(ctx, caller, target{kind: k, key: key}); err != nil {
			return out, fmt.Errorf("conditions[%d]: %w", i, err)
		}
		condition, err := decodeCondition(fmt.Sprintf("conditions[%d]", i), key, c)
		if err != nil {
			return out, err
		}
		out.kinds = append(out.kinds, k)
		out.conditions = append(out.conditions, condition)
	}
	return out, nil
}

// authorizeCondition refuses a caller that may neither get nor watch the object: a condition tells
// about it.
func (p *Pipeline) authorizeCondition(ctx context.Context, caller authz.Caller, t target) error {
	denied := p.Authorize(ctx, caller, t.as(authz.Get).attributes())
	if denied == nil || p.Authorize(ctx, caller, t.as(authz.Watch).attributes()) == nil {
		return nil
	}
	return denied
}

func decodeCondition(field string, key storage.Key, c *apiv1.Condition) (storage.Condition, error) {
	out := storage.Condition{Key: key}
	var err error
	switch c.GetExpectation() {
	case apiv1.Expectation_EXPECTATION_EXISTS:
		out.Revision = storage.ExpectExists
	case apiv1.Expectation_EXPECTATION_ABSENT:
		out.Revision = storage.ExpectAbsent
	case apiv1.Expectation_EXPECTATION_AT_REVISION:
		out.Revision, err = ParseRevision(field+".resourceVersion", c.GetResourceVersion())
		return out, err
	case apiv1.Expectation_EXPECTATION_CREATED_AT:
		out.CreateRevision, err = ParseRevision(field+".resourceVersion", c.GetResourceVersion())
		return out, err
	default:
		return out, apierr.BadField(field+".expectation",
			"is required: EXPECTATION_EXISTS, EXPECTATION_ABSENT, EXPECTATION_AT_REVISION or EXPECTATION_CREATED_AT")
	}
	if v := c.GetResourceVersion(); v != "" {
		return out, apierr.BadField(field+".resourceVersion", "must be empty with this expectation, is %q", v)
	}
	return out, nil
}

// check returns the error of the first precondition that does not hold, for a request that commits
// nothing.
func (d preconditions) check(ctx context.Context, get storage.Reader) error {
	for i, c := range d.conditions {
		o, err := get(ctx, c.Key)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return storage.APIError(err)
		}
		var create, mod int64
		if err == nil {
			create, mod = o.CreateRevision, o.Revision
		}
		if !c.Holds(create, mod) {
			return d.failed(i)
		}
	}
	return nil
}

// failed is the error of a precondition that does not hold.
func (d preconditions) failed(i int) error {
	c := d.conditions[i]
	if d.fenced && i == 0 {
		return apierr.ElectionLost("of this writer")
	}
	name := c.Key.Name
	if c.Key.Namespace != "" {
		name = c.Key.Namespace + "/" + name
	}
	refuse := func(what string) error {
		return apierr.FailedPrecondition(apierr.ReasonConditionFailed, name,
			"the write is conditional on %s %q, which %s", d.kinds[i].Resource(), name, what)
	}
	switch {
	case c.CreateRevision != 0:
		return refuse(fmt.Sprintf("was not created at resourceVersion %d or is gone", c.CreateRevision))
	case c.Revision == storage.ExpectExists:
		return refuse("does not exist")
	case c.Revision == storage.ExpectAbsent:
		return refuse("exists")
	}
	return refuse(fmt.Sprintf("is not at resourceVersion %d", c.Revision))
}
