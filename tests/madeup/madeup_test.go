package madeup

import (
	"bytes"
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/cli"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	autoscalingv1 "github.com/xebec-project/xebec/proto/xebec/autoscaling/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver"
	gadgetsv1 "github.com/xebec-project/xebec/tests/madeup/proto/gadgets/v1"
	gadgetsv2 "github.com/xebec-project/xebec/tests/madeup/proto/gadgets/v2"
)

// cluster is an apiserver on etcd.
type cluster struct {
	kinds   *scheme.Scheme
	address string
	client  *client.Client
	conn    grpc.ClientConnInterface
}

func start(t *testing.T) *cluster {
	t.Helper()
	kinds := kinds.NewScheme()
	cfg := apiserver.DefaultConfig()
	// The only member of etcd is busy when it does not answer at once.
	cfg.Storage.WriteAttempt = 10 * time.Second
	service, err := apiserver.New(cfg, kinds, etcdtest.New(t, 1).Client(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	server := rpctest.HeaderServer()
	service.Register(server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	t.Cleanup(func() {
		server.Stop()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run the apiserver: %v", err)
		}
	})
	<-service.Ready()
	c := &cluster{kinds: kinds, address: listener.Addr().String()}
	plain, err := c.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plain.Close() })
	c.conn = rpctest.As{ClientConnInterface: plain, User: "alice", Group: authz.GroupAdmins}
	c.client = client.New(c.conn, client.WithTimeout(time.Minute))
	eventually(t, "namespace default", func() bool {
		_, err := client.Get[*corev1.Namespace](t.Context(), c.client, "", "default")
		return err == nil
	})
	return c
}

// dial returns a connection whose calls an administrator makes.
func (c *cluster) dial() (*grpc.ClientConn, error) {
	as := rpctest.As{User: "alice", Group: authz.GroupAdmins}
	return grpc.NewClient(c.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(as.UnaryInterceptor), grpc.WithChainStreamInterceptor(as.StreamInterceptor))
}

// run runs a command line and returns its output and exit code.
func (c *cluster) run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	return c.runInput(t, "", args...)
}

