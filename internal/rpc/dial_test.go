package rpc

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/xebec-project/xebec/proto/xebec/api/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/control/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
)

// TestRepeatableMethodsExist guards the table against names that no service has: gRPC ignores those.
func TestRepeatableMethodsExist(t *testing.T) {
	for service, methods := range repeatable {
		descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			t.Errorf("%s: %v", service, err)
			continue
		}
		for _, name := range methods {
			method := descriptor.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name))
			switch {
			case method == nil:
				t.Errorf("%s has no method %s", service, name)
			case method.IsStreamingClient() || method.IsStreamingServer():
				t.Errorf("%s.%s is a stream: gRPC repeats it only before its first answer", service, name)
			}
		}
	}
}
