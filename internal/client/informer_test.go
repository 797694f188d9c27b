package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"v": value}},
		Data:     map[string]string{"key": value},
	}
}

// journal records what an informer tells, as "+a=1", "a=1>2" and "-a=2".
type journal struct {
	mu      sync.Mutex
	entries []string
}

func (j *journal) note(old, new *corev1.ConfigMap) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case old == nil:
		j.entries = append(j.entries, fmt.Sprintf("+%s=%s", new.Metadata.Name, new.Data["key"]))
	case new == nil:
		j.entries = append(j.entries, fmt.Sprintf("-%s=%s", old.Metadata.Name, old.Data["key"]))
	default:
		j.entries = append(j.entries, fmt.Sprintf("%s=%s>%s", new.Metadata.Name, old.Data["key"], new.Data["key"]))
	}
}

func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	got := j.entries
	j.entries = nil
	return got
}

func (j *journal) len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.entries)
}

// informed runs an informer of config maps until the test ends.
func informed(t *testing.T, c *client.Client, o client.InformerOptions[*corev1.ConfigMap]) (*client.Informer[*corev1.ConfigMap], *journal) {
	t.Helper()
	i := client.NewInformer(c, o)
	j := &journal{}
	i.OnChange(j.note)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v, want context.Canceled", err)
		}
	})
	if err := i.WaitForSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return i, j
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestInformerFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, configMap("a", "1"))
		i, j := informed(t, c, client.InformerOptions[*corev1.ConfigMap]{
			Indexers: map[string]func(*corev1.ConfigMap) []string{
				"value": func(m *corev1.ConfigMap) []string { return []string{m.Data["key"]} },
			},
		})
		expect(t, "state", j.take(), "+a=1")
		clienttest.Seed(s, configMap("b", "1"), configMap("a", "2"))
		clienttest.Remove(s, configMap("b", ""))
		synctest.Wait()
		expect(t, "changes", j.take(), "+b=1", "a=1>2", "-b=1")
		if i.Revision() != s.Revision() {
			t.Errorf("revision %s, want %s", i.Revision(), s.Revision())
		}
		if n := len(i.ByIndex("value", "1")); n != 0 {
			t.Errorf("%d objects in the index under the value that was left", n)
		}
		if found := i.ByIndex("value", "2"); len(found) != 1 || found[0].Metadata.Name != "a" {
			t.Errorf("index: %v", found)
		}
		if _, ok := i.Get("default", "b"); ok || i.Len() != 1 {
			t.Errorf("b is still there, or there are %d objects", i.Len())
		}
	})
}

func TestInformerResumesWithoutListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, configMap("a", "1"))
		var mu sync.Mutex // of from
		var from []string
		s.Intercept(func(method string, req proto.Message) error {
			if w, ok := req.(*apiv1.WatchRequest); ok {
				mu.Lock()
				defer mu.Unlock()
				from = append(from, w.ResourceVersion)
			}
			return nil
		})
		_, j := informed(t, c, client.InformerOptions[*corev1.ConfigMap]{})
		at := s.Revision()
		j.take()
		s.Disconnect()
		clienttest.Seed(s, configMap("a", "2"))
		clienttest.Remove(s, configMap("a", ""))
		clienttest.Seed(s, configMap("a", "3"))
		clientSettles(t, j, 3)
		expect(t, "changes missed", j.take(), "a=1>2", "-a=2", "+a=3")
		mu.Lock()
		defer mu.Unlock()
		expect(t, "watches begun at", from, "", at)
	})
}

// A server that refuses a watch because it is busy is left alone for as long as it asks.
func TestInformerWaitsAsLongAsTheServerAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, configMap("a", "1"))
		var begun []time.Time
		s.Intercept(func(method string, req proto.Message) error {
			if _, ok := req.(*apiv1.WatchRequest); !ok {
				return nil
			}
			if begun = append(begun, time.Now()); len(begun) <= 3 {
				return apierr.Overloaded(7*time.Second, "busy")
			}
			return nil
		})
		_, j := informed(t, c, client.InformerOptions[*corev1.ConfigMap]{})
		expect(t, "the state", j.take(), "+a=1")
		for i := range begun[1:] {
			if pause := begun[i+1].Sub(begun[i]); pause < 7*time.Second || pause > 14*time.Second {
				t.Errorf("pause %d lasted %s, want the 7 s that the server asked for and up to as much at random", i, pause)
			}
		}
		if len(begun) != 4 {
			t.Errorf("%d watches were begun, want 4", len(begun))
		}
	})
}

