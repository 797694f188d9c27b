package apiserver

import (
	"cmp"
	"context"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/schema/comments"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	"github.com/xebec-project/xebec/services/apiserver/pipeline"
)

// objectVerbs are the verbs that apply to objects of every kind, sorted.
var objectVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// discoveryService implements DiscoveryService from a scheme.
type discoveryService struct {
	apiv1.UnimplementedDiscoveryServiceServer
	kinds *scheme.Scheme
}

// ListKinds describes every version of every kind.
func (s *discoveryService) ListKinds(context.Context, *apiv1.ListKindsRequest) (*apiv1.ListKindsResponse, error) {
	resp := &apiv1.ListKindsResponse{}
	for _, k := range s.kinds.Served() {
		resp.Kinds = append(resp.Kinds, describeKind(k))
	}
	return resp, nil
}

func describeKind(k *scheme.Kind) *apiv1.KindDescription {
	d := &apiv1.KindDescription{
		Group: k.Group, Version: k.Version, Kind: k.Name, Plural: k.Plural, Singular: k.Singular, ShortNames: k.ShortNames,
		Namespaced: k.Namespaced, Stored: k.Conversion == nil, Message: string(k.MessageName()), Verbs: objectVerbs,
		SelectableFields: k.SelectableFields(), HideName: k.HideName, Categories: k.Categories,
	}
	if s := k.Scale; s != nil {
		d.Scale = &apiv1.ScaleDescription{ReplicasPath: s.Replicas, StatusReplicasPath: s.StatusReplicas, SelectorPath: s.Selector}
	}
	for _, sub := range k.Subresources {
		d.Subresources = append(d.Subresources, &apiv1.SubresourceDescription{Name: sub.Name, Verbs: sub.Verbs})
	}
	for _, c := range k.Columns {
		d.Columns = append(d.Columns, &apiv1.ColumnDescription{Name: c.Name, Wide: c.Wide, JsonPath: c.Path})
	}
	return d
}

// GetSchema returns the message type of a kind.
func (s *discoveryService) GetSchema(_ context.Context, req *apiv1.GetSchemaRequest) (*apiv1.GetSchemaResponse, error) {
	k, ok := s.kinds.ByGroupKind(req.GetGroup(), req.GetKind())
	if req.GetVersion() != "" {
		k, ok = s.kinds.ByGVK(scheme.GVK{Group: req.GetGroup(), Version: req.GetVersion(), Kind: req.GetKind()})
	}
	if !ok {
		return nil, apierr.BadField("kind", "no kind %q in group %q and version %q; xebec api-resources lists the kinds",
			pipeline.Shortened(req.GetKind()), pipeline.Shortened(req.GetGroup()), pipeline.Shortened(req.GetVersion()))
	}
	message := k.New().ProtoReflect().Descriptor()
	files := &descriptorpb.FileDescriptorSet{}
	addFile(files, message.ParentFile(), map[string]bool{})
	texts, err := comments.All()
	if err != nil {
		return nil, err
	}
	resp := &apiv1.GetSchemaResponse{Message: string(message.FullName()), Files: files, Comments: map[string]string{}}
	comment := func(d protoreflect.Descriptor) {
		if text := cmp.Or(k.Comments[d.FullName()], texts[d.FullName()]); text != "" {
			resp.Comments[string(d.FullName())] = text
		}
	}
	addComments(message, comment, map[protoreflect.FullName]bool{})
	return resp, nil
}

// addComments calls comment for a message, its fields, and the messages that they refer to. added
// has the messages that it was called for.
func addComments(message protoreflect.MessageDescriptor, comment func(protoreflect.Descriptor), added map[protoreflect.FullName]bool) {
	if added[message.FullName()] {
		return
	}
	added[message.FullName()] = true
	comment(message)
	for i := range message.Fields().Len() {
		f := message.Fields().Get(i)
		comment(f)
		if f.Message() != nil {
			addComments(f.Message(), comment, added)
		}
	}
}

// addFile appends a file behind those that it imports. added has the paths of the files that the
// set has.
func addFile(set *descriptorpb.FileDescriptorSet, file protoreflect.FileDescriptor, added map[string]bool) {
	if added[file.Path()] {
		return
	}
	added[file.Path()] = true
	for i := range file.Imports().Len() {
		addFile(set, file.Imports().Get(i).FileDescriptor, added)
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
}
