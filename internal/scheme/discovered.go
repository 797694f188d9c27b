package scheme

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// FromDescription returns a kind that the program was not compiled with, as DiscoveryService
// describes it, without columns. Its objects are Dynamic, and the server checks them. For a version
// that is not stored, stored is the version that is, and the server alone converts objects.
func FromDescription(d *apiv1.KindDescription, schema *apiv1.GetSchemaResponse, stored *Kind) (*Kind, error) {
	message, err := messageOf(schema)
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", GVK{d.GetGroup(), d.GetVersion(), d.GetKind()}, err)
	}
	k := &Kind{
		Group: d.GetGroup(), Version: d.GetVersion(), Name: d.GetKind(), Plural: d.GetPlural(), Singular: d.GetSingular(),
		ShortNames: d.GetShortNames(), Namespaced: d.GetNamespaced(), HideName: d.GetHideName(), Dynamic: true, Rules: Unchecked{},
		Categories: d.GetCategories(),
		Comments:   make(map[protoreflect.FullName]string, len(schema.GetComments())),
	}
	for name, text := range schema.GetComments() {
		k.Comments[protoreflect.FullName(name)] = text
	}
	for _, sub := range d.GetSubresources() {
		k.Subresources = append(k.Subresources, Subresource{Name: sub.GetName(), Verbs: sub.GetVerbs()})
	}
	if stored != nil {
		k.Conversion = &Conversion{Stored: stored, ToStored: serverConverts, FromStored: serverConverts}
	}
	if s := d.GetScale(); s != nil {
		k.Scale = &Scale{Replicas: s.GetReplicasPath(), StatusReplicas: s.GetStatusReplicasPath(), Selector: s.GetSelectorPath()}
	}
	k.New = Constructor(k, message)
	return k, nil
}

func serverConverts(Object) (Object, error) {
	return nil, errors.New("only the server converts objects between versions")
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