// Calls about Lease objects are marked, so that busy servers take them first.
func TestLeaseObjectsHavePriority(t *testing.T) {
	marked := map[string]bool{}
	note := func(ctx context.Context, method string) {
		md, _ := metadata.FromOutgoingContext(ctx)
		marked[method] = len(md.Get(edge.HeaderLease)) > 0
	}
	conn := notingConn{clienttest.Serve(t, clienttest.NewServer()), note}
	c := client.New(conn)
	lease := &coordinationv1.Lease{Metadata: &metav1.ObjectMeta{Namespace: "kube-system", Name: "scheduler"}}
	for _, obj := range []scheme.Object{lease, configMap("a", "1")} {
		clear(marked)
		k, _ := kinds.ByMessage(obj.ProtoReflect().Descriptor().FullName())
		stored, err := client.Create(t.Context(), c, obj)
		if err == nil {
			_, err = client.Update(t.Context(), c, stored)
		}
		if err == nil {
			_, err = client.GetKind(t.Context(), c, k, obj.GetMetadata().GetNamespace(), obj.GetMetadata().GetName())
		}
		if err == nil {
			_, err = client.DeleteKind(t.Context(), c, k, obj.GetMetadata().GetNamespace(), obj.GetMetadata().GetName())
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, method := range []string{
			apiv1.ResourceService_Create_FullMethodName, apiv1.ResourceService_Update_FullMethodName,
			apiv1.ResourceService_Get_FullMethodName, apiv1.ResourceService_Delete_FullMethodName,
		} {
			if got, called := marked[method]; !called || got != (obj == lease) {
				t.Errorf("%s of a %s: called %t, marked %t", method, k.Name, called, got)
			}
		}
	}
}

// notingConn notes the contexts of unary calls.
type notingConn struct {
	grpc.ClientConnInterface
	note func(ctx context.Context, method string)
}

func (c notingConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	c.note(ctx, method)
	return c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

// A revision is reported after all its changes, and after a second list as well.
func TestInformerTellsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, configMap("a", "1"))
		i := client.NewInformer(c, client.InformerOptions[*corev1.ConfigMap]{})
		j := &journal{}
		i.OnChange(j.note)
		i.OnProgress(func(revision int64) {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.entries = append(j.entries, fmt.Sprint("at ", revision))
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- i.Run(ctx) }()
		defer func() {
			cancel()
			<-done
		}()
		synctest.Wait()
		expect(t, "state", j.take(), "+a=1", "at "+s.Revision())
		clienttest.Seed(s, configMap("b", "1"))
		first := s.Revision()
		clienttest.Seed(s, configMap("a", "2"))
		synctest.Wait()
		expect(t, "changes", j.take(), "+b=1", "at "+first, "a=1>2", "at "+s.Revision())
		s.Disconnect()
		clienttest.Seed(s, configMap("a", "3"))
		s.Compact()
		clientSettles(t, j, 2)
		expect(t, "a second list", j.take(), "a=2>3", "at "+s.Revision())
	})
}

func TestInformerListsAgainWhenCompacted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, configMap("same", "1"), configMap("gone", "1"), configMap("changed", "1"), configMap("reborn", "1"))
		i, j := informed(t, c, client.InformerOptions[*corev1.ConfigMap]{})
		j.take()
		s.Disconnect()
		clienttest.Remove(s, configMap("gone", ""))
		clienttest.Remove(s, configMap("reborn", ""))
		clienttest.Seed(s, configMap("changed", "2"), configMap("new", "1"), configMap("reborn", "2"))
		s.Compact()
		clientSettles(t, j, 5)
		expect(t, "difference", j.take(), "changed=1>2", "+new=1", "-reborn=1", "+reborn=2", "-gone=1")
		clienttest.Seed(s, configMap("same", "2"))
		clientSettles(t, j, 1)
		expect(t, "afterwards", j.take(), "same=1>2")
		if i.Len() != 4 {
			t.Errorf("%d objects, want 4", i.Len())
		}
	})
}

