package apply

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func object(t *testing.T, json string) scheme.Object {
	t.Helper()
	o, err := codec.Unmarshal([]byte(json))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func merger(t *testing.T) *Merger {
	t.Helper()
	m, err := New(kinds.NewScheme())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const deployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"default"},"spec":{"replicas":2,
	"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},
	"spec":{"containers":[{"name":"web","image":"web:1","ports":[{"containerPort":80}],"env":[{"name":"A","value":"1"}]}]}}}}`

func TestApplyCreatesAndOwns(t *testing.T) {
	m := merger(t)
	got, err := m.Apply(nil, object(t, deployment), "alice", false, noon)
	if err != nil {
		t.Fatal(err)
	}
	owners := got.GetMetadata().GetManagedFields()
	if len(owners) != 1 || owners[0].GetManager() != "alice" || owners[0].GetOperation() != "Apply" || owners[0].GetApiVersion() != "apps/v1" {
		t.Fatalf("managedFields = %v", owners)
	}
	again, err := m.Apply(got, object(t, deployment), "alice", false, noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if !Same(got, again) || !again.GetMetadata().GetManagedFields()[0].GetTime().AsTime().Equal(noon) {
		t.Errorf("a second apply of the same changed the object:\n%v\n%v", got, again)
	}
}

func TestApplyConflict(t *testing.T) {
	m := merger(t)
	live, err := m.Apply(nil, object(t, deployment), "alice", false, noon)
	if err != nil {
		t.Fatal(err)
	}
	other := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"default"},"spec":{"replicas":5}}`
	_, err = m.Apply(live, object(t, other), "bob", false, noon)
	var conflict *ConflictError
	if !errors.As(err, &conflict) || len(conflict.Conflicts) != 1 || conflict.Conflicts[0] != (Conflict{"alice", ".spec.replicas"}) {
		t.Fatalf("got %v, want a conflict with alice over .spec.replicas", err)
	}
	forced, err := m.Apply(live, object(t, other), "bob", true, noon)
	if err != nil {
		t.Fatal(err)
	}
	if n := forced.(*appsv1.Deployment).GetSpec().GetReplicas(); n != 5 {
		t.Errorf("forced apply left %d replicas, want 5", n)
	}
	// Now the field is bob's, and alice is the one in conflict.
	if _, err := m.Apply(forced, object(t, deployment), "alice", false, noon); !errors.As(err, &conflict) {
		t.Errorf("got %v, want a conflict with bob", err)
	}
}

func TestApplyRemovesWhatItNoLongerNames(t *testing.T) {
	m := merger(t)
	live, err := m.Apply(nil, object(t, deployment), "alice", false, noon)
	if err != nil {
		t.Fatal(err)
	}
	// Another manager adds an element to a list that merges by key.
	sidecar := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"default"},"spec":{"template":{"spec":{"containers":[{"name":"sidecar","image":"sidecar:1"}]}}}}`
	live, err = m.Apply(live, object(t, sidecar), "bob", false, noon)
	if err != nil {
		t.Fatal(err)
	}
	without := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"default"},"spec":{"replicas":2,
		"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},
		"spec":{"containers":[{"name":"web","image":"web:2","ports":[{"containerPort":80,"protocol":"TCP"}]}]}}}}`
	live, err = m.Apply(live, object(t, without), "alice", false, noon)
	if err != nil {
		t.Fatal(err)
	}
	containers := live.(*appsv1.Deployment).GetSpec().GetTemplate().GetSpec().GetContainers()
	byName := map[string]*corev1.Container{}
	for _, c := range containers {
		byName[c.GetName()] = c
	}
	if len(byName) != 2 || byName["sidecar"].GetImage() != "sidecar:1" {
		t.Errorf("the other manager's container is gone: %v", containers)
	}
	web := byName["web"]
	if web.GetImage() != "web:2" || len(web.GetEnv()) != 0 || len(web.GetPorts()) != 1 {
		t.Errorf("web = %v, want image web:2, no env and one port", web)
	}
}

