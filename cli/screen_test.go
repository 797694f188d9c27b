package cli

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
)

// hostile is what an object may hold: colours, a window title, an erased line, in 7 and in 8 bits,
// and reversed text.
const hostile = "x\x1b[31mred\x1b]0;title\aend\rover\u009b2J\u202er"

// controls are what may never reach a terminal from a cluster's data.
var controls = regexp.MustCompile("[\x00-\x08\x0b-\x1f\x7f\u0080-\u009f\u202a-\u202e\u2066-\u2069]")

// hostileServer answers every call there is, with a failure or with a message whose texts are all
// hostile.
type hostileServer struct{ fails bool }

func (h *hostileServer) handle(_ any, stream grpc.ServerStream) error {
	if h.fails {
		return apierr.New(codes.Internal, "HOSTILE", hostile)
	}
	full, _ := grpc.MethodFromServerStream(stream)
	service, method, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return err
	}
	md := found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(method))
	request, err := newMessage(md.Input())
	if err != nil {
		return err
	}
	if err := stream.RecvMsg(request.Interface()); err != nil {
		return err
	}
	response, err := newMessage(md.Output())
	if err != nil {
		return err
	}
	poison(response, kindIn(request))
	return stream.SendMsg(response.Interface())
}

func newMessage(md protoreflect.MessageDescriptor) (protoreflect.Message, error) {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
	if err != nil {
		return nil, err
	}
	return mt.New(), nil
}

// kindIn returns the kind that a request is about, or pods.
func kindIn(request protoreflect.Message) *scheme.Kind {
	var k *scheme.Kind
	var visit func(protoreflect.Message)
	visit = func(m protoreflect.Message) {
		m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case fd.Name() == "kind" && fd.Kind() == protoreflect.StringKind:
				for _, each := range kinds.All() {
					if each.Name == v.String() {
						k = each
					}
				}
			case fd.Kind() == protoreflect.MessageKind && !fd.IsList() && !fd.IsMap():
				if a, ok := v.Message().Interface().(*anypb.Any); ok {
					k, _ = kinds.OfTypeURL(a.GetTypeUrl())
				} else {
					visit(v.Message())
				}
			}
			return true
		})
	}
	if visit(request); k == nil {
		k, _ = kinds.ByName("pods")
	}
	return k
}

// poison sets every field of a message, texts to hostile ones, and objects to those of a kind. Of
// alternatives the last is taken, bytes are left out: those are for programs.
func poison(m protoreflect.Message, k *scheme.Kind) {
	switch known := m.Interface().(type) {
	case *timestamppb.Timestamp:
		proto.Merge(known, ago(time.Minute))
		return
	case *anypb.Any:
		obj := k.New()
		poison(obj.ProtoReflect(), nil)
		obj.GetMetadata().ResourceVersion, obj.GetMetadata().DeletionTimestamp = "7", nil
		a, err := anypb.New(obj)
		if err != nil {
			panic(err)
		}
		proto.Merge(known, a)
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case fd.FullName() == "xebec.api.v1.ListResponse.continue":
			// There would always be another page.
		case fd.IsMap():
			value := m.NewField(fd).Map().NewValue()
			if fd.MapValue().Kind() == protoreflect.MessageKind {
				poison(value.Message(), k)
			} else {
				value = scalarOf(fd.MapValue())
			}
			m.Mutable(fd).Map().Set(scalarOf(fd.MapKey()).MapKey(), value)
		case fd.IsList() && fd.Kind() == protoreflect.MessageKind:
			if fd.Message() != m.Descriptor() {
				poison(m.Mutable(fd).List().AppendMutable().Message(), k)
			}
		case fd.IsList():
			m.Mutable(fd).List().Append(scalarOf(fd))
		case fd.Kind() == protoreflect.MessageKind:
			poison(m.Mutable(fd).Message(), k)
		case fd.Kind() != protoreflect.BytesKind:
			m.Set(fd, scalarOf(fd))
		}
	}
}

func scalarOf(fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(hostile)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("bytes"))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(fd.Enum().Values().Get(fd.Enum().Values().Len() - 1).Number())
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(1)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(1)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(1)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(1)
	}
	panic("no value for " + fd.FullName())
}

