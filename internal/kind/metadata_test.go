package kind_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kind"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func configMap() *corev1.ConfigMap { return &corev1.ConfigMap{Metadata: meta("settings")} }

func TestMetadata(t *testing.T) {
	owner := func(name string, controller bool) *metav1.OwnerReference {
		return &metav1.OwnerReference{ApiVersion: "v1", Kind: "Pod", Name: name, Uid: "u-" + name, Controller: &controller}
	}
	testValidate(t, configMap, []badCase[*corev1.ConfigMap]{
		{"no metadata", func(m *corev1.ConfigMap) { m.Metadata = nil },
			[]string{"metadata.name: Required value: name or generateName is required", "metadata.namespace: Required value"}},
		{"254 characters", func(m *corev1.ConfigMap) { m.Metadata.Name = strings.Repeat("a", 254) },
			[]string{`metadata.name: Invalid value: "aaa`}},
		{"253 characters", func(m *corev1.ConfigMap) { m.Metadata.Name = strings.Repeat("a", 253) }, nil},
		{"upper case", func(m *corev1.ConfigMap) { m.Metadata.Name = "Web" },
			[]string{`metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain must consist of`}},
		{"slash", func(m *corev1.ConfigMap) { m.Metadata.Name = "a/b" }, []string{`metadata.name: Invalid value: "a/b"`}},
		{"generateName with dash", func(m *corev1.ConfigMap) { m.Metadata.GenerateName = "web-" }, nil},
		{"bad generateName", func(m *corev1.ConfigMap) { m.Metadata.GenerateName = "Web-" }, []string{`metadata.generateName: Invalid value: "Web-"`}},
		{"bad namespace", func(m *corev1.ConfigMap) { m.Metadata.Namespace = "a.b" }, []string{`metadata.namespace: Invalid value: "a.b"`}},
		{"label key", func(m *corev1.ConfigMap) { m.Metadata.Labels = map[string]string{"a b": "c"} }, []string{`metadata.labels: Invalid value: "a b": name part must consist of`}},
		{"label value", func(m *corev1.ConfigMap) { m.Metadata.Labels = map[string]string{"a": "b c"} }, []string{`metadata.labels: Invalid value: "b c": a valid label must be`}},
		{"annotation key", func(m *corev1.ConfigMap) { m.Metadata.Annotations = map[string]string{"a/b/c": "d"} }, []string{`metadata.annotations: Invalid value: "a/b/c"`}},
		{"annotation in capitals", func(m *corev1.ConfigMap) { m.Metadata.Annotations = map[string]string{"Example.com/A": "d e"} }, nil},
		{"annotations too long", func(m *corev1.ConfigMap) {
			m.Metadata.Annotations = map[string]string{"a": strings.Repeat("x", 256<<10)}
		}, []string{"metadata.annotations: Too long: may not be more than 262144 bytes"}},
		{"two controllers", func(m *corev1.ConfigMap) {
			m.Metadata.OwnerReferences = []*metav1.OwnerReference{owner("a", true), owner("b", false), owner("c", true)}
		}, []string{`metadata.ownerReferences: Invalid value: "Pod/c": Only one reference can have Controller set to true`}},
		{"empty owner", func(m *corev1.ConfigMap) { m.Metadata.OwnerReferences = []*metav1.OwnerReference{{}} }, []string{
			"metadata.ownerReferences.apiVersion: Invalid value", "metadata.ownerReferences.kind: Invalid value",
			"metadata.ownerReferences.name: Invalid value", "metadata.ownerReferences.uid: Invalid value"}},
		{"finalizers", func(m *corev1.ConfigMap) { m.Metadata.Finalizers = []string{"mine", "example.com/fine", "orphan"} },
			[]string{`metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified`}},
		{"finalizers that contradict", func(m *corev1.ConfigMap) { m.Metadata.Finalizers = []string{"orphan", "foregroundDeletion"} },
			[]string{"metadata.finalizers: Invalid value"}},
	})

	ns := &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "a.b", Namespace: "default"}}
	expect(t, kind.Of(ns).Validate(ns), []string{`metadata.name: Invalid value: "a.b": must not contain dots`, "metadata.namespace: Forbidden: not allowed on this type"})
}

