// Package method reads the rules of RPC methods from the descriptors of their services: the verb
// and resource of the right that a call needs, whether it writes, whether clients repeat it, its
// audit level and its priority. The rules are options in the protos (xebec/meta/v1/method.proto),
// so that servers, clients, the audit log and the documentation agree.
package method

import (
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// packagePrefix begins the names of the proto packages whose methods have rules.
const packagePrefix = "xebec."

// Rules returns the rules of a method by its full name, such as
// "/xebec.api.v1.ResourceService/Get". It returns nil for a method without rules: one of another
// project, such as gRPC's health service, or one of a service that is not linked into the program.
// The getters of nil rules return zero values. The result must not be changed.
func Rules(fullMethod string) *metav1.MethodRules {
	if r, ok := known.Load(fullMethod); ok {
		return r.(*metav1.MethodRules)
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(descriptorName(fullMethod))
	m, ok := d.(protoreflect.MethodDescriptor)
	if err != nil || !ok || FullName(m) != fullMethod {
		return nil
	}
	r, _ := proto.GetExtension(m.Options(), metav1.E_Method).(*metav1.MethodRules)
	known.Store(fullMethod, r)
	return r
}

// known are the rules of the methods that were asked for, by full name. Only methods that exist are
// in it, so that clients cannot fill it. The rules of others stay encoded in the descriptors.
var known sync.Map

// descriptorName returns the name of a method in its descriptor, such as
// xebec.api.v1.ResourceService.Get; an invalid one for other names.
func descriptorName(fullMethod string) protoreflect.FullName {
	name := strings.TrimPrefix(fullMethod, "/")
	if !strings.HasPrefix(name, packagePrefix) {
		return ""
	}
	return protoreflect.FullName(strings.Replace(name, "/", ".", 1))
}

// Each calls f for every method of Xebec's services that is linked into the program, with and
// without rules, in no order.
func Each(f func(protoreflect.MethodDescriptor)) {
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(file.Package()), packagePrefix) {
			return true
		}
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				f(methods.Get(j))
			}
		}
		return true
	})
}

// FullName returns the name by which gRPC calls a method, such as
// "/xebec.api.v1.ResourceService/Get".
func FullName(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}
