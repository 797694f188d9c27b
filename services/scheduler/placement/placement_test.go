package placement

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/codec"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func newNode(t *testing.T, name, spec string) *corev1.Node {
	t.Helper()
	o, err := codec.Unmarshal([]byte(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"` + name + `","labels":{"kubernetes.io/hostname":"` + name + `"}},` + spec + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return o.(*corev1.Node)
}

func newPod(t *testing.T, name, node, spec string) *Pod {
	t.Helper()
	o, err := codec.Unmarshal([]byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"` + name + `","uid":"` + name + `","namespace":"default",
		"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"rs","uid":"rs","controller":true}]},"spec":{"nodeName":"` + node + `",` + spec + `}}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPod(o.(*corev1.Pod))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	big   = `"status":{"allocatable":{"cpu":"4","memory":"8Gi","pods":"110"}}`
	small = `"status":{"allocatable":{"cpu":"1","memory":"1Gi","pods":"2"}}`
)

func container(requests string) string {
	return `"containers":[{"name":"c","image":"echo:1","resources":{"requests":{` + requests + `}}}]`
}

func TestChoose(t *testing.T) {
	tests := []struct {
		name  string
		nodes map[string]string
		on    map[string]string // pods already placed: "name@node" -> spec
		pod   string
		want  string // the node, or the text of the refusal
	}{
		{"the emptier node", map[string]string{"a": big, "b": big}, map[string]string{"x@a": container(`"cpu":"1"`)}, container(`"cpu":"1"`), "b"},
		{"no nodes", nil, nil, container(`"cpu":"1"`), "no nodes available to schedule pods"},
		{"too little cpu", map[string]string{"a": small}, nil, container(`"cpu":"1500m"`), "0/1 nodes are available: 1 Insufficient cpu."},
		{"requests add up", map[string]string{"a": small}, map[string]string{"x@a": container(`"cpu":"600m"`)}, container(`"cpu":"600m"`), "0/1 nodes are available: 1 Insufficient cpu."},
		{"exactly what is left", map[string]string{"a": small}, map[string]string{"x@a": container(`"cpu":"600m"`)}, container(`"cpu":"400m"`), "a"},
		{"as a whole, not by containers", map[string]string{"a": small}, nil, `"resources":{"requests":{"cpu":"1500m"}},` + container(`"cpu":"100m"`), "0/1 nodes are available: 1 Insufficient cpu."},
		{"as a whole, others by containers", map[string]string{"a": small}, nil, `"resources":{"requests":{"cpu":"1"}},` + container(`"memory":"2Gi"`), "0/1 nodes are available: 1 Insufficient memory."},
		{"a sidecar counts beside the others", map[string]string{"a": small}, nil, `"initContainers":[{"name":"s","restartPolicy":"Always","resources":{"requests":{"cpu":"600m"}}}],` + container(`"cpu":"600m"`), "0/1 nodes are available: 1 Insufficient cpu."},
		{"an init container counts beside the sidecars before it", map[string]string{"a": small}, nil, `"initContainers":[{"name":"s","restartPolicy":"Always","resources":{"requests":{"cpu":"600m"}}},{"name":"i","resources":{"requests":{"cpu":"500m"}}}],` + container(``), "0/1 nodes are available: 1 Insufficient cpu."},
		{"an init container alone", map[string]string{"a": small}, nil, `"initContainers":[{"name":"i","resources":{"requests":{"cpu":"900m"}}},{"name":"s","restartPolicy":"Always","resources":{"requests":{"cpu":"600m"}}}],` + container(`"cpu":"400m"`), "a"},
		{"too many pods", map[string]string{"a": small}, map[string]string{"x@a": container(``), "y@a": container(``)}, container(``), "0/1 nodes are available: 1 Too many pods."},
		{"a cordoned node", map[string]string{"a": `"spec":{"unschedulable":true},` + big, "b": small}, nil, container(``), "b"},
		{"node selector", map[string]string{"a": big, "b": small}, nil, `"nodeSelector":{"kubernetes.io/hostname":"b"},` + container(``), "b"},
		{"node selector matches none", map[string]string{"a": big}, nil, `"nodeSelector":{"disk":"ssd"},` + container(``), "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."},
		{"a taint", map[string]string{"a": `"spec":{"taints":[{"key":"k","value":"v","effect":"NoSchedule"}]},` + big}, nil, container(``), "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}."},
		{"a tolerated taint", map[string]string{"a": `"spec":{"taints":[{"key":"k","value":"v","effect":"NoSchedule"}]},` + big}, nil, `"tolerations":[{"key":"k","operator":"Equal","value":"v","effect":"NoSchedule"}],` + container(``), "a"},
		{"another value does not tolerate", map[string]string{"a": `"spec":{"taints":[{"key":"k","value":"v","effect":"NoSchedule"}]},` + big}, nil, `"tolerations":[{"key":"k","value":"w"}],` + container(``), "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}."},
		{"a tolerance of everything", map[string]string{"a": `"spec":{"taints":[{"key":"k","value":"v","effect":"NoExecute"}]},` + big}, nil, `"tolerations":[{"operator":"Exists"}],` + container(``), "a"},
		{"better without a soft taint", map[string]string{"a": `"spec":{"taints":[{"key":"k","effect":"PreferNoSchedule"}]},` + big, "b": big}, nil, container(``), "b"},
		{"a host port that is taken", map[string]string{"a": big}, map[string]string{"x@a": `"containers":[{"name":"c","image":"i","ports":[{"containerPort":80,"hostPort":80,"protocol":"TCP"}]}]`},
			`"containers":[{"name":"c","image":"i","ports":[{"containerPort":81,"hostPort":80,"protocol":"TCP"}]}]`, "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."},
		{"the same port of another protocol", map[string]string{"a": big}, map[string]string{"x@a": `"containers":[{"name":"c","image":"i","ports":[{"containerPort":80,"hostPort":80,"protocol":"TCP"}]}]`},
			`"containers":[{"name":"c","image":"i","ports":[{"containerPort":81,"hostPort":80,"protocol":"UDP"}]}]`, "a"},
		{"the node with the image", map[string]string{"a": big, "b": `"status":{"allocatable":{"cpu":"4","memory":"8Gi","pods":"110"},"images":[{"names":["docker.io/library/echo:1"]}]}`}, nil, container(``), "b"},
		{"each lacking resource counts", map[string]string{"a": small, "b": big}, nil, container(`"cpu":"9","memory":"2Gi"`), "0/2 nodes are available: 1 Insufficient memory, 2 Insufficient cpu."},
		{"reasons are counted", map[string]string{"a": small, "b": small, "c": `"spec":{"unschedulable":true},` + big}, nil, container(`"memory":"2Gi"`), "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient memory."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := NewState()
			for name, spec := range tt.nodes {
				if err := s.SetNode(newNode(t, name, spec)); err != nil {
					t.Fatal(err)
				}
			}
			for at, spec := range tt.on {
				name, node, _ := strings.Cut(at, "@")
				s.Place(newPod(t, name, node, spec), node)
			}
			p := newPod(t, "p", "", tt.pod)
			got, err := s.Choose(p)
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			checkExplain(t, s, p, got, err)
		})
	}
}

// checkExplain holds the table against the decision.
func checkExplain(t *testing.T, s *State, p *Pod, chosen string, err error) {
	t.Helper()
	rows := s.Explain(p)
	for _, r := range rows {
		if (r.RefusedBy == "") != (r.Reason == "") || (r.RefusedBy == "") == (r.Scores == nil) {
			t.Errorf("row %+v is neither refused with a reason nor scored", r)
		}
		for _, sc := range r.Scores {
			if sc.Score < 0 || sc.Score > 10 {
				t.Errorf("%s on %s is %v, not within 0 to 10", sc.Name, r.Node, sc.Score)
			}
		}
	}
	var refusals *Refusals
	if errors.As(err, &refusals) {
		if slices.ContainsFunc(rows, func(v Verdict) bool { return v.RefusedBy == "" }) {
			t.Errorf("the pod was refused everywhere, but the table has a node: %+v", rows)
		}
		return
	}
	if rows[0].Node != chosen && rows[0].Total > rows[slices.IndexFunc(rows, func(v Verdict) bool { return v.Node == chosen })].Total+1e-9 {
		t.Errorf("%s was chosen, but the table has %s above it: %+v", chosen, rows[0].Node, rows)
	}
}

// TestSpread places a workload on equal nodes and expects it spread evenly.
func TestSpread(t *testing.T) {
	s := NewState()
	for i := range 10 {
		if err := s.SetNode(newNode(t, fmt.Sprintf("n%d", i), big)); err != nil {
			t.Fatal(err)
		}
	}
	on := map[string]int{}
	for i := range 100 {
		p := newPod(t, fmt.Sprintf("p%d", i), "", container(`"cpu":"100m","memory":"64Mi"`))
		node, err := s.Choose(p)
		if err != nil {
			t.Fatal(err)
		}
		s.Place(p, node)
		on[node]++
	}
	for node, n := range on {
		if n != 10 {
			t.Errorf("%s has %d pods, want 10", node, n)
		}
	}
}

// TestAccounting moves pods about and expects the counts to come out even.
func TestAccounting(t *testing.T) {
	s := NewState()
	if err := s.SetNode(newNode(t, "a", small)); err != nil {
		t.Fatal(err)
	}
	x, y := newPod(t, "x", "", container(`"cpu":"1"`)), newPod(t, "y", "", container(`"cpu":"1"`))
	s.Place(x, "a")
	s.Place(x, "a") // said twice
	if _, err := s.Choose(y); err == nil {
		t.Fatal("the node is full, but y was placed")
	}
	s.Remove("x")
	s.Remove("x")
	if node, err := s.Choose(y); err != nil || node != "a" {
		t.Fatalf("after x went: %q, %v", node, err)
	}
	// A pod on a node that is not known yet counts when the node appears.
	s.Place(newPod(t, "z", "b", container(`"cpu":"1"`)), "b")
	if err := s.SetNode(newNode(t, "b", small)); err != nil {
		t.Fatal(err)
	}
	s.DeleteNode("a")
	if node, err := s.Choose(y); err == nil {
		t.Errorf("y was placed on %s, which is full", node)
	}
}

func TestNormalImage(t *testing.T) {
	for in, want := range map[string]string{
		"echo": "docker.io/library/echo:latest", "echo:1": "docker.io/library/echo:1", "me/echo": "docker.io/me/echo:latest",
		"docker.io/echo:1": "docker.io/library/echo:1", "localhost:5000/echo": "localhost:5000/echo:latest",
		"r.example/a/b@sha256:00": "r.example/a/b@sha256:00",
	} {
		if got := normalImage(in); got != want {
			t.Errorf("normalImage(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestResized counts a pod whose resources are being changed for what it asks for or has been granted, whichever is more.
func TestResized(t *testing.T) {
	whole := func(conditions string) string {
		return `"resources":{"requests":{"cpu":"2","memory":"1Gi"}},"containers":[{"name":"a","image":"a","resources":{"requests":{"cpu":"1","memory":"1Gi"}}}]},
			"status":{"allocatedResources":{"cpu":"1500m","memory":"3Gi"},"conditions":[` + conditions + `]`
	}
	container := func(conditions string) string {
		return `"containers":[{"name":"a","image":"a","resources":{"requests":{"cpu":"2","memory":"1Gi"}}}]},
			"status":{"containerStatuses":[{"name":"a","allocatedResources":{"cpu":"1500m","memory":"3Gi"}}],"conditions":[` + conditions + `]`
	}
	sidecar := func(conditions string) string {
		return `"containers":[{"name":"a","image":"a"}],"initContainers":[{"name":"s","image":"a","restartPolicy":"Always","resources":{"requests":{"cpu":"2","memory":"1Gi"}}}]},
			"status":{"initContainerStatuses":[{"name":"s","allocatedResources":{"cpu":"1","memory":"1Gi"},"resources":{"requests":{"cpu":"1500m","memory":"3Gi"}}}],"conditions":[` + conditions + `]`
	}
	inForce := func(conditions string) string {
		return `"containers":[{"name":"a","image":"a","resources":{"requests":{"cpu":"2","memory":"1Gi"}}}]},
			"status":{"containerStatuses":[{"name":"a","allocatedResources":{"cpu":"1","memory":"1Gi"},"resources":{"requests":{"cpu":"1500m","memory":"3Gi"}}}],"conditions":[` + conditions + `]`
	}
	const infeasible = `{"type":"PodResizePending","status":"True","reason":"Infeasible"}`
	for name, c := range map[string]struct {
		spec string
		cpu  int64
	}{
		"the pod": {whole(""), 2000}, "the pod, in vain": {whole(infeasible), 1500}, "a container": {container(""), 2000}, "a container, in vain": {container(infeasible), 1500},
		"a sidecar": {sidecar(""), 2000}, "a sidecar, in vain": {sidecar(infeasible), 1500},
		"a container that is still larger": {inForce(""), 2000}, "a container that is still larger, in vain": {inForce(infeasible), 1500},
	} {
		if got := newPod(t, "a", "n", c.spec).requests; got["cpu"] != c.cpu || got["memory"] != 3<<30 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestPlaceFollowsResizes counts a bound pod again when its resources change, and reports when that makes room.
func TestPlaceFollowsResizes(t *testing.T) {
	s := NewState()
	if err := s.SetNode(newNode(t, "n", small)); err != nil {
		t.Fatal(err)
	}
	of := func(cpu string) *Pod { return newPod(t, "a", "n", container(`"cpu":"`+cpu+`"`)) }
	for _, step := range []struct {
		cpu   string
		used  int64
		freed bool
	}{{"600m", 600, false}, {"900m", 900, false}, {"900m", 900, false}, {"200m", 200, true}} {
		if freed := s.Place(of(step.cpu), "n"); freed != step.freed || s.nodes["n"].used["cpu"] != step.used || s.nodes["n"].used["pods"] != 1 {
			t.Errorf("%s: used %v, freed %t; want %d, %t", step.cpu, s.nodes["n"].used, freed, step.used, step.freed)
		}
	}
	if _, err := s.Choose(newPod(t, "b", "", container(`"cpu":"800m"`))); err != nil {
		t.Errorf("the room that the smaller pod left is not found: %v", err)
	}
}