func TestMetadataUpdate(t *testing.T) {
	base := func() *corev1.ConfigMap {
		m := configMap()
		m.Metadata.Uid, m.Metadata.CreationTimestamp, m.Metadata.DeletionTimestamp = "u1", ago(time.Hour), ago(0)
		m.Metadata.DeletionGracePeriodSeconds = proto.Int64(5)
		m.Metadata.Finalizers = []string{"example.com/a", "example.com/b"}
		return m
	}
	testUpdate(t, base, []updateCase[*corev1.ConfigMap]{
		{"nothing", func(*corev1.ConfigMap) {}, nil},
		{"labels", func(m *corev1.ConfigMap) { m.Metadata.Labels = map[string]string{"a": "b"} }, nil},
		{"fewer finalizers", func(m *corev1.ConfigMap) { m.Metadata.Finalizers = []string{"example.com/b"} }, nil},
		{"more finalizers", func(m *corev1.ConfigMap) { m.Metadata.Finalizers = []string{"example.com/b", "example.com/c"} },
			[]string{"metadata.finalizers[1]: Forbidden: no new finalizers can be added if the object is being deleted"}},
		{"name", func(m *corev1.ConfigMap) { m.Metadata.Name = "x" }, []string{`metadata.name: Invalid value: "x": field is immutable`}},
		{"namespace", func(m *corev1.ConfigMap) { m.Metadata.Namespace = "x" }, []string{`metadata.namespace: Invalid value: "x": field is immutable`}},
		{"uid", func(m *corev1.ConfigMap) { m.Metadata.Uid = "x" }, []string{`metadata.uid: Invalid value: "x": field is immutable`}},
		{"created", func(m *corev1.ConfigMap) { m.Metadata.CreationTimestamp = ago(0) }, []string{"metadata.creationTimestamp: Invalid value"}},
		{"undeleted", func(m *corev1.ConfigMap) {
			m.Metadata.DeletionTimestamp, m.Metadata.DeletionGracePeriodSeconds = nil, nil
		},
			[]string{"metadata.deletionTimestamp: Invalid value", "metadata.deletionGracePeriodSeconds: Invalid value"}},
	})
}

func TestPrepare(t *testing.T) {
	k, _ := kind.ByName("deployments")
	old := deployment()
	old.Status = &appsv1.DeploymentStatus{Replicas: 7}
	k.PrepareCreate(old)
	if old.Status != nil || old.GetMetadata().GetGeneration() != 1 {
		t.Errorf("after creation: status %v, generation %d", old.Status, old.GetMetadata().GetGeneration())
	}
	old.Status = &appsv1.DeploymentStatus{Replicas: 3}

	same := proto.CloneOf(old)
	same.Status, same.Metadata.Generation = nil, 99
	same.Metadata.Labels = map[string]string{"a": "b"}
	k.PrepareUpdate(same, old)
	if same.GetStatus().GetReplicas() != 3 || same.GetMetadata().GetGeneration() != 1 {
		t.Errorf("new labels: status %v, generation %d", same.GetStatus(), same.GetMetadata().GetGeneration())
	}
	same.Status.Replicas = 4
	if old.GetStatus().GetReplicas() != 3 {
		t.Error("the update shares its status with the stored object")
	}

	changed := proto.CloneOf(old)
	changed.Spec.Replicas = proto.Int32(9)
	k.PrepareUpdate(changed, old)
	if got := changed.GetMetadata().GetGeneration(); got != 2 {
		t.Errorf("new replicas: generation %d, want 2", got)
	}

	status := deployment()
	status.Metadata.Labels, status.Metadata.ResourceVersion = map[string]string{"x": "y"}, "17"
	status.Spec.Replicas = proto.Int32(40)
	status.Status = &appsv1.DeploymentStatus{Replicas: 5}
	k.PrepareStatusUpdate(status, old)
	want := proto.CloneOf(old)
	want.Status, want.Metadata.ResourceVersion = &appsv1.DeploymentStatus{Replicas: 5}, "17"
	if !proto.Equal(status, want) {
		t.Errorf("a status update gives\n%v\nwant\n%v", status, want)
	}
}

