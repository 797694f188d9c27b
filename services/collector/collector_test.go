package collector

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// start runs a collector until the test ends. Objects given are there before it.
func start(t *testing.T, cfg Config, objects ...scheme.Object) (*clienttest.Server, *client.Client) {
	t.Helper()
	return startWith(t, kinds.NewScheme(), cfg, objects...)
}

// startWith is start for the kinds of a scheme.
func startWith(t *testing.T, kinds *scheme.Scheme, cfg Config, objects ...scheme.Object) (*clienttest.Server, *client.Client) {
	t.Helper()
	s, c := clienttest.Start(t)
	clienttest.Seed(s, objects...)
	svc, err := New(cfg, Deps{Deps: elected.Deps{Host: "master-1", Client: c}, Scheme: kinds})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = svc.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	settle()
	return s, c
}

// settle lets a second of fake time pass: the election and some retries fit in.
func settle() {
	<-time.After(time.Second)
	synctest.Wait()
}

// configMap and secret stand for any kinds: their writes pass validation as they are.
func configMap(name string, refs ...*metav1.OwnerReference) *corev1.ConfigMap {
	return &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{
		Namespace: "default", Name: name, Uid: "uid-" + name, OwnerReferences: refs,
	}}
}

func owner(name string) *metav1.OwnerReference {
	return &metav1.OwnerReference{ApiVersion: "v1", Kind: "ConfigMap", Name: name, Uid: "uid-" + name}
}

func blocking(name string) *metav1.OwnerReference {
	r := owner(name)
	r.BlockOwnerDeletion = proto.Bool(true)
	return r
}

// names returns the config maps there are.
func names(t *testing.T, c *client.Client) string {
	t.Helper()
	all, _, err := client.List[*corev1.ConfigMap](t.Context(), c, client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range all {
		found = append(found, m.Metadata.Name)
	}
	return strings.Join(found, " ")
}

func remove(t *testing.T, c *client.Client, name string, opts ...client.DeleteOption) {
	t.Helper()
	if _, err := client.Delete[*corev1.ConfigMap](t.Context(), c, "default", name, opts...); err != nil {
		t.Fatal(err)
	}
}

func expectNames(t *testing.T, c *client.Client, when, want string) {
	t.Helper()
	if got := names(t, c); got != want {
		t.Errorf("%s: %q is left, want %q", when, got, want)
	}
}

func TestBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := start(t, Config{}, configMap("a"), configMap("b", owner("a")), configMap("c", owner("b")), configMap("other"))
		expectNames(t, c, "at first", "a b c other")
		remove(t, c, "a")
		settle()
		expectNames(t, c, "after the owner's deletion", "other")
		// A dependent of what was gone before it came.
		clienttest.Seed(s, configMap("late", owner("a")))
		settle()
		expectNames(t, c, "a late dependent", "other")
	})
}

// TestDynamicKinds adds a kind to a collector that leads, and removes it.
func TestDynamicKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		maps := kinds.Of(&corev1.ConfigMap{})
		secrets := kinds.NewScheme()
		if err := secrets.Unregister(maps); err != nil {
			t.Fatal(err)
		}
		_, c := startWith(t, secrets, Config{}, configMap("a"), configMap("b", owner("a")), configMap("c", owner("b")))
		remove(t, c, "a")
		settle()
		expectNames(t, c, "of a kind that is not registered", "b c")
		dynamic := &scheme.Kind{
			Version: maps.Version, Name: maps.Name, Plural: maps.Plural, Singular: maps.Singular, Namespaced: true, Dynamic: true,
			New: maps.New, Rules: maps.Rules,
		}
		if err := secrets.Register(dynamic); err != nil {
			t.Fatal(err)
		}
		settle()
		expectNames(t, c, "of a kind that was added", "")
		if err := secrets.Unregister(dynamic); err != nil {
			t.Fatal(err)
		}
		settle()
		if _, err := client.Create(t.Context(), c, configMap("d", owner("a"))); err != nil {
			t.Fatal(err)
		}
		settle()
		expectNames(t, c, "of a kind that was removed", "d")
	})
}

func TestGarbageFromBeforeTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reborn := owner("other")
		reborn.Uid = "uid-of-a-former-one"
		_, c := start(t, Config{}, configMap("other"), configMap("x", owner("gone")), configMap("y", reborn), configMap("z", owner("other")))
		expectNames(t, c, "after the start", "other z")
	})
}

func TestOneOfTwoOwnersGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := start(t, Config{}, configMap("a"), configMap("b"), configMap("both", owner("a"), owner("b")))
		remove(t, c, "a")
		settle()
		m, err := client.Get[*corev1.ConfigMap](t.Context(), c, "default", "both")
		if err != nil || len(m.Metadata.OwnerReferences) != 1 || m.Metadata.OwnerReferences[0].Name != "b" {
			t.Fatalf("got %v, %v", m, err)
		}
		remove(t, c, "b")
		settle()
		expectNames(t, c, "after both", "")
	})
}

