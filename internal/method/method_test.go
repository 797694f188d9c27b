package method_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/xebec-project/xebec/internal/method"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/control/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/endpoints/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/node/v1"
	_ "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
)

// verbs are Kubernetes' verbs on resources, and the two verbs on paths.
var (
	resourceVerbs = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "*"}
	pathVerbs     = []string{"get", "post"}
)

// TestServicesAreLinked fails when a service in proto is not linked into this test, which would
// then not see its methods.
func TestServicesAreLinked(t *testing.T) {
	files, err := filepath.Glob("../../proto/xebec/*/*/*_grpc.pb.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no generated services: %v", err)
	}
	service := regexp.MustCompile(`ServiceName: +"(.+)"`)
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range service.FindAllSubmatch(source, -1) {
			if _, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(found[1])); err != nil {
				t.Errorf("%s: import its package in this test: %v", file, err)
			}
		}
	}
}

// TestEveryMethodHasRules fails when a method of a service has no rules, or rules that contradict
// each other.
func TestEveryMethodHasRules(t *testing.T) {
	methods := 0
	method.Each(func(m protoreflect.MethodDescriptor) {
		methods++
		name := method.FullName(m)
		r := method.Rules(name)
		if r == nil {
			t.Errorf("%s has no option (xebec.meta.v1.method): state verb, resource, write, idempotent and audit", name)
			return
		}
		verbs := resourceVerbs
		if r.GetResource() == "" {
			verbs = pathVerbs
		}
		streams := m.IsStreamingClient() || m.IsStreamingServer()
		switch {
		case !slices.Contains(verbs, r.GetVerb()):
			t.Errorf("%s: verb %q on resource %q: want one of %q", name, r.GetVerb(), r.GetResource(), verbs)
		case r.GetAudit() == metav1.AuditLevel_AUDIT_LEVEL_UNSPECIFIED:
			t.Errorf("%s: the audit level is required", name)
		case r.GetIdempotent() && streams:
			t.Errorf("%s: a stream cannot be repeated by the client's interceptor: remove idempotent", name)
		case r.GetWrite() && r.GetAudit() != metav1.AuditLevel_AUDIT_LEVEL_METADATA && r.GetPriority() != metav1.CallPriority_CALL_PRIORITY_LEASES:
			t.Errorf("%s: every write is audited, except renewals of leases", name)
		case r.GetWrite() && r.GetResource() == "" && r.GetVerb() == "get",
			r.GetWrite() && slices.Contains([]string{"get", "list", "watch"}, r.GetVerb()):
			t.Errorf("%s: verb %q does not write", name, r.GetVerb())
		}
	})
	if methods < 40 {
		t.Errorf("only %d methods are linked into this test", methods)
	}
}

func TestRules(t *testing.T) {
	if r := method.Rules(apiv1.ResourceService_Get_FullMethodName); r.GetVerb() != "get" || r.GetResource() != "*" || !r.GetIdempotent() || r.GetWrite() {
		t.Errorf("Get has the rules %v", r)
	}
	for _, name := range []string{
		"", "/grpc.health.v1.Health/Check", "/xebec.api.v1.ResourceService/None", "/xebec.api.v1.ResourceService", "xebec.api.v1.ResourceService/Get",
		"/xebec.api.v1/ResourceService.Get", "/xebec.api.v1.ResourceService.Get", "//xebec.api.v1.ResourceService/Get",
	} {
		if r := method.Rules(name); r != nil || r.GetVerb() != "" {
			t.Errorf("%q has the rules %v", name, r)
		}
	}
}