// TestDefaultIsIdempotent also makes sure that no rule breaks on an empty object of any kind.
func TestDefaultIsIdempotent(t *testing.T) {
	for _, k := range kind.All() {
		o := k.New()
		k.PrepareCreate(o)
		k.Default(o)
		once := proto.Clone(o)
		k.Default(o)
		if !proto.Equal(o, once) {
			t.Errorf("%s: defaulting twice gives %v, once %v", k, o, once)
		}
		k.Warnings(o)
		if errs := k.Validate(o); len(errs) == 0 {
			t.Errorf("%s: an empty object is valid", k)
		}
		k.Validate(k.New())
		k.ValidateUpdate(k.New(), o)
		k.ValidateUpdate(o, k.New())
		k.ValidateStatusUpdate(o, k.New())
		k.PrepareUpdate(k.New(), o)
		k.PrepareUpdate(o, k.New())
		k.PrepareStatusUpdate(k.New(), o)
		if k.GracePeriod != nil {
			k.GracePeriod(k.New())
		}
		cells(k.New(), now)
		cells(o, now)
	}
}

// TestFieldPaths holds the numbers of selectable fields against the names that they are selected
// by.
func TestFieldPaths(t *testing.T) {
	for _, k := range kind.All() {
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
			if strings.Join(got, ".") != name {
				t.Errorf("%s: the path of %s leads to %s", k, name, strings.Join(got, "."))
			}
		}
	}
}

func TestFieldString(t *testing.T) {
	pod := &corev1.Pod{
		Metadata: meta("web"),
		Spec:     &corev1.PodSpec{NodeName: "node-1", HostNetwork: true, RestartPolicy: "Always"},
		Status:   &corev1.PodStatus{Phase: "Running", PodIp: "10.244.1.7"},
	}
	raw, err := proto.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	k := kind.Of(pod)
	for path, want := range map[string]string{
		"metadata.name": "web", "metadata.namespace": "default", "spec.nodeName": "node-1", "spec.hostNetwork": "true",
		"spec.restartPolicy": "Always", "spec.schedulerName": "", "status.phase": "Running", "status.podIP": "10.244.1.7",
	} {
		if got, err := kind.FieldString(raw, k, path); err != nil || got != want {
			t.Errorf("%s = %q, %v; want %q", path, got, err, want)
		}
	}
	for _, empty := range [][]byte{nil, {0x12, 0}} {
		if got, err := kind.FieldString(empty, k, "spec.hostNetwork"); err != nil || got != "false" {
			t.Errorf("hostNetwork of an empty pod is %q, %v", got, err)
		}
	}
	if _, err := kind.FieldString(raw, k, "spec.hostname"); err == nil {
		t.Error("a field that can't be selected is read")
	}
	if _, err := kind.FieldString(raw[:len(raw)-3], k, "status.podIP"); err == nil {
		t.Error("truncated bytes are read")
	}

	// A second occurrence of a message merges into the first, also below the top.
	again, err := proto.Marshal(&corev1.Pod{Spec: &corev1.PodSpec{NodeName: "node-2"}})
	if err != nil {
		t.Fatal(err)
	}
	raw = append(raw, again...)
	if got, _ := kind.FieldString(raw, k, "spec.nodeName"); got != "node-2" {
		t.Errorf("merged nodeName = %q", got)
	}
	if got, _ := kind.FieldString(raw, k, "spec.restartPolicy"); got != "Always" {
		t.Errorf("restartPolicy is lost in the merge: %q", got)
	}
}

func FuzzWire(f *testing.F) {
	raw, _ := proto.Marshal(&corev1.Pod{Metadata: meta("web"), Spec: &corev1.PodSpec{NodeName: "n", HostNetwork: true}, Status: &corev1.PodStatus{Phase: "Running"}})
	f.Add(raw)
	f.Add(raw[:7])
	k, _ := kind.ByName("pods")
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
			if got, err := kind.FieldString(raw, k, path); err != nil || got != want {
				t.Errorf("%s = %q, %v; want %q", path, got, err, want)
			}
		}
	})
}

