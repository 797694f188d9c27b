package apiserver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	"github.com/xebec-project/xebec/services/apiserver/pipeline"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// Get returns one object.
func (s *Service) Get(ctx context.Context, req *apiv1.GetRequest) (*apiv1.GetResponse, error) {
	k, key, err := s.pipeline.ResolveReference(req.GetObject())
	if err != nil {
		return nil, err
	}
	encode, action := pipeline.EncodeStored, authz.Get
	switch req.GetSubresource() {
	case "", "status":
	case "scale":
		encode, action = pipeline.EncodeScale, authz.GetScale
	default:
		if action, err = pipeline.ViewAction(k, authz.Get, req.GetSubresource()); err != nil {
			return nil, err
		}
	}
	// A caller without the right learns nothing, not even whether the object exists.
	ask := pipeline.Attributes(k, action, key.Namespace, key.Name)
	if err := s.pipeline.Preauthorize(ctx, callerOf(ctx), ask); err != nil {
		return nil, err
	}
	read := s.store.Get
	revision, err := s.past(ctx, req)
	if err != nil {
		return nil, err
	}
	if revision != 0 {
		read = func(ctx context.Context, key storage.Key) (*storage.Object, error) {
			return s.store.GetAt(ctx, key, revision)
		}
	}
	o, err := read(ctx, key)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, s.readError(ctx, err, revision)
	}
	if o != nil {
		ask.NodeName = registry.NodeOf(k, o)
	}
	if err := s.authorize(ctx, ask); err != nil && !(o == nil && pipeline.MayMiss(callerOf(ctx), ask)) {
		return nil, err
	}
	if o == nil {
		return nil, apierr.NotFound(k, key.Name)
	}
	object, err := encode(k, o)
	return &apiv1.GetResponse{Object: object}, err
}