func (c *cluster) runInput(t *testing.T, input string, args ...string) (string, int) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config")
	text := "current-context: test\ncontexts:\n- {name: test, endpoints: ['127.0.0.1:1'], ca: ca, cert: cert, key: key}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(cliconfig.EnvPath, config)
	var out bytes.Buffer
	s := session.New(session.Streams{In: strings.NewReader(input), Out: &out, Err: &out})
	s.Dial = func(*cliconfig.Context, ...grpc.DialOption) (*grpc.ClientConn, error) { return c.dial() }
	code := cli.RunSession(t.Context(), s, append([]string{"--request-timeout=1m"}, args...))
	return out.String(), code
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	ticks := time.NewTicker(20 * time.Millisecond)
	defer ticks.Stop()
	for !holds() {
		select {
		case <-ticks.C:
		case <-deadline.C:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// must fails the test unless a call succeeds.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func clock(t *testing.T, kinds *scheme.Scheme) *gadgetsv1.Gadget {
	t.Helper()
	text := must[[]byte](t)(os.ReadFile("testdata/gadget.json"))
	return must[scheme.Object](t)(codec.New(kinds).Unmarshal(text)).(*gadgetsv1.Gadget)
}

// wantInvalid checks that an object is refused for a field.
func wantInvalid(t *testing.T, err error, text string) {
	t.Helper()
	if !apierr.IsInvalid(err) || !strings.Contains(err.Error(), text) {
		t.Errorf("%v, want the refusal %q", err, text)
	}
}

// TestMadeUpKind registers a kind in a running apiserver, and does with it all that can be done
// with an object.
func TestMadeUpKind(t *testing.T) {
	c := start(t)
	kinds := Kinds()
	v1, v2 := kinds[0], kinds[1]
	ctx := t.Context()
	if _, err := client.GetKind(ctx, c.client, v1, "default", "clock"); err == nil || !strings.Contains(err.Error(), "no kind") {
		t.Errorf("get of a kind that is not served: %v", err)
	}
	if err := c.kinds.Register(kinds...); err != nil {
		t.Fatal(err)
	}
	t.Run("create", func(t *testing.T) { testCreate(t, c, v1) })
	t.Run("versions", func(t *testing.T) { testVersions(t, c, v1, v2) })
	t.Run("update", func(t *testing.T) { testUpdate(t, c, v1) })
	t.Run("patches", func(t *testing.T) { testPatches(t, c, v1, v2) })
	t.Run("apply", func(t *testing.T) { testApply(t, c, v1, v2) })
	t.Run("scale", func(t *testing.T) { testScale(t, c, v1, v2) })
	t.Run("controller", func(t *testing.T) { testController(t, c, v1) })
	t.Run("discovery", func(t *testing.T) { testDiscovery(t, c) })
	t.Run("manifests", func(t *testing.T) { testManifests(t, c, v1) })
	t.Run("command line", func(t *testing.T) { testCommandLine(t, c, v1) })
	t.Run("removal", func(t *testing.T) { testRemoval(t, c, kinds) })
}

func testCreate(t *testing.T, c *cluster, v1 *scheme.Kind) {
	ctx := t.Context()
	created := must[*gadgetsv1.Gadget](t)(client.Create(ctx, c.client, clock(t, c.kinds)))
	spec := created.GetSpec()
	if spec.GetReplicas() != 1 || spec.GetParts()[0].GetMaterial() != "steel" || spec.GetParts()[1].GetMaterial() != "brass" {
		t.Errorf("defaults are not set: %v", spec)
	}
	if m := created.GetMetadata(); m.GetGeneration() != 1 || m.GetUid() == "" {
		t.Errorf("metadata are %v", m)
	}
	for _, tt := range []struct {
		change func(*gadgetsv1.Gadget)
		want   string
	}{
		{func(g *gadgetsv1.Gadget) { g.Spec.Model = "" }, "spec.model: Required value"},
		{func(g *gadgetsv1.Gadget) { g.Spec.Replicas = new(int32(-1)) }, "spec.replicas: Invalid value"},
		{func(g *gadgetsv1.Gadget) { g.Spec.Parts[0].Material = "wood" }, "spec.parts[0].material: Unsupported value"},
		{func(g *gadgetsv1.Gadget) { g.Spec.Parts[1].Name = "hand" }, "spec.parts[1].name: Duplicate value"},
		{func(g *gadgetsv1.Gadget) { g.Spec.Parts[1].Size = 98 }, "spec.parts: Invalid value: 101: must be at most 100 together"},
	} {
		bad := clock(t, c.kinds)
		bad.Metadata.Name = "bad"
		tt.change(bad)
		_, err := client.Create(ctx, c.client, bad)
		wantInvalid(t, err, tt.want)
	}
	other := clock(t, c.kinds)
	other.Metadata.Name, other.Spec.Model, other.Spec.Parts = "other", "square", nil
	must[*gadgetsv1.Gadget](t)(client.Create(ctx, c.client, other))
	square, _, err := client.ListKind(ctx, c.client, v1, client.ListOptions{Namespace: "default", FieldSelector: "spec.model=square"})
	if err != nil || len(square) != 1 || square[0].GetMetadata().GetName() != "other" {
		t.Errorf("selected by model: %v, %v", square, err)
	}
}

// testVersions reads, watches and selects objects in the version that is not stored, and creates
// one in it.
func testVersions(t *testing.T, c *cluster, v1, v2 *scheme.Kind) {
	ctx := t.Context()
	second := must[scheme.Object](t)(client.GetKind(ctx, c.client, v2, "default", "clock")).(*gadgetsv2.Gadget)
	if second.GetSpec().GetCount() != 1 || second.GetSpec().GetParts()["face"] != 9 || second.GetMetadata().GetResourceVersion() == "" {
		t.Errorf("the object in version 2 is %v", second)
	}
	made := &gadgetsv2.Gadget{
		Metadata: &metav1.ObjectMeta{Name: "second", Namespace: "default"},
		Spec:     &gadgetsv2.GadgetSpec{Model: "flat", Parts: map[string]int32{"b": 2, "a": 1}},
	}
	created := must[*gadgetsv2.Gadget](t)(client.Create(ctx, c.client, made))
	if created.GetSpec().GetCount() != 2 {
		t.Errorf("the default of version 2 is not set: %v", created.GetSpec())
	}
	stored := must[scheme.Object](t)(client.GetKind(ctx, c.client, v1, "default", "second")).(*gadgetsv1.Gadget)
	if stored.GetSpec().GetReplicas() != 2 || len(stored.GetSpec().GetParts()) != 2 || stored.GetSpec().GetParts()[0].GetMaterial() != "steel" {
		t.Errorf("the object in version 1 is %v", stored.GetSpec())
	}
	_, err := client.Create(ctx, c.client, &gadgetsv2.Gadget{Metadata: &metav1.ObjectMeta{Name: "bad", Namespace: "default"}, Spec: &gadgetsv2.GadgetSpec{}})
	wantInvalid(t, err, "spec.model: Required value")

	for _, tt := range []struct {
		kind     *scheme.Kind
		selector string
		want     []string
	}{
		{v2, "", []string{"clock", "other", "second"}},
		{v2, "spec.count=2", []string{"second"}},
		{v2, "spec.count!=2,metadata.name!=other", []string{"clock"}},
	} {
		list, _, err := client.ListKind(ctx, c.client, tt.kind, client.ListOptions{Namespace: "default", FieldSelector: tt.selector})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, o := range list {
			names = append(names, o.(*gadgetsv2.Gadget).GetMetadata().GetName())
		}
		if !slices.Equal(names, tt.want) {
			t.Errorf("selected by %q: %v, want %v", tt.selector, names, tt.want)
		}
	}
	if _, _, err := client.ListKind(ctx, c.client, v2, client.ListOptions{FieldSelector: "spec.model=flat"}); err == nil {
		t.Error("version 2 has no selectable field spec.model")
	}

	watching, stop := context.WithCancel(ctx)
	defer stop()
	var seen []string
	for event, err := range client.WatchKind(watching, c.client, v2, client.WatchOptions{Namespace: "default", FieldSelector: "spec.count=2"}) {
		if err != nil {
			t.Fatal(err)
		}
		if event.InitialStateEnd {
			must[scheme.Object](t)(client.PatchKind(ctx, c.client, v1, "default", "second", []byte(`{"spec":{"replicas":3}}`)))
			continue
		}
		seen = append(seen, event.Type.String()+" "+event.Object.(*gadgetsv2.Gadget).GetMetadata().GetName())
		if len(seen) == 2 {
			break
		}
	}
	if want := []string{"EVENT_TYPE_ADDED second", "EVENT_TYPE_DELETED second"}; !slices.Equal(seen, want) {
		t.Errorf("the watch of version 2 saw %v, want %v", seen, want)
	}
	if _, err := client.DeleteKind(ctx, c.client, v2, "default", "second"); err != nil {
		t.Errorf("delete in version 2: %v", err)
	}
	reference := &apiv1.ObjectReference{Group: Group, Version: "v3", Kind: "Gadget", Namespace: "default", Name: "clock"}
	if _, err := c.client.Resources().Get(ctx, &apiv1.GetRequest{Object: reference}); err == nil || !strings.Contains(err.Error(), `"v3"`) {
		t.Errorf("get in a version that is not served: %v", err)
	}
}

func testUpdate(t *testing.T, c *cluster, v1 *scheme.Kind) {
	ctx := t.Context()
	get := func() *gadgetsv1.Gadget {
		return must[scheme.Object](t)(client.GetKind(ctx, c.client, v1, "default", "clock")).(*gadgetsv1.Gadget)
	}
	changed := get()
	changed.Spec.Model = "oval"
	_, err := client.Update(ctx, c.client, changed)
	wantInvalid(t, err, `spec.model: Invalid value: "oval": field is immutable`)

	changed = get()
	changed.Spec.Parts[0].Size = 4
	changed.Status = &gadgetsv1.GadgetStatus{Replicas: 7}
	updated := must[*gadgetsv1.Gadget](t)(client.Update(ctx, c.client, changed))
	if updated.GetStatus().GetReplicas() != 0 || updated.GetMetadata().GetGeneration() != 2 {
		t.Errorf("an update changes the status or not the generation: %v", updated)
	}
	updated.Status = &gadgetsv1.GadgetStatus{Replicas: 7}
	updated.Spec.Parts = nil
	status := must[*gadgetsv1.Gadget](t)(client.UpdateStatus(ctx, c.client, updated))
	if status.GetStatus().GetReplicas() != 7 || len(status.GetSpec().GetParts()) != 2 || status.GetMetadata().GetGeneration() != 2 {
		t.Errorf("an update of the status makes %v", status)
	}
	// In the other version.
	second := must[scheme.Object](t)(client.GetKind(ctx, c.client, Kinds()[1], "default", "clock")).(*gadgetsv2.Gadget)
	second.Spec.Parts["hand"] = 5
	must[*gadgetsv2.Gadget](t)(client.Update(ctx, c.client, second))
	if got := get(); got.GetSpec().GetParts()[1].GetSize() != 5 {
		t.Errorf("an update in version 2 makes %v", got.GetSpec())
	}
}

func testPatches(t *testing.T, c *cluster, v1, v2 *scheme.Kind) {
	ctx := t.Context()
	sizes := func(o scheme.Object) map[string]int32 {
		out := map[string]int32{}
		for _, p := range o.(*gadgetsv1.Gadget).GetSpec().GetParts() {
			out[p.GetName()] = p.GetSize()
		}
		return out
	}
	merged := must[scheme.Object](t)(client.PatchKind(ctx, c.client, v1, "default", "clock", []byte(`{"spec":{"replicas":2}}`)))
	if n := merged.(*gadgetsv1.Gadget).GetSpec().GetReplicas(); n != 2 {
		t.Errorf("a merge patch makes %d replicas", n)
	}
	byIndex := must[scheme.Object](t)(client.PatchKind(ctx, c.client, v1, "default", "clock",
		[]byte(`[{"op":"test","path":"/spec/replicas","value":2},{"op":"replace","path":"/spec/parts/0/size","value":8}]`), client.JSONPatch))
	if got := sizes(byIndex); got["face"] != 8 {
		t.Errorf("a JSON patch makes %v", got)
	}
	strategic := must[scheme.Object](t)(client.PatchKind(ctx, c.client, v1, "default", "clock",
		[]byte(`{"spec":{"parts":[{"name":"hand","size":1},{"name":"spring","size":2}]}}`), client.StrategicPatch))
	if got := sizes(strategic); len(got) != 3 || got["hand"] != 1 || got["spring"] != 2 || got["face"] != 8 {
		t.Errorf("a strategic merge patch makes %v", got)
	}
	second := must[scheme.Object](t)(client.PatchKind(ctx, c.client, v2, "default", "clock", []byte(`{"spec":{"parts":{"spring":null}}}`)))
	if got := second.(*gadgetsv2.Gadget).GetSpec().GetParts(); len(got) != 2 {
		t.Errorf("a merge patch of version 2 makes %v", got)
	}
	_, err := client.PatchKind(ctx, c.client, v1, "default", "clock", []byte(`{"spec":{"model":"oval"}}`))
	wantInvalid(t, err, "field is immutable")
	_, err = client.PatchKind(ctx, c.client, v1, "default", "clock", []byte(`{"apiVersion":"gadgets.example.com/v2"}`))
	if err == nil {
		t.Error("a patch changes the version")
	}
}

// testApply lets two managers apply to one object, in different versions.
func testApply(t *testing.T, c *cluster, v1, v2 *scheme.Kind) {
	ctx := t.Context()
	first := &gadgetsv1.Gadget{
		Metadata: &metav1.ObjectMeta{Name: "shared", Namespace: "default"},
		Spec:     &gadgetsv1.GadgetSpec{Model: "round", Parts: []*gadgetsv1.Part{{Name: "a", Size: 1}}},
	}
	one, two := c.client.WithFieldManager("one"), c.client.WithFieldManager("two")
	if _, result, err := client.Apply(ctx, one, first); err != nil || result != apiv1.ApplyResult_APPLY_RESULT_CREATED {
		t.Fatalf("the first apply: %v, %v", result, err)
	}
	second := &gadgetsv2.Gadget{
		Metadata: &metav1.ObjectMeta{Name: "shared", Namespace: "default"},
		Spec:     &gadgetsv2.GadgetSpec{Count: new(int32(4)), Parts: map[string]int32{"b": 2}},
	}
	merged, result, err := client.Apply(ctx, two, second)
	if err != nil || result != apiv1.ApplyResult_APPLY_RESULT_CONFIGURED {
		t.Fatalf("the apply of version 2: %v, %v", result, err)
	}
	if s := merged.GetSpec(); s.GetCount() != 4 || s.GetParts()["a"] != 1 || s.GetParts()["b"] != 2 || s.GetModel() != "round" {
		t.Errorf("merged to %v", s)
	}
	stored := must[scheme.Object](t)(client.GetKind(ctx, c.client, v1, "default", "shared"))
	versions := map[string]string{}
	for _, e := range stored.GetMetadata().GetManagedFields() {
		versions[e.GetManager()] = e.GetApiVersion()
	}
	if versions["one"] != v1.APIVersion() || versions["two"] != v2.APIVersion() {
		t.Errorf("managed fields are of versions %v", versions)
	}
	second.Spec.Parts["a"] = 7
	if _, _, err := client.Apply(ctx, two, second); apierr.Reason(err) != apierr.ReasonApplyConflict || !strings.Contains(err.Error(), "one") {
		t.Errorf("the part is owned in version 1: %v, want a conflict", err)
	}
	delete(second.Spec.Parts, "a")
	delete(second.Spec.Parts, "b")
	if merged, _, err = client.Apply(ctx, two, second); err != nil || len(merged.GetSpec().GetParts()) != 1 {
		t.Errorf("a part that is no longer applied stays: %v, %v", merged.GetSpec(), err)
	}
	if _, result, err = client.Apply(ctx, two, second); err != nil || result != apiv1.ApplyResult_APPLY_RESULT_UNCHANGED {
		t.Errorf("the same apply again: %v, %v", result, err)
	}
}

func testScale(t *testing.T, c *cluster, v1, v2 *scheme.Kind) {
	ctx, resources := t.Context(), c.client.Resources()
	reference := func(k *scheme.Kind) *apiv1.ObjectReference {
		return &apiv1.ObjectReference{Group: k.Group, Version: k.Version, Kind: k.Name, Namespace: "default", Name: "clock"}
	}
	read := func(k *scheme.Kind) *autoscalingv1.Scale {
		resp, err := resources.Get(ctx, &apiv1.GetRequest{Object: reference(k), Subresource: "scale"})
		scale := &autoscalingv1.Scale{}
		if err == nil {
			err = resp.GetObject().UnmarshalTo(scale)
		}
		if err != nil {
			t.Fatal(err)
		}
		return scale
	}
	gadget := must[scheme.Object](t)(client.GetKind(ctx, c.client, v1, "default", "clock")).(*gadgetsv1.Gadget)
	gadget.Status = &gadgetsv1.GadgetStatus{Replicas: 1, Selector: "app=clock"}
	must[*gadgetsv1.Gadget](t)(client.UpdateStatus(ctx, c.client, gadget))
	scale := read(v1)
	if scale.GetSpec().GetReplicas() != 2 || scale.GetStatus().GetReplicas() != 1 || scale.GetStatus().GetSelector() != "app=clock" {
		t.Errorf("the scale is %v", scale)
	}
	update := func(s *autoscalingv1.Scale) (*apiv1.UpdateResponse, error) {
		return resources.Update(ctx, &apiv1.UpdateRequest{
			Object: must[*anypb.Any](t)(anypb.New(s)), Reference: reference(v1), Subresource: "scale", FieldManager: "scaler",
		})
	}
	stale := proto.CloneOf(scale)
	scale.Spec.Replicas = 5
	resp := must[*apiv1.UpdateResponse](t)(update(scale))
	if name := resp.GetObject().MessageName(); name != "xebec.autoscaling.v1.Scale" {
		t.Errorf("the answer is a %s", name)
	}
	if _, err := update(stale); !apierr.IsConflict(err) {
		t.Errorf("an update of an old scale: %v, want a conflict", err)
	}
	scale = read(v2)
	if scale.GetSpec().GetReplicas() != 5 {
		t.Errorf("the scale in version 2 is %v", scale)
	}
	scale.Metadata.ResourceVersion, scale.Spec.Replicas = "", -1
	_, err := update(scale)
	wantInvalid(t, err, "spec.replicas: Invalid value: -1")
	patched := must[*apiv1.PatchResponse](t)(resources.Patch(ctx, &apiv1.PatchRequest{
		Object: reference(v2), Subresource: "scale", Type: apiv1.PatchType_PATCH_TYPE_MERGE, Patch: []byte(`{"spec":{"replicas":6}}`), FieldManager: "scaler",
	}))
	if err := patched.GetObject().UnmarshalTo(scale); err != nil || scale.GetSpec().GetReplicas() != 6 {
		t.Errorf("a patch of the scale makes %v, %v", scale, err)
	}
	scaled := must[scheme.Object](t)(client.GetKind(ctx, c.client, v1, "default", "clock"))
	if !slices.ContainsFunc(scaled.GetMetadata().GetManagedFields(), func(e *metav1.ManagedFieldsEntry) bool {
		return e.GetManager() == "scaler" && e.GetSubresource() == "scale" && strings.Contains(string(e.GetFieldsV1().GetRaw()), "f:count")
	}) {
		t.Errorf("no manager of the scale in %v", scaled.GetMetadata().GetManagedFields())
	}
}

func testController(t *testing.T, c *cluster, v1 *scheme.Kind) {
	ctx, stop := context.WithCancel(t.Context())
	term := controller.NewTerm(ctx, c.client, nil, controller.NewMetrics(prometheus.NewRegistry()))
	Control(term)
	done := make(chan error, 1)
	go func() { done <- term.Run() }()
	defer func() {
		stop()
		<-done
	}()
	must[scheme.Object](t)(client.PatchKind(ctx, c.client, v1, "default", "clock", []byte(`{"spec":{"replicas":4}}`)))
	eventually(t, "the controller follows the gadget", func() bool {
		o, err := client.GetKind(ctx, c.client, v1, "default", "clock")
		if err != nil {
			return false
		}
		gadget := o.(*gadgetsv1.Gadget)
		return gadget.GetStatus().GetReplicas() == 4 && gadget.GetStatus().GetObservedGeneration() == gadget.GetMetadata().GetGeneration()
	})
}

func testDiscovery(t *testing.T, c *cluster) {
	discovery := apiv1.NewDiscoveryServiceClient(c.conn)
	listed := must[*apiv1.ListKindsResponse](t)(discovery.ListKinds(t.Context(), &apiv1.ListKindsRequest{}))
	var versions []string
	for _, d := range listed.GetKinds() {
		if d.GetGroup() != Group {
			continue
		}
		versions = append(versions, d.GetVersion())
		if d.GetStored() != (d.GetVersion() == "v1") || len(d.GetSubresources()) != 2 || d.GetScale().GetReplicasPath() == "" {
			t.Errorf("version %s is described as %v", d.GetVersion(), d)
		}
	}
	if want := []string{"v2", "v1"}; !slices.Equal(versions, want) {
		t.Errorf("versions %v are listed, want %v", versions, want)
	}
	schema := must[*apiv1.GetSchemaResponse](t)(discovery.GetSchema(t.Context(), &apiv1.GetSchemaRequest{Group: Group, Version: "v2", Kind: "Gadget"}))
	if schema.GetMessage() != "gadgets.v2.Gadget" {
		t.Errorf("the schema of version 2 is of %s", schema.GetMessage())
	}
}

// testManifests writes objects of the kind from manifests, with a command line that was not
// compiled with it.
func testManifests(t *testing.T, c *cluster, v1 *scheme.Kind) {
	manifest := func(version, name, spec string) string {
		return "apiVersion: gadgets.example.com/" + version + "\nkind: Gadget\nmetadata:\n  name: " + name + "\n  labels: {from: manifest}\nspec:\n" + spec + "---\n"
	}
	watch, alarm := manifest("v1", "watch", "  model: oval\n"), manifest("v2", "alarm", "  model: flat\n  count: 3\n  parts: {bell: 4}\n")
	const of = "gadget.gadgets.example.com/"
	for _, tt := range []struct {
		input string
		args  []string
		code  int
		want  []string
	}{
		{watch + alarm, []string{"create", "--dry-run=server"}, 0, []string{of + "watch created (server dry run)\n" + of + "alarm created (server dry run)\n"}},
		{watch, []string{"create"}, 0, []string{of + "watch created\n"}},
		{watch, []string{"create"}, 1, []string{"error: stdin:1: ", "already exists"}},
		{alarm, []string{"apply"}, 0, []string{of + "alarm created\n"}},
		{alarm, []string{"apply"}, 0, []string{of + "alarm unchanged\n"}},
		{alarm, []string{"diff"}, 0, nil},
		{strings.Replace(alarm, "count: 3", "count: 4", 1), []string{"diff"}, 1, []string{"-  count: 3", "+  count: 4"}},
		{watch, []string{"replace"}, 0, []string{of + "watch replaced\n"}},
		{strings.Replace(alarm, "count: 3", "count: 5", 1), []string{"apply", "-o", "yaml"}, 0, []string{"apiVersion: gadgets.example.com/v2", "count: 5"}},
		{manifest("v1", "x", "  model: oval\n") + manifest("v2", "y", "  model: flat\n"), []string{"apply", "--atomic"}, 0,
			[]string{of + "x created\n" + of + "y created\n"}},
		{manifest("v1", "bad", "  modle: oval\n  replicas: many\n"), []string{"apply"}, 1, []string{
			"error: stdin:7: spec.modle: unknown field, did you mean model?\n", `error: stdin:8: spec.replicas: must be a whole number, not the string "many"`}},
		{manifest("v1", "bad", "  model: oval\n  parts:\n  - name: a\n    material: wood\n"), []string{"apply"}, 1,
			[]string{"error: stdin:10: ", "spec.parts[0].material: Unsupported value"}},
		{manifest("v1", "bad", "  model: oval\n  model: flat\n"), []string{"apply", "--validate=strict"}, 1,
			[]string{"error: stdin:8: spec.model: duplicate key, first written on line 7"}},
		{manifest("v3", "bad", "  model: oval\n"), []string{"apply"}, 1, []string{"error: stdin:1: apiVersion: ", "gadgets.example.com/v1"}},
		{strings.Replace(watch, "Gadget", "Gadgte", 1), []string{"apply"}, 1, []string{"error: stdin:2: kind: ", "did you mean Gadget?"}},
		{watch + alarm, []string{"get", "-o", "name"}, 0, []string{of + "watch\n" + of + "alarm\n"}},
		{watch, []string{"describe"}, 0, []string{"Name:", "watch", "API Version:", "gadgets.example.com/v1", "Model:", "oval", "Events:"}},
		{watch, []string{"scale", "--replicas=7"}, 0, []string{of + "watch scaled\n"}},
		{watch, []string{"annotate", "note=kept"}, 0, []string{of + "watch annotated\n"}},
		{watch + alarm, []string{"delete"}, 0, []string{of + "watch deleted\n" + of + "alarm deleted\n"}},
	} {
		args := append(slices.Clone(tt.args[:1:1]), append([]string{"-f", "-"}, tt.args[1:]...)...)
		out, code := c.runInput(t, tt.input, args...)
		if code != tt.code {
			t.Errorf("%q: exit code %d, want %d:\n%s", args, code, tt.code, out)
		}
		for _, text := range tt.want {
			if !strings.Contains(out, text) {
				t.Errorf("%q: %q is missing in\n%s", args, text, out)
			}
		}
	}
	for _, args := range [][]string{{"delete", "gd", "-l", "from=manifest", "--dry-run=server"}, {"delete", "gd", "-l", "from=manifest"}} {
		out, code := c.run(t, args...)
		for _, name := range []string{"x", "y"} {
			if code != 0 || !strings.Contains(out, of+name+" deleted") {
				t.Errorf("%q: exit code %d, %s is not deleted:\n%s", args, code, name, out)
			}
		}
	}
	if left, _, err := client.ListKind(t.Context(), c.client, v1, client.ListOptions{LabelSelector: "from=manifest"}); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func testCommandLine(t *testing.T, c *cluster, v1 *scheme.Kind) {
	t.Setenv("XEBEC_EDITOR", "sed -i s/app=x/app=y/")
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"get", "gd"}, []string{"NAME", "MODEL", "clock", "round", "other", "square"}},
		{[]string{"get", "gadgets", "--field-selector", "spec.model=square", "-o", "name"}, []string{"gadget.gadgets.example.com/other"}},
		{[]string{"get", "gadget/clock", "-o", "yaml"}, []string{"apiVersion: gadgets.example.com/v1", "model: round", "name: face"}},
		{[]string{"describe", "gadget", "clock"}, []string{"Name:", "clock", "Model:", "round", "Events:"}},
		{[]string{"explain", "gadget.spec"}, []string{
			"GROUP:    gadgets.example.com", "GadgetSpec is the wanted state of a Gadget.", "replicas <integer>", "How many there should be.", "parts <[]Part>",
		}},
		{[]string{"explain", "gadgets.spec", "--api-version=gadgets.example.com/v2"}, []string{"VERSION:  v2", "count <integer>"}},
		{[]string{"api-resources", "--api-group", "gadgets.example.com"}, []string{"gadgets", "gd", "gadgets.example.com/v1", "Gadget"}},
		{[]string{"annotate", "gadget/clock", "note=old"}, []string{"gadget.gadgets.example.com/clock annotated"}},
		{[]string{"label", "gadget/clock", "tier=front"}, []string{"gadget.gadgets.example.com/clock labeled"}},
		{[]string{"get", "gadgets", "-l", "tier=front", "-o", "name"}, []string{"gadget.gadgets.example.com/clock"}},
		{[]string{"patch", "gadget", "clock", "-p", `{"spec":{"selector":"app=x"}}`}, []string{"gadget.gadgets.example.com/clock patched"}},
		{[]string{"scale", "gadget/clock", "--replicas=9"}, []string{"gadget.gadgets.example.com/clock scaled"}},
		{[]string{"edit", "gadget", "clock"}, []string{"gadget.gadgets.example.com/clock edited"}},
		{[]string{"delete", "gadget", "other"}, []string{"gadget.gadgets.example.com/other\" deleted"}},
	} {
		out, code := c.run(t, tt.args...)
		if code != 0 {
			t.Errorf("%q: exit code %d: %s", tt.args, code, out)
			continue
		}
		for _, text := range tt.want {
			if !strings.Contains(out, strings.TrimSuffix(text, "\" deleted")) {
				t.Errorf("%q: %q is missing in\n%s", tt.args, text, out)
			}
		}
	}
	gadget := must[scheme.Object](t)(client.GetKind(t.Context(), c.client, v1, "default", "clock")).(*gadgetsv1.Gadget)
	if gadget.GetSpec().GetReplicas() != 9 || gadget.GetSpec().GetSelector() != "app=y" || gadget.GetMetadata().GetLabels()["tier"] != "front" {
		t.Errorf("after the commands the gadget is %v", gadget)
	}
	if out, code := c.run(t, "scale", "namespace/default", "--replicas=2"); code != 2 || !strings.Contains(out, "kind namespace has no replicas") {
		t.Errorf("scale of what has no replicas: exit code %d: %s", code, out)
	}
}

