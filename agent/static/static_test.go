package static

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// pods is the pods of a node, which end when the test says so.
type pods struct {
	all     map[string]*corev1.Pod
	removed map[string]bool
	// confirmed are those that were confirmed.
	confirmed []string
}

func (p *pods) Update(pod *corev1.Pod) { p.all[pod.GetMetadata().GetUid()] = pod }
func (p *pods) Remove(uid string)      { p.removed[uid] = true }
func (p *pods) Confirm(uid string) {
	p.confirmed = append(p.confirmed, p.all[uid].GetMetadata().GetName())
}
func (p *pods) Pods() []*corev1.Pod { return slices.Collect(maps.Values(p.all)) }

// end ends what was removed.
func (p *pods) end() {
	for uid := range p.removed {
		delete(p.all, uid)
	}
	clear(p.removed)
}

func (p *pods) names() string {
	var out []string
	for _, pod := range p.all {
		name := pod.GetMetadata().GetNamespace() + "/" + pod.GetMetadata().GetName() + "=" + pod.GetSpec().GetContainers()[0].GetImage()
		if p.removed[pod.GetMetadata().GetUid()] {
			name += "-ending"
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

type directory struct {
	*testing.T
	dir      string
	pods     *pods
	source   *Source
	problems string
	writes   int
}

func start(t *testing.T) *directory {
	d := &directory{T: t, dir: t.TempDir(), pods: &pods{all: map[string]*corev1.Pod{}, removed: map[string]bool{}}}
	d.restart()
	return d
}

// restart starts again, as the next agent does.
func (d *directory) restart() {
	d.source = New(Config{Dir: d.dir, Node: "node-1", Pods: d.pods, Problems: func(s string) { d.problems = s }, Log: zap.NewNop()})
}

func (d *directory) write(name, text string) {
	d.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.Fatal(err)
	}
	// Two writes within the clock's precision would look like one.
	d.writes++
	at := time.Now().Add(time.Duration(d.writes) * time.Second)
	if err := os.Chtimes(path, at, at); err != nil {
		d.Fatal(err)
	}
}

// expect reads the directory and compares what runs.
func (d *directory) expect(running, problem string) {
	d.Helper()
	d.source.Sync()
	if got := d.pods.names(); got != running {
		d.Errorf("running %q, want %q", got, running)
	}
	if (problem == "") != (d.problems == "") || !strings.Contains(d.problems, problem) {
		d.Errorf("problems %q, want %q", d.problems, problem)
	}
}

func manifestOf(name, image string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\nspec:\n  containers:\n  - name: main\n    image: %s\n", name, image)
}

func TestDirectory(t *testing.T) {
	d := start(t)
	d.expect("", "")
	d.write("web.yaml", manifestOf("web", "web:1"))
	d.write("notes.txt", "no manifest")
	d.write(".hidden.yaml", "no manifest")
	d.write("two.json", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"two","namespace":"kube-system"},"spec":{"containers":[{"name":"a","image":"two:1"}]}}`)
	d.expect("default/web-node-1=web:1 kube-system/two-node-1=two:1", "")
	pod := d.pods.Pods()[0]
	if !IsStatic(pod) || pod.GetSpec().GetNodeName() != "node-1" || pod.GetSpec().GetServiceAccountName() != "" || pod.GetSpec().GetRestartPolicy() != "Always" || pod.GetMetadata().GetUid() == "" {
		t.Errorf("a static pod is %v", pod)
	}

	// A change is a new pod, which begins when the old one has ended; a typo is none.
	d.write("web.yaml", manifestOf("web", "web:2"))
	d.expect("default/web-node-1=web:1-ending kube-system/two-node-1=two:1", "")
	d.pods.end()
	d.expect("default/web-node-1=web:2 kube-system/two-node-1=two:1", "")
	d.write("web.yaml", strings.Replace(manifestOf("web", "web:3"), "    image", "    imag", 1))
	d.expect("default/web-node-1=web:2 kube-system/two-node-1=two:1", "web.yaml:8: ")
	// Neither is one for the next agent, which has never read the file when it was right.
	d.restart()
	d.expect("default/web-node-1=web:2 kube-system/two-node-1=two:1", "imag: unknown field, did you mean image?")
	slices.Sort(d.pods.confirmed)
	if got := slices.Compact(d.pods.confirmed); !slices.Equal(got, []string{"two-node-1", "web-node-1"}) {
		t.Errorf("confirmed are %q", got)
	}
	d.write("web.yaml", manifestOf("web", "web:2"))
	d.expect("default/web-node-1=web:2 kube-system/two-node-1=two:1", "")

	if err := os.Remove(filepath.Join(d.dir, "two.json")); err != nil {
		t.Fatal(err)
	}
	d.restart()
	d.pods.confirmed = nil
	d.expect("default/web-node-1=web:2 kube-system/two-node-1=two:1-ending", "")
	if slices.Contains(d.pods.confirmed, "two-node-1") {
		t.Error("a pod was confirmed whose file is gone")
	}
	d.pods.end()
	d.expect("default/web-node-1=web:2", "")
}

func TestInvalidManifests(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"no YAML":      {"a: [", "pod.yaml:2: not valid YAML"},
		"another kind": {"\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n", "pod.yaml:2: unsupported kind ConfigMap: want Pod"},
		"no image":     {strings.Replace(manifestOf("a", "x"), "    image: x\n", "", 1), "pod.yaml:1: spec.containers[0].image: Required value"},
		"no name":      {strings.Replace(manifestOf("", "x"), "name: \n", "labels: {}\n", 1), "metadata.name: required"},
		"other node":   {strings.Replace(manifestOf("a", "x"), "spec:", "spec:\n  nodeName: node-2", 1), "this is node node-1, not node-2"},
		"secret":       {manifestOf("a", "x") + "    envFrom:\n    - secretRef:\n        name: s\n", "static pods must not reference objects of the control plane: Secret"},
		"twice":        {manifestOf("a", "x") + "---\n" + manifestOf("a", "y"), "pod default/a-node-1 is also in pod.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t)
			d.write("pod.yaml", tt.text)
			d.write("right.yaml", manifestOf("right", "r:1"))
			d.source.Sync()
			if !strings.Contains(d.problems, tt.want) {
				t.Errorf("problems %q, want %q", d.problems, tt.want)
			}
			if !strings.Contains(d.pods.names(), "default/right-node-1=r:1") {
				t.Errorf("running %q", d.pods.names())
			}
		})
	}
}

func TestMirrors(t *testing.T) {
	d := start(t)
	server, c := clienttest.Start(t)
	clienttest.Seed(server, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "default"}})
	stored := map[string]*corev1.Pod{}
	m := &Mirrors{Source: d.source, Client: c, Node: "node-1", NodeUID: func() string { return "u" }, Log: zap.NewNop(),
		Stored: func() []*corev1.Pod { return slices.Collect(maps.Values(stored)) }}
	// seen makes the node know what the API has.
	seen := func() *corev1.Pod {
		t.Helper()
		clear(stored)
		p, err := get(t, c)
		if err != nil {
			t.Fatal(err)
		}
		stored[p.GetMetadata().GetUid()] = p
		return p
	}
	sync := func() {
		d.source.Sync()
		d.pods.end()
		d.source.Sync()
		pods, _ := d.source.Pods()
		m.sync(t.Context(), pods)
	}
	d.write("web.yaml", manifestOf("web", "web:1"))
	sync()
	first := seen()
	static := d.pods.Pods()[0]
	if !core.IsMirrorPod(first) || hashOf(first) != static.GetMetadata().GetUid() || first.GetSpec().GetServiceAccountName() != "" || first.GetMetadata().GetOwnerReferences()[0].GetKind() != "Node" {
		t.Errorf("the mirror is %v", first)
	}
	static.Status = &corev1.PodStatus{Phase: "Running"}
	written, err := m.UpdateStatus(t.Context(), static)
	if err != nil || written.GetMetadata().GetUid() != static.GetMetadata().GetUid() || seen().GetStatus().GetPhase() != "Running" {
		t.Errorf("the status was written as %v, %v", written, err)
	}

	// Who deletes the mirror gets another one.
	clienttest.Remove(server, first)
	clear(stored)
	if _, err := m.UpdateStatus(t.Context(), static); err == nil {
		t.Error("a status was written without a mirror")
	}
	sync()
	if again := seen(); again.GetMetadata().GetUid() == first.GetMetadata().GetUid() {
		t.Error("the mirror did not come again")
	}
	d.write("web.yaml", manifestOf("web", "web:2"))
	sync()
	if now := seen(); now.GetSpec().GetContainers()[0].GetImage() != "web:2" || hashOf(now) != d.pods.Pods()[0].GetMetadata().GetUid() {
		t.Errorf("after a change the mirror is %v", now)
	}
	if err := os.Remove(filepath.Join(d.dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	sync()
	if _, err := get(t, c); err == nil {
		t.Error("the mirror outlives the file")
	}
}

func get(t *testing.T, c *client.Client) (*corev1.Pod, error) {
	return client.Get[*corev1.Pod](t.Context(), c, "default", "web-node-1")
}
