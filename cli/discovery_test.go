package cli

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/cliconfig"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// widgetCluster serves a kind that the program is not compiled with.
type widgetCluster struct {
	apiv1.UnimplementedResourceServiceServer
	apiv1.UnimplementedDiscoveryServiceServer
	file    *descriptorpb.FileDescriptorProto
	widgets []*anypb.Any
}

func (c *widgetCluster) ListKinds(context.Context, *apiv1.ListKindsRequest) (*apiv1.ListKindsResponse, error) {
	return &apiv1.ListKindsResponse{Kinds: []*apiv1.KindDescription{{
		Group: "example.com", Version: "v1", Kind: "Widget", Plural: "widgets", Singular: "widget", ShortNames: []string{"wd"},
		Namespaced: true, Stored: true, Message: "example.Widget", SelectableFields: []string{"metadata.name", "metadata.namespace"},
		Columns: []*apiv1.ColumnDescription{{Name: "SIZE", JsonPath: ".size"}, {Name: "COMPUTED"}, {Name: "AGE"}},
	}}}, nil
}

func (c *widgetCluster) GetSchema(context.Context, *apiv1.GetSchemaRequest) (*apiv1.GetSchemaResponse, error) {
	return &apiv1.GetSchemaResponse{Message: "example.Widget", Files: &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto((&metav1.ObjectMeta{}).ProtoReflect().Descriptor().ParentFile()), c.file,
	}}}, nil
}

func (c *widgetCluster) List(_ context.Context, req *apiv1.ListRequest) (*apiv1.ListResponse, error) {
	if req.GetGroup() != "example.com" || req.GetKind() != "Widget" {
		return c.UnimplementedResourceServiceServer.List(context.Background(), req)
	}
	return &apiv1.ListResponse{Objects: c.widgets, ResourceVersion: "7"}, nil
}

func (c *widgetCluster) Get(context.Context, *apiv1.GetRequest) (*apiv1.GetResponse, error) {
	return &apiv1.GetResponse{Object: c.widgets[0]}, nil
}

// startWidgetCluster serves a widget of size 7 named web.
func startWidgetCluster(t *testing.T) *fakeCluster {
	t.Helper()
	single := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
	metadata := (&metav1.ObjectMeta{}).ProtoReflect().Descriptor()
	c := &widgetCluster{file: &descriptorpb.FileDescriptorProto{
		Name: new("example/widget.proto"), Package: new("example"), Syntax: new("proto3"), Dependency: []string{metadata.ParentFile().Path()},
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("Widget"), Field: []*descriptorpb.FieldDescriptorProto{
			{Name: new("metadata"), JsonName: new("metadata"), Number: new(int32(1)), Label: single,
				Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: new("." + string(metadata.FullName()))},
			{Name: new("size"), JsonName: new("size"), Number: new(int32(2)), Label: single, Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()},
		}}},
	}}
	file, err := protodesc.NewFile(c.file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	d := file.Messages().Get(0)
	m := dynamicpb.NewMessage(d)
	meta := &metav1.ObjectMeta{Name: "web", Namespace: "default"}
	m.Set(d.Fields().ByNumber(1), protoreflect.ValueOfMessage(meta.ProtoReflect()))
	m.Set(d.Fields().ByNumber(2), protoreflect.ValueOfString("7"))
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	c.widgets = []*anypb.Any{{TypeUrl: "type.googleapis.com/example.Widget", Value: raw}}

	server := grpc.NewServer()
	apiv1.RegisterResourceServiceServer(server, c)
	apiv1.RegisterDiscoveryServiceServer(server, c)
	listener := bufconn.Listen(1 << 20)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	t.Setenv(cliconfig.EnvPath, writeFile(t, "config", "current-context: test\ncontexts:\n- {name: test, endpoints: ['127.0.0.1:1'], ca: ca, cert: cert, key: key}\n"))
	f := &fakeCluster{}
	f.connect = func() (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///memory",
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	return f
}

func TestKindsThatTheProgramWasNotCompiledWith(t *testing.T) {
	c := startWidgetCluster(t)
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"get", "wd"}, []string{"NAME", "SIZE", "AGE", "web", "7", "<unknown>"}},
		{[]string{"get", "widgets.example.com", "web", "-o", "name"}, []string{"widget.example.com/web"}},
		{[]string{"get", "widget/web", "-o", "yaml"},
			[]string{"apiVersion: example.com/v1", "kind: Widget", "name: web", "size: \"7\""}},
		{[]string{"explain", "widget"}, []string{"GROUP:    example.com", "KIND:     Widget", "metadata <ObjectMeta>", "size <string>"}},
		{[]string{"api-resources"}, []string{"widgets", "wd", "example.com/v1", "Widget", "pods"}},
	} {
		got := c.run(t, tt.args...)
		if got.code != 0 || got.err != "" {
			t.Errorf("%q: exit code %d, %s", tt.args, got.code, got.err)
		}
		for _, text := range tt.want {
			if !strings.Contains(got.out, text) {
				t.Errorf("%q: %q is missing in\n%s", tt.args, text, got.out)
			}
		}
		if strings.Contains(got.out, "COMPUTED") {
			t.Errorf("%q shows a column that the server computes:\n%s", tt.args, got.out)
		}
	}
	if got := c.run(t, "get", "widgetz"); got.code == 0 || !strings.Contains(got.err, `unknown kind "widgetz", did you mean "widgets"?`) {
		t.Errorf("a misspelt name: exit code %d, %s", got.code, got.err)
	}
}
