package resolve

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/xebec-project/xebec/cli/jsonpath"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kind"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// discover adds to the scheme of the session the stored kinds that the cluster serves and this
// program was not compiled with. A cluster without DiscoveryService has no such kinds. The cluster
// is asked once in a session.
func discover(s *session.Session) error {
	if s.Discovered {
		return nil
	}
	ctx, cancel := s.Bounded(context.Background())
	defer cancel()
	server := apiv1.NewDiscoveryServiceClient(s)
	listed, err := server.ListKinds(ctx, &apiv1.ListKindsRequest{})
	if err != nil && apierr.Code(err) != codes.Unimplemented {
		return err
	}
	s.Discovered = true
	for _, d := range listed.GetKinds() {
		gvk := scheme.GVK{Group: d.GetGroup(), Version: d.GetVersion(), Kind: d.GetKind()}
		if _, known := s.Kinds.ByGVK(gvk); known || !d.GetStored() {
			continue
		}
		response, err := server.GetSchema(ctx, &apiv1.GetSchemaRequest{Group: d.GetGroup(), Version: d.GetVersion(), Kind: d.GetKind()})
		if err != nil {
			return fmt.Errorf("schema of %s: %w", gvk, err)
		}
		message, err := messageOf(response)
		if err != nil {
			return fmt.Errorf("schema of %s: %w", gvk, err)
		}
		if err := s.Kinds.Register(discovered(d, message)); err != nil {
			return err
		}
	}
	return nil
}

// messageOf finds the message of a schema. Files that the program was compiled with stay as they
// are.
func messageOf(schema *apiv1.GetSchemaResponse) (protoreflect.MessageDescriptor, error) {
	files := &discoveredFiles{}
	for _, f := range schema.GetFiles().GetFile() {
		if _, err := protoregistry.GlobalFiles.FindFileByPath(f.GetName()); err == nil {
			continue
		}
		file, err := protodesc.NewFile(f, files)
		if err != nil {
			return nil, err
		}
		if err := files.own.RegisterFile(file); err != nil {
			return nil, err
		}
	}
	d, err := files.FindDescriptorByName(protoreflect.FullName(schema.GetMessage()))
	if err != nil {
		return nil, fmt.Errorf("message %s: %w", schema.GetMessage(), err)
	}
	message, ok := d.(protoreflect.MessageDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is not a message", schema.GetMessage())
	}
	return message, nil
}

// discoveredFiles resolves names in the files that the program was compiled with, then in its own.
type discoveredFiles struct{ own protoregistry.Files }

func (f *discoveredFiles) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if file, err := protoregistry.GlobalFiles.FindFileByPath(path); err == nil {
		return file, nil
	}
	return f.own.FindFileByPath(path)
}

func (f *discoveredFiles) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(name); err == nil {
		return d, nil
	}
	return f.own.FindDescriptorByName(name)
}

// discovered describes a kind that the program was not compiled with. Tables of it have the columns
// that show one field. The server checks its objects.
func discovered(d *apiv1.KindDescription, message protoreflect.MessageDescriptor) *kind.Kind {
	k := &kind.Kind{
		Group: d.GetGroup(), Version: d.GetVersion(), Name: d.GetKind(), Plural: d.GetPlural(), Singular: d.GetSingular(),
		ShortNames: d.GetShortNames(), Namespaced: d.GetNamespaced(), HideName: d.GetHideName(), Dynamic: true,
		Rules: scheme.Unchecked{},
	}
	for _, sub := range d.GetSubresources() {
		k.Subresources = append(k.Subresources, scheme.Subresource{Name: sub.GetName(), Verbs: sub.GetVerbs()})
	}
	for _, c := range d.GetColumns() {
		switch path, err := jsonpath.ParsePath(c.GetJsonPath()); {
		case c.GetName() == kind.AgeColumn.Name:
			k.Columns = append(k.Columns, kind.AgeColumn)
		case c.GetJsonPath() != "" && err == nil:
			k.Columns = append(k.Columns, kind.Column{
				Name: c.GetName(), Wide: c.GetWide(), Path: c.GetJsonPath(),
				Value: func(o kind.Object, _ time.Time) string { return cell(path, o) },
			})
		}
	}
	k.New = scheme.Constructor(k, message)
	return k
}

// cell is the text of the first value that a path leads to.
func cell(path jsonpath.Path, o kind.Object) string {
	value, err := codec.ValueWhole(o)
	if err != nil {
		return "<unknown>"
	}
	found, err := path.Find(value)
	if err != nil || len(found) == 0 || found[0] == nil {
		return "<none>"
	}
	return jsonpath.Text(found[0])
}
