package clienttest

import (
	"context"
	"encoding/json"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/codec"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// Patch implements apiv1.ResourceServiceServer for merge patches.
func (s *Server) Patch(_ context.Context, req *apiv1.PatchRequest) (*apiv1.PatchResponse, error) {
	if err := s.enter("Patch", req); err != nil {
		return nil, err
	}
	if req.GetType() != apiv1.PatchType_PATCH_TYPE_MERGE {
		return nil, apierr.Unsupported("the server in memory knows merge patches only")
	}
	resp := &apiv1.PatchResponse{}
	_, err := s.write(req, func(t *transaction) (err error) {
		resp.Object, err = t.patch(req)
		return err
	})
	return resp, err
}

func (t *transaction) patch(req *apiv1.PatchRequest) (*anypb.Any, error) {
	key, err := t.server.keyForReference(req.GetObject())
	if err != nil {
		return nil, err
	}
	r := t.get(key)
	if r == nil {
		return nil, apierr.NotFound(key.kind, key.name)
	}
	text, err := codec.Marshal(r.obj)
	if err != nil {
		return nil, err
	}
	var have, patch any
	if err := json.Unmarshal(text, &have); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(req.GetPatch(), &patch); err != nil {
		return nil, apierr.BadField("patch", "%v", err)
	}
	merged, err := json.Marshal(merge(have, patch))
	if err != nil {
		return nil, err
	}
	obj, err := codec.Unmarshal(merged)
	if err != nil {
		return nil, apierr.BadField("patch", "%v", err)
	}
	if keyOf(obj) != key {
		return nil, apierr.BadField("patch", "an object cannot be renamed")
	}
	return t.update(wrap(obj), 0, req.GetSubresource())
}

// merge applies a merge patch of RFC 7386.
func merge(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, v := range changes {
		if v == nil {
			delete(object, name)
		} else {
			object[name] = merge(object[name], v)
		}
	}
	return object
}