func TestForeground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := configMap("held", blocking("a"))
		held.Metadata.Finalizers = []string{"example.com/hold"}
		_, c := start(t, Config{}, configMap("a"), held, configMap("free", owner("a")), configMap("below", blocking("held")))
		remove(t, c, "a", client.Foreground)
		settle()
		// "below" goes before "held", since what is deleted in the foreground has its own dependents go
		// so, too.
		expectNames(t, c, "while a dependent is held", "a held")
		m, err := client.Get[*corev1.ConfigMap](t.Context(), c, "default", "held")
		if err != nil || m.Metadata.DeletionTimestamp == nil {
			t.Fatalf("the dependent is not being deleted: %v, %v", m, err)
		}
		m.Metadata.Finalizers = nil
		if _, err := client.Update(t.Context(), c, m); err != nil {
			t.Fatal(err)
		}
		settle()
		expectNames(t, c, "in the end", "")
	})
}

func TestForegroundDeletionBreaksOwnerCycles(t *testing.T) {
	held := configMap("held", blocking("c"))
	held.Metadata.Finalizers = []string{"example.com/hold"}
	for _, tt := range []struct {
		name    string
		objects []scheme.Object
		left    string
	}{
		{"of two", []scheme.Object{configMap("a", blocking("b")), configMap("b", blocking("a"))}, ""},
		{"of itself", []scheme.Object{configMap("a", blocking("a"))}, ""},
		{"of three, each with a dependent", []scheme.Object{
			configMap("a", blocking("c")), configMap("b", blocking("a")), configMap("c", blocking("b")),
			configMap("x", blocking("a")), configMap("y", blocking("b")), configMap("z", blocking("c")),
		}, ""},
		{"of two, above another that nothing deletes", []scheme.Object{
			configMap("a", blocking("b")), configMap("b", blocking("a")), configMap("c", blocking("b"), blocking("d")), configMap("d", blocking("c")),
		}, "c d"},
		{"above what goes later", []scheme.Object{
			configMap("a", blocking("b")), configMap("b", blocking("a")), configMap("c", blocking("b")), held,
		}, "a b c held"},
		{"with an owner outside", []scheme.Object{configMap("a", blocking("b")), configMap("b", blocking("a"), blocking("o")), configMap("o")}, "b o"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, c := start(t, Config{}, tt.objects...)
				remove(t, c, "a", client.Foreground)
				settle()
				expectNames(t, c, "after the deletion of one", tt.left)
				m, err := client.Get[*corev1.ConfigMap](t.Context(), c, "default", "held")
				if err != nil {
					return
				}
				m.Metadata.Finalizers = nil
				if _, err := client.Update(t.Context(), c, m); err != nil {
					t.Fatal(err)
				}
				settle()
				expectNames(t, c, "in the end", "")
			})
		})
	}
}

func TestOrphan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := start(t, Config{}, configMap("a"), configMap("b", blocking("a")))
		remove(t, c, "a", client.Orphan)
		settle()
		expectNames(t, c, "after the owner's deletion", "b")
		m, err := client.Get[*corev1.ConfigMap](t.Context(), c, "default", "b")
		if err != nil || len(m.Metadata.OwnerReferences) != 0 {
			t.Errorf("owners %v, %v", m.Metadata.OwnerReferences, err)
		}
	})
}

func TestUnknownOwnersKeepTheirDependents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		strange := owner("a")
		strange.Kind = "Widget"
		_, c := start(t, Config{}, configMap("x", strange))
		settle()
		expectNames(t, c, "with an owner of a kind that is not served", "x")
	})
}

// TestMirrorBehind has the collector's mirror lack an owner that exists.
func TestMirrorBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := start(t, Config{})
		// Events are not mirrored, so that only the live read finds this owner.
		clienttest.Seed(s, &corev1.Event{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "e", Uid: "uid-e"}})
		clienttest.Seed(s, configMap("x", &metav1.OwnerReference{ApiVersion: "v1", Kind: "Event", Name: "e", Uid: "uid-e"}))
		settle()
		expectNames(t, c, "with an owner the mirror lacks", "x")
	})
}