// commandLines are the arguments of every command that shows what a cluster says. Those with nil
// say nothing of a cluster.
func commandLines(t *testing.T) map[string][][]string {
	manifests := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(manifests, []byte(webManifest), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := map[string][][]string{
		"apply":                  {{"-f", manifests}, {"-f", manifests, "-o", "name"}},
		"create":                 {{"-f", manifests}},
		"create namespace":       {{"a"}},
		"create configmap":       {{"a"}},
		"create secret generic":  {{"a"}},
		"create deployment":      {{"a", "--image=a"}},
		"create job":             {{"a", "--image=a"}, {"a", "--from=cronjob/a"}},
		"create cronjob":         {{"a", "--image=a", "--schedule=@daily"}},
		"create token":           {{"a"}},
		"get":                    {{"pods", "-w"}, {"pods,services"}, {"pods", "-o", "name"}, {"pod/a", "pod/b"}},
		"describe":               nil, // of each kind below
		"delete":                 {{"pod", "a"}, {"-f", manifests}, {"pods", "-l", "a=b"}},
		"replace":                {{"-f", manifests}},
		"diff":                   {{"-f", manifests}},
		"edit":                   {{"pod", "a"}},
		"patch":                  {{"pod", "a", "-p", "{}"}},
		"label":                  {{"pod", "a", "b=c"}},
		"annotate":               {{"pod", "a", "b=c"}},
		"wait":                   {{"pod/a", "--for=condition=Ready"}, {"pod/a", "--for=delete"}, {"pod/a", "--for=jsonpath={.status.phase}=Running"}},
		"run":                    {{"a", "--image=a"}, {"a", "--image=a", "--attach"}},
		"scale":                  {{"deployment/a", "--replicas=1"}},
		"rollout status":         {{"deployment/a"}},
		"rollout history":        {{"deployment/a"}, {"deployment/a", "--revision=1"}},
		"rollout undo":           {{"deployment/a"}},
		"rollout restart":        {{"deployment/a"}},
		"rollout pause":          {{"deployment/a"}},
		"rollout resume":         {{"deployment/a"}},
		"set image":              {{"deployment/a", "a=b"}},
		"logs":                   {{"a"}, {"a", "--prefix", "--all-containers"}, {"a", "-c", "none"}, {"-l", "a=b", "--prefix"}},
		"exec":                   {{"a", "--", "b"}, {"a", "-c", "none", "--", "b"}},
		"attach":                 {{"a"}, {"a", "-c", "none"}},
		"debug":                  {{"a", "--image=b"}},
		"cp":                     {{"a:/b", t.TempDir()}},
		"port-forward":           {{"a", ":80"}},
		"top nodes":              {{}},
		"top pods":               {{}, {"--containers"}},
		"why":                    {{"a"}},
		"net trace":              {{"pod/a", "pod/b:80"}, {"a", "service/b:80"}},
		"net connections":        {{}},
		"net drops":              {{}},
		"cluster status":         {{}, {"-o", "wide"}},
		"cluster access get":     {{}},
		"cluster access set":     {{"--public-cidrs=127.0.0.0/8"}},
		"cluster access reset":   {{}},
		"controllers":            {{}},
		"node features":          {{"a"}},
		"node services":          {{"a"}},
		"node images":            {{"a"}},
		"image load":             {{manifests}},
		"cordon":                 {{"a"}},
		"uncordon":               {{"a"}},
		"drain":                  {{"a", "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=1s"}},
		"taint":                  {{"node", "a", "b=c:NoSchedule"}},
		"etcd status":            {{}},
		"etcd members list":      {{}},
		"etcd members add":       {{"a", "--peer-url=https://127.0.0.1:1"}},
		"etcd members promote":   {{"1"}, {"a"}},
		"etcd members remove":    {{"1"}, {"a"}},
		"etcd move-leader":       {{}, {"1"}},
		"etcd defrag":            {{"--all"}},
		"etcd disarm":            {{}},
		"etcd snapshot":          {{filepath.Join(t.TempDir(), "snapshot")}},
		"auth whoami":            {{}},
		"auth can-i":             {{"get", "pods"}},
		"version":                {{}},
		"etcd restore":           nil,
		"pki init":               nil,
		"pki issue":              nil,
		"pki rotate":             nil,
		"config view":            nil,
		"config get-contexts":    nil,
		"config current-context": nil,
		"config use-context":     nil,
		"config set-context":     nil,
		"config delete-context":  nil,
		"explain":                nil,
		"api-resources":          nil,

		"create poddisruptionbudget": {{"a", "--selector=a=b", "--min-available=1"}},
	}
	for _, k := range kinds.All() {
		lines["get"] = append(lines["get"], []string{k.Plural, "-A", "-o", "wide", "--show-labels", "-L", "a"})
		lines["describe"] = append(lines["describe"], []string{k.Plural, "a"})
	}
	return lines
}

// TestNoCommandObeysTheCluster runs every command there is against a cluster whose every word is
// hostile to terminals.
func TestNoCommandObeysTheCluster(t *testing.T) {
	server := &hostileServer{}
	served := grpc.NewServer(grpc.UnknownServiceHandler(server.handle))
	listener := bufconn.Listen(1 << 20)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = served.Serve(listener)
	}()
	t.Cleanup(func() {
		served.Stop()
		<-done
	})
	t.Setenv(cliconfig.EnvPath, writeFile(t, "config", "current-context: test\ncontexts:\n- {name: test, endpoints: ['127.0.0.1:1'], ca: ca, cert: cert, key: key}\n"))
	t.Setenv("XEBEC_EDITOR", "true")
	run := func(args []string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // some commands wait for what never comes
		defer cancel()
		var out bytes.Buffer
		s := session.New(session.Streams{In: strings.NewReader(""), Out: &out, Err: &out})
		s.Now = func() time.Time { return testNow }
		s.Dial = func(*cliconfig.Context, ...grpc.DialOption) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
		}
		RunSession(ctx, s, args)
		return out.String()
	}
	lines := commandLines(t)
	var names []string
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(c.CommandPath(), "xebec"), " ")
		if _, known := lines[name]; known || !c.HasSubCommands() {
			names = append(names, name)
		}
	}
	s := session.New(session.Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
	walk(rootCommand(s))
	for _, name := range names {
		all, known := lines[name]
		if !known {
			t.Errorf("%q is not among the command lines of this test", name)
		}
		t.Run(name, func(t *testing.T) {
			for _, line := range all {
				args := slices.Concat(strings.Fields(name), line)
				for _, server.fails = range []bool{true, false} {
					shown := run(args)
					if at := controls.FindStringIndex(shown); at != nil {
						t.Errorf("%q (failing calls: %v) sends %q to the terminal:\n%q", args, server.fails, shown[at[0]:at[1]], shown)
					}
					if (server.fails || name == "get" || name == "describe" || name == "why") && !strings.Contains(shown, `^[[31m`) {
						t.Errorf("%q does not show what the cluster says:\n%s", args, shown)
					}
				}
			}
		})
	}
}