func TestOwners(t *testing.T) {
	rs := replicaSet()
	rs.Metadata.Uid = "u1"
	pod := &corev1.Pod{Metadata: meta("web-1")}
	if kind.ControllerOf(pod) != nil || kind.IsControlledBy(pod, rs) {
		t.Error("an orphan has a controller")
	}
	pod.Metadata.OwnerReferences = []*metav1.OwnerReference{{Uid: "other"}, kind.NewControllerRef(rs)}
	r := kind.ControllerOf(pod)
	if r.GetApiVersion() != "apps/v1" || r.GetKind() != "ReplicaSet" || r.GetName() != "web" || r.GetUid() != "u1" || !r.GetBlockOwnerDeletion() {
		t.Errorf("controller %v", r)
	}
	if !kind.IsControlledBy(pod, rs) {
		t.Error("the controller does not know its pod")
	}
	rs.Metadata.Uid = "u2"
	if kind.IsControlledBy(pod, rs) {
		t.Error("a namesake counts as the controller")
	}
}

func TestLabelSelector(t *testing.T) {
	tests := []struct {
		name     string
		selector *metav1.LabelSelector
		text     string
		matches  bool
	}{
		{"nil", nil, "<none>", false},
		{"empty", &metav1.LabelSelector{}, "<none>", true},
		{"labels", &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "front", "app": "web"}}, "app=web,tier=front", true},
		{"other", &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, "app=db", false},
		{"expressions", &metav1.LabelSelector{MatchExpressions: []*metav1.LabelSelectorRequirement{
			{Key: "app", Operator: "In", Values: []string{"web", "db"}}, {Key: "canary", Operator: "DoesNotExist"},
			{Key: "tier", Operator: "NotIn", Values: []string{"back"}}, {Key: "zone", Operator: "DoesNotExist"},
		}}, "app in (db,web),!canary,tier notin (back),!zone", true},
		{"exists", &metav1.LabelSelector{MatchExpressions: []*metav1.LabelSelectorRequirement{{Key: "app", Operator: "Exists"}}}, "app", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := kind.LabelSelector(tt.selector)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Matches(labelSet{"app": "web", "tier": "front"}); got != tt.matches {
				t.Errorf("matches = %v", got)
			}
			if got := kind.FormatLabelSelector(tt.selector); got != tt.text {
				t.Errorf("text %q, want %q", got, tt.text)
			}
		})
	}
	if _, err := kind.LabelSelector(&metav1.LabelSelector{MatchExpressions: []*metav1.LabelSelectorRequirement{{Key: "a", Operator: "Gt", Values: []string{"1"}}}}); err == nil {
		t.Error("Gt is taken for a label selector operator")
	}
}

type labelSet map[string]string

func (s labelSet) Has(k string) bool              { _, ok := s[k]; return ok }
func (s labelSet) Get(k string) string            { return s[k] }
func (s labelSet) Lookup(k string) (string, bool) { v, ok := s[k]; return v, ok }

func TestHumanDuration(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-3 * time.Second: "<invalid>", -time.Second: "0s", 0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m",
		5*time.Minute + 30*time.Second: "5m30s", 10*time.Minute + time.Second: "10m", 179 * time.Minute: "179m",
		3 * time.Hour: "3h", 3*time.Hour + 12*time.Minute: "3h12m", 9*time.Hour + time.Minute: "9h", 47 * time.Hour: "47h",
		2 * day: "2d", 5*day + 3*time.Hour: "5d3h", 8*day + time.Hour: "8d", 729 * day: "729d", 730 * day: "2y",
		770 * day: "2y40d", 8 * 365 * day: "8y", 9*365*day + day: "9y",
	} {
		if got := kind.HumanDuration(d); got != want {
			t.Errorf("HumanDuration(%v) = %q, want %q", d, got, want)
		}
	}
	if got := kind.Age(nil, now); got != "<unknown>" {
		t.Errorf("age of nothing = %q", got)
	}
}

// TestColumnPaths compares the fields that columns state with the fields of the message, by their
// names in JSON.
func TestColumnPaths(t *testing.T) {
	stated := 0
	for _, k := range kind.NewScheme().Kinds() {
		for _, c := range k.Columns {
			if c.Path == "" {
				continue
			}
			stated++
			d := k.New().ProtoReflect().Descriptor()
			for name := range strings.SplitSeq(strings.TrimPrefix(c.Path, "."), ".") {
				f := d.Fields().ByJSONName(name)
				if f == nil {
					t.Fatalf("%s %s: %s has no field %s", k, c.Name, d.FullName(), name)
				}
				d = f.Message()
			}
		}
	}
	if stated == 0 {
		t.Error("no column states its field")
	}
}