// TestOrphans deletes what is left of namespaces that do not exist, and nothing of those that do.
func TestOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := func(namespace, name string, finalizers ...string) *corev1.ConfigMap {
			m := configMap(name)
			m.Metadata.Namespace, m.Metadata.Finalizers = namespace, finalizers
			return m
		}
		s, c := start(t, Config{}, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "team"}},
			in("team", "kept"), in("gone", "left-1"), in("gone", "left-2"), in("past", "held", "example.com/hold"))
		clienttest.Seed(s, &appsv1.ReplicaSet{Metadata: &metav1.ObjectMeta{Namespace: "gone", Name: "rs", Uid: "uid-rs"}})
		expectNames(t, c, "before the first look", "left-1 left-2 held kept")
		<-time.After(2 * orphansInterval) // the first interval begins once the election is won
		settle()
		expectNames(t, c, "after it", "held kept")
		if _, err := client.Get[*appsv1.ReplicaSet](t.Context(), c, "gone", "rs"); !apierr.IsNotFound(err) {
			t.Errorf("the replica set is still there: %v", err)
		}
		held, err := client.Get[*corev1.ConfigMap](t.Context(), c, "past", "held")
		if err != nil || held.GetMetadata().GetDeletionTimestamp() == nil {
			t.Errorf("what a finalizer holds is not marked: %v, %v", held, err)
		}
		// A namespace that the mirror does not have yet is looked for.
		clienttest.Seed(s, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "new"}})
		clienttest.Seed(s, in("new", "young"))
		g := newGraph(c, kinds.NewScheme())
		mirror := client.NewInformer(c, client.InformerOptions[scheme.Object]{Kind: kinds.Of(held)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- mirror.Run(ctx) }()
		settle()
		g.add(kinds.Of(held), mirror, nil)
		o := &orphans{client: c, namespaces: client.NewInformer(c, client.InformerOptions[*corev1.Namespace]{}), graph: g, log: zap.NewNop()}
		if err := o.sweep(t.Context()); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
		expectNames(t, c, "after a look with a stale mirror", "young held kept")
	})
}

func TestNamespaceDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := start(t, Config{})
		ctx := t.Context()
		if _, err := client.Create(ctx, c, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "team"}}); err != nil {
			t.Fatal(err)
		}
		in := func(m *corev1.ConfigMap) *corev1.ConfigMap { m.Metadata.Namespace = "team"; return m }
		held := in(configMap("held"))
		held.Metadata.Finalizers = []string{"example.com/hold"}
		clienttest.Seed(s, in(configMap("plain")), held, configMap("elsewhere"))
		clienttest.Seed(s, &corev1.Event{Metadata: &metav1.ObjectMeta{Namespace: "team", Name: "e"}})
		clienttest.Seed(s, &appsv1.ReplicaSet{Metadata: &metav1.ObjectMeta{Namespace: "team", Name: "rs"}})
		if _, err := client.Delete[*corev1.Namespace](ctx, c, "", "team"); err != nil {
			t.Fatal(err)
		}
		settle()
		expectNames(t, c, "while one is held", "elsewhere held")
		ns, err := client.Get[*corev1.Namespace](ctx, c, "", "team")
		if err != nil {
			t.Fatal(err)
		}
		condition := func(name string) string {
			i := slices.IndexFunc(ns.Status.Conditions, func(c *corev1.NamespaceCondition) bool { return c.Type == name })
			if i < 0 {
				return ""
			}
			return ns.Status.Conditions[i].Status + ": " + ns.Status.Conditions[i].Message
		}
		if got := condition(conditionContent); got != "True: Some resources are remaining: configmaps has 1 resource instances" {
			t.Errorf("content: %s", got)
		}
		if got := condition(conditionFinalizers); !strings.HasPrefix(got, "True: ") || !strings.Contains(got, "example.com/hold") {
			t.Errorf("finalizers: %s", got)
		}
		if got := condition(conditionContentFailure); !strings.HasPrefix(got, "False: ") || ns.Status.Phase != "Terminating" {
			t.Errorf("failure: %s, phase %s", got, ns.Status.Phase)
		}
		live, err := client.Get[*corev1.ConfigMap](ctx, c, "team", "held")
		if err != nil {
			t.Fatal(err)
		}
		live.Metadata.Finalizers = nil
		if _, err := client.Update(ctx, c, live); err != nil {
			t.Fatal(err)
		}
		settle()
		if _, err := client.Get[*corev1.Namespace](ctx, c, "", "team"); !apierr.IsNotFound(err) {
			t.Errorf("the empty namespace is still there: %v", err)
		}
		expectNames(t, c, "in the end", "elsewhere")
	})
}

func TestFinishedPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var objects []scheme.Object
		for n := range 10 {
			phase := []string{"Succeeded", "Failed", "Running"}[n%3]
			objects = append(objects, &corev1.Pod{
				Metadata: &metav1.ObjectMeta{
					Namespace: "default", Name: fmt.Sprintf("p-%d", n),
					CreationTimestamp: timestamppb.New(time.Unix(int64(1000-n), 0)),
				},
				Status: &corev1.PodStatus{Phase: phase},
			})
		}
		_, c := start(t, Config{FinishedPods: 2}, objects...)
		<-time.After(finishedInterval)
		settle()
		all, _, err := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, p := range all {
			left = append(left, p.Metadata.Name)
		}
		// Three run; of the seven that ended the two youngest stay.
		if want := []string{"p-0", "p-1", "p-2", "p-5", "p-8"}; !slices.Equal(left, want) {
			t.Errorf("left %q, want %q", left, want)
		}
	})
}