// testRemoval removes the kind while it is watched.
func testRemoval(t *testing.T, c *cluster, kinds []*scheme.Kind) {
	ctx := t.Context()
	for event, err := range client.WatchKind(ctx, c.client, kinds[0], client.WatchOptions{}) {
		if err != nil {
			if !apierr.IsNotFound(err) {
				t.Errorf("the watch of a removed kind ended with %v", err)
			}
			break
		}
		if event.InitialStateEnd {
			if err := c.kinds.Unregister(kinds...); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := client.GetKind(ctx, c.client, kinds[0], "default", "clock"); err == nil || !strings.Contains(err.Error(), "no kind") {
		t.Errorf("get of a removed kind: %v", err)
	}
	if err := c.kinds.Register(kinds...); err != nil {
		t.Fatal(err)
	}
	must[scheme.Object](t)(client.GetKind(ctx, c.client, kinds[1], "default", "clock"))
}

// TestFilesOfAKind counts the files that the kind is made of. Nothing else in the repository may
// know of it.
func TestFilesOfAKind(t *testing.T) {
	var written []string
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !strings.HasSuffix(path, "_test.go") && !strings.HasSuffix(path, ".pb.go") && path != "buf.gen.yaml" {
			written = append(written, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"controller.go",
		"kind.go",
		"proto/gadgets/v1/gadget.proto",
		"proto/gadgets/v2/gadget.proto",
		"testdata/gadget.json",
	}
	if !slices.Equal(written, want) {
		t.Errorf("the kind is made of\n%s\nwant\n%s", strings.Join(written, "\n"), strings.Join(want, "\n"))
	}
	for _, dir := range []string{"internal", "services", "cli", "agent", "cmd", "proto"} {
		err := filepath.WalkDir(filepath.Join("../..", dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") {
				return err
			}
			text, err := os.ReadFile(path)
			if bytes.Contains(text, []byte("adget")) && !strings.HasSuffix(path, "_test.go") {
				t.Errorf("%s knows of gadgets", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