func TestLabelsHaveOwners(t *testing.T) {
	m := merger(t)
	config := func(labels, annotations string) scheme.Object {
		return object(t, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"default","labels":{`+labels+`},"annotations":{`+annotations+`}}}`)
	}
	live, err := m.Apply(nil, config(`"x":"1","y":"2"`, `"k":"v"`), "alice", false, noon)
	if err != nil {
		t.Fatal(err)
	}
	var conflict *ConflictError
	if _, err := m.Apply(live, config(`"y":"3"`, ``), "bob", false, noon); !errors.As(err, &conflict) || conflict.Conflicts[0] != (Conflict{"alice", ".metadata.labels.y"}) {
		t.Errorf("got %v, want a conflict with alice over the label y", err)
	}
	if live, err = m.Apply(live, config(`"z":"3"`, ``), "bob", false, noon); err != nil {
		t.Fatal(err)
	}
	if live, err = m.Apply(live, config(`"x":"1"`, ``), "alice", false, noon); err != nil {
		t.Fatal(err)
	}
	if text := string(live.GetMetadata().GetManagedFields()[0].GetFieldsV1().GetRaw()); strings.Contains(text, "f:name") {
		t.Errorf("the name has an owner: %s", text)
	}
	meta := live.GetMetadata()
	if len(meta.GetLabels()) != 2 || meta.GetLabels()["x"] != "1" || meta.GetLabels()["z"] != "3" || len(meta.GetAnnotations()) != 0 {
		t.Errorf("labels %v and annotations %v, want x, z and none: what its only owner no longer applies is removed", meta.GetLabels(), meta.GetAnnotations())
	}
	// The last of a manager's labels goes, and nothing else does.
	for _, manager := range []string{"alice", "bob"} {
		bare := object(t, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"default"}}`)
		if live, err = m.Apply(live, bare, manager, false, noon); err != nil {
			t.Fatal(err)
		}
	}
	if meta := live.GetMetadata(); len(meta.GetLabels()) != 0 || meta.GetName() != "a" || meta.GetNamespace() != "default" {
		t.Errorf("metadata is %v, want the name and no labels", meta)
	}
}

// TestMetadataIsOwned removes labels, annotations, finalizers and owners that are no longer
// applied, and keeps those of others.
func TestMetadataIsOwned(t *testing.T) {
	m := merger(t)
	config := func(metadata string) scheme.Object {
		return object(t, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"default",`+metadata+`}}`)
	}
	live, err := m.Apply(nil, config(`"labels":{"x":"1","y":"2"},"annotations":{"n":"1"},"finalizers":["example.com/a"],
		"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"o","uid":"u"}]`), "alice", false, noon)
	if err != nil {
		t.Fatal(err)
	}
	live.GetMetadata().Uid, live.GetMetadata().ResourceVersion, live.GetMetadata().Generation = "uid", "7", 3
	others := proto.CloneOf(live.(*corev1.ConfigMap))
	others.Metadata.Labels["theirs"] = "z"
	if err := m.Update(live, others, "controller", noon); err != nil {
		t.Fatal(err)
	}
	var conflict *ConflictError
	if _, err := m.Apply(others, config(`"labels":{"theirs":"mine"}`), "alice", false, noon); !errors.As(err, &conflict) || conflict.Conflicts[0] != (Conflict{"controller", ".metadata.labels.theirs"}) {
		t.Errorf("got %v, want a conflict with controller", err)
	}
	got, err := m.Apply(others, config(`"labels":{"x":"1"}`), "alice", false, noon)
	if err != nil {
		t.Fatal(err)
	}
	meta := got.GetMetadata()
	if !maps.Equal(meta.GetLabels(), map[string]string{"x": "1", "theirs": "z"}) || len(meta.GetAnnotations())+len(meta.GetFinalizers())+len(meta.GetOwnerReferences()) != 0 {
		t.Errorf("left are labels %v, annotations %v, finalizers %v, owners %v", meta.GetLabels(), meta.GetAnnotations(), meta.GetFinalizers(), meta.GetOwnerReferences())
	}
	if meta.GetUid() != "uid" || meta.GetGeneration() != 3 || meta.GetName() != "a" {
		t.Errorf("what the server writes is lost: %v", meta)
	}
	for _, e := range meta.GetManagedFields() {
		for _, field := range []string{"f:uid", "f:name", "f:resourceVersion", "f:generation", "f:creationTimestamp"} {
			if bytes.Contains(e.GetFieldsV1().GetRaw(), []byte(`"`+field+`"`)) {
				t.Errorf("%s owns %s", e.GetManager(), field)
			}
		}
	}
}