// A watch whose events of a name go from one object to another, without the removal between them.
func TestInformerReportsReplacedObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		first := configMap("a", "1")
		first.Metadata.Uid = "first"
		clienttest.Seed(s, first)
		i, j := informed(t, c, client.InformerOptions[*corev1.ConfigMap]{
			Indexers: map[string]func(*corev1.ConfigMap) []string{"uid": func(m *corev1.ConfigMap) []string { return []string{m.Metadata.Uid} }},
		})
		j.take()
		// The server of the test, unlike the real one, lets an object take another's place in one change.
		second := configMap("a", "2")
		second.Metadata.Uid = "second"
		clienttest.Seed(s, second)
		synctest.Wait()
		expect(t, "changes", j.take(), "-a=1", "+a=2")
		if len(i.ByIndex("uid", "first")) != 0 || len(i.ByIndex("uid", "second")) != 1 || i.Len() != 1 {
			t.Errorf("the index has the replaced object, or lacks the new one")
		}
		clienttest.Remove(s, second)
		synctest.Wait()
		expect(t, "removal", j.take(), "-a=2")
	})
}

func TestInformerTellsOfStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, configMap("a", "1"))
		i := client.NewInformer(c, client.InformerOptions[*corev1.ConfigMap]{})
		var revisions []string
		i.OnState(func() { revisions = append(revisions, i.Revision()) })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- i.Run(ctx) }()
		if err := i.WaitForSync(ctx); err != nil {
			t.Fatal(err)
		}
		want := []string{s.Revision()}
		clienttest.Seed(s, configMap("a", "2"))
		s.Disconnect()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		expect(t, "states after a resumed watch", revisions, want...)
		s.Compact()
		s.Disconnect()
		clienttest.Seed(s, configMap("a", "3"))
		s.Compact()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		expect(t, "states after compaction", revisions, append(want, s.Revision())...)
		cancel()
		<-done
	})
}

func TestInformerSurvivesBrokenInitialState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, configMap("a", "1"))
		tries := 0
		s.Intercept(func(method string, _ proto.Message) error {
			if method != "Watch" {
				return nil
			}
			if tries++; tries <= 5 {
				return status.Error(codes.Unavailable, "not yet")
			}
			return nil
		})
		_, j := informed(t, c, client.InformerOptions[*corev1.ConfigMap]{})
		expect(t, "state", j.take(), "+a=1")
	})
}

func TestInformerSelects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, configMap("in", "1"), configMap("out", "2"))
		_, j := informed(t, c, client.InformerOptions[*corev1.ConfigMap]{Namespace: "default", LabelSelector: "v=1"})
		clienttest.Seed(s, configMap("in", "2"), configMap("out", "1"))
		synctest.Wait()
		expect(t, "changes", j.take(), "+in=1", "-in=2", "+out=1")
	})
}

func TestInformerMetadataOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, configMap("a", "1"))
		k, _ := kinds.ByName("configmaps")
		i := client.NewInformer(c, client.InformerOptions[scheme.Object]{Kind: k, MetadataOnly: true})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = i.Run(ctx) }()
		if err := i.WaitForSync(ctx); err != nil {
			t.Fatal(err)
		}
		obj, ok := i.Get("default", "a")
		if !ok {
			t.Fatal("not found")
		}
		m := obj.(*corev1.ConfigMap)
		if m.Metadata.Labels["v"] != "1" || m.Metadata.ResourceVersion == "" || m.Data != nil {
			t.Errorf("got %v, want the metadata alone", m)
		}
	})
}

// clientSettles waits until the journal has n entries; the informer's backoff runs on the fake
// clock.
func clientSettles(t *testing.T, j *journal, n int) {
	t.Helper()
	for range 1000 {
		synctest.Wait()
		if j.len() >= n {
			return
		}
		tick(t)
	}
	t.Fatalf("waited in vain for %d changes, got %q", n, j.take())
}

func TestInformerHonoursRetryInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, configMap("a", "1"))
		began, tries := time.Now(), 0
		s.Intercept(func(method string, _ proto.Message) error {
			if method != "Watch" {
				return nil
			}
			if tries++; tries <= 3 {
				return apierr.Overloaded(20*time.Second, "busy")
			}
			return nil
		})
		i := client.NewInformer(c, client.InformerOptions[*corev1.ConfigMap]{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = i.Run(ctx) }()
		if err := i.WaitForSync(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < time.Minute || tries != 4 {
			t.Errorf("watched %d times within %v, want 3 pauses of at least the 20 s that the server asks for", tries, took)
		}
	})
}
