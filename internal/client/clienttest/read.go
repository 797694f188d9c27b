package clienttest

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// errNoTimes: this server does not know when its revisions were.
var errNoTimes = apierr.New(codes.Unimplemented, apierr.ReasonUnsupported, "reads at a time are not served here")

// tooOld refuses a revision before the oldest one that is known.
func tooOld(revision, oldest int64) error {
	return apierr.New(codes.OutOfRange, apierr.ReasonTooOld, fmt.Sprintf("revision %d is compacted, the oldest is %d", revision, oldest))
}

// Get implements apiv1.ResourceServiceServer.
func (s *Server) Get(_ context.Context, req *apiv1.GetRequest) (*apiv1.GetResponse, error) {
	if err := s.enter("Get", req); err != nil {
		return nil, err
	}
	k, err := s.keyForReference(req.GetObject())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.GetAtTime() != nil {
		return nil, errNoTimes
	}
	revision := s.revision
	if at := req.GetAtRevision(); at != "" {
		if revision, err = parse(at); err != nil {
			return nil, err
		}
	}
	all, err := s.snapshot(k.kind, k.namespace, revision)
	if err != nil {
		return nil, err
	}
	for _, obj := range all {
		if obj.GetMetadata().GetName() == k.name {
			return &apiv1.GetResponse{Object: wrap(obj)}, nil
		}
	}
	return nil, apierr.NotFound(k.kind, k.name)
}

// List implements apiv1.ResourceServiceServer.
func (s *Server) List(_ context.Context, req *apiv1.ListRequest) (*apiv1.ListResponse, error) {
	if err := s.enter("List", req); err != nil {
		return nil, err
	}
	k, err := s.keyFor(req.GetGroup(), req.GetKind(), req.GetNamespace(), "")
	if err != nil {
		return nil, err
	}
	sel, err := newSelector(k.kind, k.namespace, req.GetLabelSelector(), req.GetFieldSelector())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	revision, after := s.revision, ""
	switch {
	case req.GetAtTime() != nil:
		return nil, errNoTimes
	case req.GetContinue() != "":
		var at string
		at, after, _ = strings.Cut(req.GetContinue(), " ")
		if revision, err = parse(at); err != nil {
			return nil, err
		}
	case req.GetAtRevision() != "":
		if revision, err = parse(req.GetAtRevision()); err != nil {
			return nil, err
		}
	}
	all, err := s.snapshot(k.kind, k.namespace, revision)
	if err != nil {
		return nil, err
	}
	resp := &apiv1.ListResponse{ResourceVersion: format(revision)}
	last := ""
	for _, obj := range all {
		// No byte of a name sorts before the separator.
		position := obj.GetMetadata().GetNamespace() + "\x00" + obj.GetMetadata().GetName()
		if position <= after || !sel.matches(obj) {
			continue
		}
		if req.GetLimit() > 0 && int64(len(resp.Objects)) == req.GetLimit() {
			resp.Continue = format(revision) + " " + last
			break
		}
		resp.Objects = append(resp.Objects, wrap(obj))
		last = position
	}
	return resp, nil
}

// Watch implements apiv1.ResourceServiceServer.
func (s *Server) Watch(req *apiv1.WatchRequest, stream grpc.ServerStreamingServer[apiv1.WatchResponse]) error {
	if err := s.enter("Watch", req); err != nil {
		return err
	}
	k, err := s.keyFor(req.GetGroup(), req.GetKind(), req.GetNamespace(), "")
	if err != nil {
		return err
	}
	sel, err := newSelector(k.kind, k.namespace, req.GetLabelSelector(), req.GetFieldSelector())
	if err != nil {
		return err
	}
	s.mu.Lock()
	cut, reached := s.cut, s.revision
	var initial []scheme.Object
	if req.GetResourceVersion() == "" {
		initial, err = s.snapshot(k.kind, k.namespace, reached)
	} else if reached, err = parse(req.GetResourceVersion()); err == nil && reached < s.compacted {
		err = tooOld(reached, s.compacted)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if req.GetResourceVersion() == "" {
		for _, obj := range initial {
			if !sel.matches(obj) {
				continue
			}
			if err := stream.Send(event(apiv1.EventType_EVENT_TYPE_ADDED, obj, obj.GetMetadata().GetResourceVersion())); err != nil {
				return err
			}
		}
		if err := stream.Send(&apiv1.WatchResponse{
			Type: apiv1.EventType_EVENT_TYPE_BOOKMARK, ResourceVersion: format(reached), InitialStateEnd: true,
		}); err != nil {
			return err
		}
	}
	for {
		events, changed, err := s.since(sel, &reached)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := stream.Send(e); err != nil {
				return err
			}
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-cut:
			return apierr.Unavailable("the server cut the stream")
		case <-changed:
		}
	}
}

// since returns the events after *reached, which it moves on, and a channel that is closed at the
// next change.
func (s *Server) since(sel *selector, reached *int64) ([]*apiv1.WatchResponse, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *reached < s.compacted {
		return nil, nil, tooOld(*reached, s.compacted)
	}
	var events []*apiv1.WatchResponse
	for _, c := range s.history {
		if c.revision <= *reached || c.key.kind != sel.kind {
			continue
		}
		was := c.old != nil && sel.matches(c.old.obj)
		is := c.new != nil && sel.matches(c.new.obj)
		switch {
		case is && !was:
			events = append(events, event(apiv1.EventType_EVENT_TYPE_ADDED, c.new.obj, format(c.revision)))
		case is:
			events = append(events, event(apiv1.EventType_EVENT_TYPE_MODIFIED, c.new.obj, format(c.revision)))
		case was:
			last := c.old.obj
			if c.new != nil {
				last = c.new.obj
			}
			events = append(events, event(apiv1.EventType_EVENT_TYPE_DELETED, atRevision(last, c.revision), format(c.revision)))
		}
	}
	*reached = max(*reached, s.revision)
	return events, s.changed, nil
}

func event(t apiv1.EventType, obj scheme.Object, revision string) *apiv1.WatchResponse {
	return &apiv1.WatchResponse{Type: t, Object: wrap(obj), ResourceVersion: revision}
}

// wrap encodes an object from the store, which is always valid.
func wrap(obj scheme.Object) *anypb.Any {
	a, err := anypb.New(obj)
	if err != nil {
		panic("clienttest: encode a stored object: " + err.Error())
	}
	return a
}
