package kinds_test

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestMessages checks what a scheme does not check of compiled-in kinds.
func TestMessages(t *testing.T) {
	for _, k := range kinds.All() {
		if err := k.CheckMessage(); err != nil {
			t.Errorf("%s: %v", k.GVK(), err)
		}
	}
}

// TestFieldPaths holds the numbers of selectable fields against the names that they are selected
// by. Kubernetes selects Jobs by status.succeeded under another name.
func TestFieldPaths(t *testing.T) {
	renamed := map[string]string{"status.successful": "status.succeeded"}
	for _, k := range kinds.All() {
		for _, name := range k.SelectableFields() {
			path, _ := k.FieldPath(name)
			d := k.New().ProtoReflect().Descriptor()
			var got []string
			for _, n := range path {
				f := d.Fields().ByNumber(n)
				if f == nil {
					t.Fatalf("%s %s: no field %d in %s", k, name, n, d.FullName())
				}
				got = append(got, f.JSONName())
				d = f.Message()
			}
			if want := cmp.Or(renamed[name], name); strings.Join(got, ".") != want {
				t.Errorf("%s: the path of %s leads to %s", k, name, strings.Join(got, "."))
			}
		}
	}
}

func TestFieldString(t *testing.T) {
	pod := &corev1.Pod{
		Metadata: kindtest.Meta("web"),
		Spec:     &corev1.PodSpec{NodeName: "node-1", HostNetwork: true, RestartPolicy: "Always"},
		Status:   &corev1.PodStatus{Phase: "Running", PodIp: "10.244.1.7"},
	}
	raw, err := proto.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	k := kinds.Of(pod)
	for path, want := range map[string]string{
		"metadata.name": "web", "metadata.namespace": "default", "spec.nodeName": "node-1", "spec.hostNetwork": "true",
		"spec.restartPolicy": "Always", "spec.schedulerName": "", "status.phase": "Running", "status.podIP": "10.244.1.7",
	} {
		if got, err := scheme.FieldString(raw, k, path); err != nil || got != want {
			t.Errorf("%s = %q, %v; want %q", path, got, err, want)
		}
	}
	for _, empty := range [][]byte{nil, {0x12, 0}} {
		if got, err := scheme.FieldString(empty, k, "spec.hostNetwork"); err != nil || got != "false" {
			t.Errorf("hostNetwork of an empty pod is %q, %v", got, err)
		}
	}
	if _, err := scheme.FieldString(raw, k, "spec.hostname"); err == nil {
		t.Error("a field that can't be selected is read")
	}
	if _, err := scheme.FieldString(raw[:len(raw)-3], k, "status.podIP"); err == nil {
		t.Error("truncated bytes are read")
	}

	// A second occurrence of a message merges into the first, also below the top.
	again, err := proto.Marshal(&corev1.Pod{Spec: &corev1.PodSpec{NodeName: "node-2"}})
	if err != nil {
		t.Fatal(err)
	}
	raw = append(raw, again...)
	if got, _ := scheme.FieldString(raw, k, "spec.nodeName"); got != "node-2" {
		t.Errorf("merged nodeName = %q", got)
	}
	if got, _ := scheme.FieldString(raw, k, "spec.restartPolicy"); got != "Always" {
		t.Errorf("restartPolicy is lost in the merge: %q", got)
	}
}

func FuzzWire(f *testing.F) {
	raw, _ := proto.Marshal(&corev1.Pod{Metadata: kindtest.Meta("web"), Spec: &corev1.PodSpec{NodeName: "n", HostNetwork: true}, Status: &corev1.PodStatus{Phase: "Running"}})
	f.Add(raw)
	f.Add(raw[:7])
	k, _ := kinds.ByName("pods")
	f.Fuzz(func(t *testing.T, raw []byte) {
		pod := &corev1.Pod{}
		if proto.Unmarshal(raw, pod) != nil {
			return
		}
		// Whatever protobuf decodes as a whole, the shortcuts read the same.
		for path, want := range map[string]string{
			"metadata.name": pod.GetMetadata().GetName(), "spec.nodeName": pod.GetSpec().GetNodeName(),
			"spec.hostNetwork": fmt.Sprint(pod.GetSpec().GetHostNetwork()), "status.phase": pod.GetStatus().GetPhase(),
		} {
			if got, err := scheme.FieldString(raw, k, path); err != nil || got != want {
				t.Errorf("%s = %q, %v; want %q", path, got, err, want)
			}
		}
	})
}