// TestManyManagers updates an object under ever new names: the ten latest are kept, and all fields
// stay owned.
func TestManyManagers(t *testing.T) {
	m := merger(t)
	live, err := m.Apply(nil, object(t, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"default"},"data":{"a":"1"}}`), "alice", false, noon)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 25 {
		next := proto.CloneOf(live.(*corev1.ConfigMap))
		next.Data[fmt.Sprintf("l%d", i)] = "x"
		if err := m.Update(live, next, fmt.Sprintf("manager-%02d", i), noon.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
		live = next
	}
	owned := map[string]string{}
	var names []string
	for _, e := range live.GetMetadata().GetManagedFields() {
		names = append(names, e.GetManager())
		for i := range 25 {
			if key := fmt.Sprintf("l%d", i); bytes.Contains(e.GetFieldsV1().GetRaw(), fmt.Appendf(nil, "%q", "f:"+key)) {
				owned[key] = e.GetManager()
			}
		}
	}
	want := "alice ancient-changes manager-16 manager-17 manager-18 manager-19 manager-20 manager-21 manager-22 manager-23 manager-24"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("the managers are %s, want %s", got, want)
	}
	if len(owned) != 25 || owned["l0"] != "ancient-changes" || owned["l15"] != "ancient-changes" || owned["l24"] != "manager-24" {
		t.Errorf("the keys are owned by %v", owned)
	}
}

func TestUpdateTakesOwnership(t *testing.T) {
	m := merger(t)
	live, err := m.Apply(nil, object(t, deployment), "alice", false, noon)
	if err != nil {
		t.Fatal(err)
	}
	scaled := object(t, deployment)
	scaled.(*appsv1.Deployment).Spec.Replicas = new(int32)
	if err := m.Update(live, scaled, "autoscaler", noon); err != nil {
		t.Fatal(err)
	}
	_, err = m.Apply(scaled, object(t, deployment), "alice", false, noon)
	var conflict *ConflictError
	if !errors.As(err, &conflict) || conflict.Conflicts[0].Manager != "autoscaler" {
		t.Errorf("got %v, want a conflict with autoscaler", err)
	}
}

// TestEveryKindHasASchema applies an object of each kind, empty but for its name.
func TestEveryKindHasASchema(t *testing.T) {
	m := merger(t)
	for _, k := range kinds.All() {
		o := object(t, `{"apiVersion":"`+k.APIVersion()+`","kind":"`+k.Name+`","metadata":{"name":"a","labels":{"l":"v"}}}`)
		got, err := m.Apply(nil, o, "alice", false, noon)
		if err != nil {
			t.Errorf("%s: %v", k.Name, err)
			continue
		}
		if got.GetMetadata().GetLabels()["l"] != "v" {
			t.Errorf("%s: label lost", k.Name)
		}
	}
}

// TestMergerFollowsTheScheme applies an object whose kind is registered after the merger was made,
// and no longer when it is removed.
func TestMergerFollowsTheScheme(t *testing.T) {
	pods := kinds.Of(new(corev1.Pod))
	kinds, err := scheme.New(kinds.Of(new(corev1.ConfigMap)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(kinds)
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{Metadata: &metav1.ObjectMeta{Name: "web", Labels: map[string]string{"app": "web"}}}
	apply := func() error {
		_, err := m.Apply(nil, pod, "me", false, time.Now())
		return err
	}
	const want = "no kind is registered for message xebec.core.v1.Pod"
	if err := apply(); err == nil || err.Error() != want {
		t.Errorf("before registration: %v, want %s", err, want)
	}
	if err := kinds.Register(pods); err != nil {
		t.Fatal(err)
	}
	if err := apply(); err != nil {
		t.Errorf("after registration: %v", err)
	}
	if err := kinds.Unregister(pods); err != nil {
		t.Fatal(err)
	}
	if err := apply(); err == nil || err.Error() != want {
		t.Errorf("after removal: %v, want %s", err, want)
	}
}
