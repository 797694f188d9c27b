package conformance_test

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/codec/tree"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/scheme"
)

// TestRoundTrip sends randomly filled objects of Kubernetes' types through ours and back, as JSON,
// as YAML and as protobuf. Half of the rounds set every field there is; the others leave some out,
// also within lists.
func TestRoundTrip(t *testing.T) {
	const rounds = 20
	s := kubernetesScheme(t)
	for _, k := range mirrored() {
		t.Run(k.String(), func(t *testing.T) {
			for seed := range uint64(rounds) {
				f := &filler{rand: rand.New(rand.NewPCG(seed, 0)), share: 1}
				if seed%2 == 1 {
					f.share = 0.6
				}
				theirs := counterpart(t, s, k)
				f.fill(reflect.ValueOf(theirs).Elem())
				theirs.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{Group: k.Group, Version: k.Version, Kind: k.Name})

				fromJSON := throughJSON(t, counterpart(t, s, k), theirs)
				throughYAML(t, fromJSON)
				fromProto := throughProto(t, counterpart(t, s, k), theirs, k)
				if f.share == 1 {
					if diff := cmp.Diff(fromJSON, fromProto, protocmp.Transform()); diff != "" {
						t.Errorf("seed %d: JSON and protobuf make different messages (-JSON +protobuf):\n%s", seed, diff)
					}
				}
				if diff := cmp.Diff(withoutEmpty(t, fromJSON), withoutEmpty(t, fromProto)); diff != "" {
					t.Errorf("seed %d: JSON and protobuf carry different values (-JSON +protobuf):\n%s", seed, diff)
				}
				if t.Failed() {
					t.FailNow()
				}
			}
		})
	}
}

// throughJSON takes Kubernetes' JSON into our message and back into theirs, which must be what it
// was.
func throughJSON(t *testing.T, back, theirs kubernetesObject) scheme.Object {
	t.Helper()
	text, err := json.Marshal(theirs)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := codec.Unmarshal(text)
	if err != nil {
		t.Fatalf("read Kubernetes' JSON: %v\n%s", err, text)
	}
	written, err := codec.Marshal(ours)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(written, back); err != nil {
		t.Fatalf("Kubernetes reads our JSON: %v\n%s", err, written)
	}
	if !equality.Semantic.DeepEqual(theirs, back) {
		t.Errorf("JSON changed the object (-before +after):\n%s", cmp.Diff(string(text), string(written)))
	}
	return ours
}

func throughYAML(t *testing.T, ours scheme.Object) {
	t.Helper()
	text, err := codec.MarshalYAML(ours)
	if err != nil {
		t.Fatal(err)
	}
	n, err := tree.ParseYAML(strings.NewReader(string(text)))
	if err != nil || len(n) != 1 {
		t.Fatalf("read our YAML: %v\n%s", err, text)
	}
	back, err := codec.Decode(n[0])
	if err != nil {
		t.Fatalf("read our YAML: %v\n%s", err, text)
	}
	if diff := cmp.Diff(ours, back, protocmp.Transform()); diff != "" {
		t.Errorf("YAML changed the object (-before +after):\n%s", diff)
	}
	// The decoder of manifests also requires a name.
	if _, err := manifest.Decode("m.yaml", strings.NewReader(string(text))); err != nil && !strings.Contains(err.Error(), "metadata.name") {
		t.Errorf("read our YAML as a manifest: %v", err)
	}
}

// throughProto takes Kubernetes' protobuf into our message and back into theirs, which must be what
// it was.
func throughProto(t *testing.T, back, theirs kubernetesObject, k *scheme.Kind) scheme.Object {
	t.Helper()
	wire, err := theirs.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	ours := k.New()
	if err := (proto.UnmarshalOptions{}).Unmarshal(wire, ours); err != nil {
		t.Fatalf("read Kubernetes' protobuf: %v", err)
	}
	noUnknown(t, ours)
	written, err := proto.Marshal(ours)
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Unmarshal(written); err != nil {
		t.Fatalf("Kubernetes reads our protobuf: %v", err)
	}
	back.GetObjectKind().SetGroupVersionKind(theirs.GetObjectKind().GroupVersionKind())
	if !equality.Semantic.DeepEqual(theirs, back) {
		t.Errorf("protobuf changed the object (-before +after):\n%s", cmp.Diff(asJSON(t, theirs), asJSON(t, back)))
	}
	return ours
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// withoutEmpty returns the message as JSON without empty objects: Kubernetes' protobuf writes
// messages that are not behind a pointer even when they are empty, and its JSON partly does not.
func withoutEmpty(t *testing.T, m proto.Message) string {
	t.Helper()
	n, err := codec.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	prune(n)
	return string(n.JSON())
}

func prune(n *tree.Node) {
	for _, item := range n.Items {
		prune(item)
	}
	n.Members = slices.DeleteFunc(n.Members, func(m tree.Member) bool {
		prune(m.Value)
		return m.Value.Kind == tree.Map && len(m.Value.Members) == 0
	})
}