// List returns the objects that match the selectors.
func (s *Service) List(ctx context.Context, req *apiv1.ListRequest) (*apiv1.ListResponse, error) {
	sel, err := s.selectFor(ctx, authz.List, req)
	if err != nil {
		return nil, err
	}
	if req.GetLimit() < 0 {
		return nil, apierr.BadField("limit", "must not be negative; 0 means no limit")
	}
	opts := storage.ListOptions{
		Group: sel.stored.Group, Kind: sel.stored.Name, Namespace: req.GetNamespace(), Match: sel.match,
		Limit: req.GetLimit(), Continue: req.GetContinue(),
	}
	// Further pages are of the revision that the token names.
	if opts.Continue == "" {
		if opts.AtRevision, err = s.past(ctx, req); err != nil {
			return nil, err
		}
	}
	result, err := s.store.List(ctx, opts)
	if err != nil {
		return nil, s.readError(ctx, err, opts.AtRevision)
	}
	resp := &apiv1.ListResponse{
		Objects:         make([]*anypb.Any, len(result.Objects)),
		ResourceVersion: strconv.FormatInt(result.Revision, 10), Continue: result.Continue,
	}
	if result.Remaining > 0 {
		resp.RemainingItemCount = &result.Remaining
	}
	for i, o := range result.Objects {
		if resp.Objects[i], err = pipeline.EncodeStored(sel.kind, o); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// past returns the revision that a request wants to read, 0 for now.
func (s *Service) past(ctx context.Context, req interface {
	GetAtRevision() string
	GetAtTime() *timestamppb.Timestamp
}) (int64, error) {
	revision, at := req.GetAtRevision(), req.GetAtTime()
	switch {
	case revision != "" && at != nil:
		return 0, apierr.BadField("atTime", "must not be set together with atRevision")
	case revision != "":
		return pipeline.ParseRevision("atRevision", revision)
	case at == nil:
		return 0, nil
	case at.CheckValid() != nil:
		return 0, apierr.BadField("atTime", "%v", at.CheckValid())
	}
	found, err := s.store.RevisionAt(ctx, at.AsTime())
	switch {
	case errors.Is(err, storage.ErrFutureTime):
		return 0, apierr.BadField("atTime", "%s is in the future", at.AsTime().Format(time.RFC3339))
	case errors.Is(err, storage.ErrCompacted):
		return 0, tooOld(err, "the state at "+at.AsTime().Format(time.RFC3339))
	}
	return found, storage.APIError(err)
}

// readError is storageError for a read at a revision, 0 for none. When the revision is not
// available any more, the error says what the oldest readable time is.
func (s *Service) readError(ctx context.Context, err error, revision int64) error {
	if revision == 0 || !errors.Is(err, storage.ErrCompacted) {
		return storage.APIError(err)
	}
	oldest, _ := s.store.Oldest(ctx)
	return tooOld(&storage.PastError{Oldest: oldest}, fmt.Sprintf("revision %d", revision))
}

// tooOld returns the error for a past state that is not available any more, with the oldest time
// that can be read.
func tooOld(err error, what string) error {
	text := what + " is not available any more"
	if past, ok := errors.AsType[*storage.PastError](err); ok && !past.Oldest.IsZero() {
		text += fmt.Sprintf(": the oldest time that can be read is %s", past.Oldest.UTC().Format(time.RFC3339))
	}
	return apierr.New(codes.OutOfRange, apierr.ReasonTooOld, text+"; storage.keepPast of the apiserver sets how much is kept")
}

// Watch streams the state and then the changes. Events are sent in the encoding that all watchers
// share.
func (s *Service) Watch(req *apiv1.WatchRequest, stream grpc.ServerStreamingServer[apiv1.WatchResponse]) error {
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	action, encode := authz.Watch, wholeFrame
	if req.GetOutline() {
		if req.GetGroup() != "" || req.GetKind() != "Pod" {
			return apierr.BadField("outline", "is supported only for pods")
		}
		action, encode = authz.WatchSummary, summaryFrame
	}
	sel, err := s.selectFor(ctx, action, req)
	if err != nil {
		return err
	}
	if sel.kind.Conversion != nil {
		encode = frameOf(sel.kind)
	}
	opts := storage.WatchOptions{
		Group: sel.stored.Group, Kind: sel.stored.Name, Namespace: req.GetNamespace(), Match: sel.match, Exact: sel.exact,
		Started: func() { rpc.EndOfStart(ctx) },
	}
	if from := req.GetResourceVersion(); from != "" {
		if opts.FromRevision, err = pipeline.ParseRevision("resourceVersion", from); err != nil {
			return err
		}
	}
	// A server that stops ends its watches, and the clients resume elsewhere.
	defer rpc.OnDraining(ctx, func() { end(nil) })()
	defer s.boundWatch(ctx, end, func() error {
		_, err := s.selectFor(ctx, action, req)
		return err
	})()
	err = s.store.Watch(ctx, opts, func(events []storage.Event) error {
		for i := range events {
			frame, err := encode(events[i])
			if err != nil {
				return err
			}
			if err := stream.SendMsg(rpc.NewFrame(frame)); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case stream.Context().Err() != nil:
		return stream.Context().Err()
	case errors.Is(context.Cause(ctx), errWatchAge):
		return nil
	case apierr.IsForbidden(context.Cause(ctx)):
		return context.Cause(ctx)
	case ctx.Err() != nil:
		return apierr.Unavailable("this apiserver is stopping: resume the watch from the last resourceVersion it sent")
	case errors.Is(err, storage.ErrFutureRevision):
		// The client has it from the time before a restore of etcd that did not raise the revision. Its
		// state is not of the restored history.
		return apierr.New(codes.OutOfRange, apierr.ReasonTooOld,
			"the resourceVersion is later than the latest one: list or watch again without a resourceVersion")
	}
	return storage.APIError(err)
}

// selected is what a List or Watch selects.
type selected struct {
	// kind is the version that the request names, and stored the one that is stored.
	kind, stored *scheme.Kind
	match        storage.Match
	// exact is a value of a field that all of it has, nil for none.
	exact *storage.Exact
}

// selector is what List, Watch and DeleteCollection requests share.
type selector interface {
	GetGroup() string
	GetVersion() string
	GetKind() string
	GetNamespace() string
	GetLabelSelector() string
	GetFieldSelector() string
}

// selectFor resolves a request's kind and selectors and checks the caller's right to them.
func (s *Service) selectFor(ctx context.Context, action authz.Action, req selector) (selected, error) {
	k, err := s.pipeline.Resolve(req.GetGroup(), req.GetVersion(), req.GetKind())
	if err != nil {
		return selected{}, err
	}
	if !k.Namespaced && req.GetNamespace() != "" {
		return selected{}, apierr.BadField("namespace", "must be empty: %s have no namespace", k.Plural)
	}
	ask := pipeline.Attributes(k, action, req.GetNamespace(), "")
	denied := s.authorize(ctx, ask)
	if denied != nil && !callerOf(ctx).Narrows() {
		return selected{}, denied
	}
	byField, exact, err := parseFieldSelector(k, req.GetFieldSelector())
	if err != nil {
		return selected{}, err
	}
	if denied != nil {
		ask.Name = exact["metadata.name"]
		if registry.IsPod(k) {
			ask.NodeName = exact["spec.nodeName"]
		}
		if err := s.authorize(ctx, ask); err != nil {
			return selected{}, err
		}
	}
	byLabel, err := parseLabelSelector(req.GetLabelSelector())
	if err != nil {
		return selected{}, err
	}
	return selected{k, k.Stored(), matchAll(k, byField, byLabel), exactly(k, byField)}, nil
}
