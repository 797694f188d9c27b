package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// cluster has ReplicaSets, their pods and informers of both, on the fake clock.
type cluster struct {
	*Dependents[*appsv1.ReplicaSet, *corev1.Pod]
	t      *testing.T
	server *clienttest.Server
}

// unanswered loses the answer to the next transaction while it is set.
type unanswered struct {
	grpc.ClientConnInterface
	lose *atomic.Bool
}

func (u unanswered) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	err := u.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	if err == nil && strings.HasSuffix(method, "/Transact") && u.lose.CompareAndSwap(true, false) {
		return apierr.Unavailable("the answer was lost")
	}
	return err
}

func newCluster(t *testing.T) (c *cluster, loseAnswer *atomic.Bool) {
	t.Helper()
	server, lose := clienttest.NewServer(), &atomic.Bool{}
	api := client.New(unanswered{clienttest.Serve(t, server), lose})
	sets := client.NewInformer(api, client.InformerOptions[*appsv1.ReplicaSet]{})
	pods := client.NewInformer(api, client.InformerOptions[*corev1.Pod]{Indexers: ByController[*corev1.Pod]()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- sets.Run(ctx) }()
	go func() { done <- pods.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
	})
	d := NewDependents(DependentsConfig[*appsv1.ReplicaSet, *corev1.Pod]{
		Client: api, Owners: sets, Dependents: pods,
		Selector:  func(rs *appsv1.ReplicaSet) *metav1.LabelSelector { return rs.GetSpec().GetSelector() },
		Claimable: func(p *corev1.Pod) bool { return !core.IsPodFinished(p) },
	})
	synctest.Wait()
	return &cluster{Dependents: d, t: t, server: server}, lose
}

// set stores a ReplicaSet that selects app=web.
func (c *cluster) set(name string) *appsv1.ReplicaSet {
	return clienttest.Seed(c.server, &appsv1.ReplicaSet{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:     &appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	})[0]
}

func webPod(name string, changes ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}},
		Spec:     &corev1.PodSpec{Containers: []*corev1.Container{{Name: "c", Image: "example/echo:1"}}},
	}
	for _, change := range changes {
		change(p)
	}
	return p
}

func labelled(app string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Metadata.Labels = map[string]string{"app": app} }
}

func controlledBy(owner scheme.Object) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Metadata.OwnerReferences = []*metav1.OwnerReference{kinds.NewControllerRef(owner)}
	}
}

// pod stores a pod.
func (c *cluster) pod(name string, changes ...func(*corev1.Pod)) *corev1.Pod {
	p := webPod(name, changes...)
	kinds.Of(p).Default(p)
	return clienttest.Seed(c.server, p)[0]
}

// blind keeps the informers from seeing changes, until the returned function is called.
func (c *cluster) blind() (see func()) {
	c.server.Intercept(func(method string, _ proto.Message) error {
		if method == "Watch" {
			return apierr.Unavailable("no watches now")
		}
		return nil
	})
	c.server.Disconnect()
	synctest.Wait()
	return func() {
		c.server.Intercept(nil)
		c.settle()
	}
}

// settle lets the informers catch up.
func (c *cluster) settle() {
	<-time.After(10 * time.Second)
	synctest.Wait()
}

// claim returns the names of the dependents, or "waits".
func (c *cluster) claim(owner *appsv1.ReplicaSet) string {
	c.t.Helper()
	pods, wait, err := c.Claim(c.t.Context(), owner)
	if err != nil {
		c.t.Fatalf("claim of %s: %v", owner.GetMetadata().GetName(), err)
	}
	if wait > 0 {
		return "waits"
	}
	names := []string{}
	for _, p := range pods {
		names = append(names, p.GetMetadata().GetName())
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func (c *cluster) want(what, got, want string) {
	c.t.Helper()
	if got != want {
		c.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// controllers returns "pod=owner" for every pod that the API shows with a controller.
func (c *cluster) controllers() string {
	c.t.Helper()
	pods, _, err := client.List[*corev1.Pod](c.t.Context(), c.Client, client.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	var all []string
	for _, p := range pods {
		if ref := kinds.ControllerOf(p); ref != nil {
			all = append(all, p.GetMetadata().GetName()+"="+ref.GetName())
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// build makes the pod of an index.
func build(i int) *corev1.Pod { return webPod(fmt.Sprintf("web-%d", i)) }

func deleting(p *corev1.Pod) { p.Metadata.DeletionTimestamp = timestamppb.Now() }

func TestClaimAdoptsAndReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newCluster(t)
		web, other := c.set("web"), c.set("other")
		c.pod("orphan")
		c.pod("owned", controlledBy(web))
		c.pod("relabelled", controlledBy(web), labelled("db"))
		c.pod("shared", controlledBy(web), labelled("db"), func(p *corev1.Pod) {
			p.Metadata.OwnerReferences = append(p.Metadata.OwnerReferences, kinds.NewOwnerRef(other))
		})
		c.pod("theirs", controlledBy(other))
		c.pod("unmatched", labelled("db"))
		c.pod("deleting", deleting, func(p *corev1.Pod) { p.Metadata.Finalizers = []string{"example.com/held"} })
		c.pod("finished", func(p *corev1.Pod) { p.Status = &corev1.PodStatus{Phase: core.PodFailed} })
		c.pod("finished-relabelled", controlledBy(web), labelled("db"), func(p *corev1.Pod) {
			p.Status = &corev1.PodStatus{Phase: core.PodFailed}
		})
		clienttest.Seed(c.server, webPod("elsewhere", func(p *corev1.Pod) { p.Metadata.Namespace = "other" }))
		synctest.Wait()

		c.want("the first claim", c.claim(web), "waits")
		c.settle()
		c.want("the second", c.claim(web), "finished-relabelled orphan owned")
		c.want("controllers", c.controllers(), "finished-relabelled=web orphan=web owned=web theirs=other")
		shared, err := client.Get[*corev1.Pod](t.Context(), c.Client, "default", "shared")
		if err != nil || len(shared.GetMetadata().GetOwnerReferences()) != 1 {
			t.Errorf("owners of a released pod that has another owner: %v, %v", shared.GetMetadata().GetOwnerReferences(), err)
		}
		if n := c.server.Calls("Patch"); n != 3 {
			t.Errorf("%d patches, want 3: one for each pod adopted or released", n)
		}
	})
}

func TestAdoptionAndCreationNeedLiveOwner(t *testing.T) {
	for name, change := range map[string]func(*cluster, *appsv1.ReplicaSet){
		"deleted": func(c *cluster, rs *appsv1.ReplicaSet) { clienttest.Remove(c.server, rs) },
		"made again under the name": func(c *cluster, rs *appsv1.ReplicaSet) {
			clienttest.Remove(c.server, rs)
			c.set("web")
		},
		"being deleted": func(c *cluster, rs *appsv1.ReplicaSet) {
			rs = client.Clone(rs)
			rs.Metadata.DeletionTimestamp, rs.Metadata.Finalizers = timestamppb.Now(), []string{"foregroundDeletion"}
			clienttest.Seed(c.server, rs)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newCluster(t)
				web := c.set("web")
				c.pod("orphan")
				synctest.Wait()
				change(c, web) // the caller's web is what its informer still shows
				c.want("claim", c.claim(web), "")
				c.want("controllers", c.controllers(), "")
				if created, err := c.Create(t.Context(), web, 2, build); err != nil || len(created) > 0 {
					t.Errorf("created %v, %v, want nothing", created, err)
				}
			})
		})
	}
}

func TestDeletedOwnerKeepsDependents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newCluster(t)
		web := client.Clone(c.set("web"))
		web.Metadata.DeletionTimestamp = timestamppb.Now()
		c.pod("orphan")
		c.pod("relabelled", controlledBy(web), labelled("db"))
		synctest.Wait()
		c.want("claim", c.claim(web), "relabelled")
		c.want("controllers", c.controllers(), "relabelled=web")
	})
}

func TestOrphanIsAdoptedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newCluster(t)
		first, second := c.set("first"), c.set("second")
		c.pod("orphan")
		synctest.Wait()
		see := c.blind()
		c.want("the first claim", c.claim(first), "waits")
		if _, _, err := c.Claim(t.Context(), second); !apierr.IsConflict(err) || !strings.Contains(err.Error(), "adopt Pod orphan") {
			t.Errorf("the second set's claim of the same pod: %v, want a conflict", err)
		}
		see()
		c.want("the first", c.claim(first), "orphan")
		c.want("the second", c.claim(second), "")
		c.want("controllers", c.controllers(), "orphan=first")
	})
}

func TestAdoptionSeesConcurrentChanges(t *testing.T) {
	for name, tt := range map[string]struct {
		change   func(c *cluster, p *corev1.Pod)
		conflict bool
	}{
		"relabelled":       {func(c *cluster, _ *corev1.Pod) { c.pod("orphan", labelled("db")) }, true},
		"replaced":         {func(c *cluster, p *corev1.Pod) { clienttest.Remove(c.server, p); c.pod("orphan", labelled("db")) }, true},
		"deleted":          {func(c *cluster, p *corev1.Pod) { clienttest.Remove(c.server, p) }, false},
		"relabelled twice": {func(c *cluster, _ *corev1.Pod) { c.pod("orphan", labelled("db")); c.pod("orphan") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newCluster(t)
				web, p := c.set("web"), c.pod("orphan")
				synctest.Wait()
				c.blind()
				tt.change(c, p)
				if _, _, err := c.Claim(t.Context(), web); apierr.IsConflict(err) != tt.conflict || err != nil && !tt.conflict {
					t.Errorf("claim: %v, want a conflict: %t", err, tt.conflict)
				}
				c.want("controllers", c.controllers(), "")
			})
		})
	}
}

func TestWritesAreAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newCluster(t)
		web := c.set("web")
		synctest.Wait()
		see := c.blind()
		created, err := c.Create(t.Context(), web, 3, build)
		if err != nil || fmt.Sprint(created) != "[default/web-0 default/web-1 default/web-2]" {
			t.Fatalf("created %v, %v", created, err)
		}
		c.want("before the informer shows the pods", c.claim(web), "waits")
		see()
		c.want("after", c.claim(web), "web-0 web-1 web-2")

		see = c.blind()
		pods := ControlledBy(c.Dependents.Dependents, web.GetMetadata().GetUid())
		deleted, err := c.Delete(t.Context(), web, pods[:2])
		if err != nil || len(deleted) != 2 {
			t.Fatalf("deleted %v, %v", deleted, err)
		}
		c.want("before the informer shows the deletions", c.claim(web), "waits")
		see()
		if pods, wait, err := c.Claim(t.Context(), web); err != nil || wait > 0 || len(pods) != 1 {
			t.Errorf("after: %v, %v, %v", pods, wait, err)
		}
	})
}

// TestMissedEvents has changes of which the informer never gets an event: it lists again.
func TestMissedEvents(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*cluster)
		want   string
	}{
		"a created pod is gone": {func(c *cluster) { clienttest.Remove(c.server, webPod("web-0")) }, "web-1"},
		"a created pod is another's": {func(c *cluster) {
			clienttest.Remove(c.server, webPod("web-0"))
			c.pod("web-0", controlledBy(c.set("other")))
		}, "web-1"},
		"a created pod was replaced": {func(c *cluster) {
			web, err := client.Get[*appsv1.ReplicaSet](c.t.Context(), c.Client, "default", "web")
			if err != nil {
				c.t.Fatal(err)
			}
			clienttest.Remove(c.server, webPod("web-0"))
			c.pod("web-0", controlledBy(web))
		}, "web-0 web-1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newCluster(t)
				web := c.set("web")
				synctest.Wait()
				see := c.blind()
				if _, err := c.Create(t.Context(), web, 2, build); err != nil {
					t.Fatal(err)
				}
				tt.change(c)
				c.server.Compact()
				see()
				c.want("claim", c.claim(web), tt.want)
			})
		})
	}
}

func TestExpiredExpectationsAskTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newCluster(t)
		web := c.set("web")
		synctest.Wait()
		c.blind() // for good
		if _, err := c.Create(t.Context(), web, 2, build); err != nil {
			t.Fatal(err)
		}
		before := c.server.Calls("List")
		c.want("at once", c.claim(web), "waits")
		if n := c.server.Calls("List") - before; n != 0 {
			t.Errorf("%d lists before the expectations expire", n)
		}
		time.Sleep(expectationsTimeout)
		c.want("expired, but the pods exist", c.claim(web), "waits")
		if n := c.server.Calls("List") - before; n != 1 {
			t.Errorf("%d lists when they expire, want 1", n)
		}
		for i := range 2 {
			clienttest.Remove(c.server, build(i))
		}
		time.Sleep(expectationsTimeout)
		c.want("expired, and the pods are gone", c.claim(web), "")
	})
}

func TestUnansweredWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, loseAnswer := newCluster(t)
		web := c.set("web")
		synctest.Wait()
		see := c.blind()
		loseAnswer.Store(true)
		if created, err := c.Create(t.Context(), web, 2, build); !apierr.IsUnavailable(err) || len(created) != 0 {
			t.Fatalf("created %v, %v", created, err)
		}
		c.want("the pods exist, and the informer does not show them", c.claim(web), "waits")
		see()
		c.want("it does", c.claim(web), "web-0 web-1")

		see = c.blind()
		loseAnswer.Store(true)
		if _, err := c.Delete(t.Context(), web, ControlledBy(c.Dependents.Dependents, web.GetMetadata().GetUid())); !apierr.IsUnavailable(err) {
			t.Fatalf("delete: %v", err)
		}
		c.want("the pods are gone, and the informer shows them", c.claim(web), "waits")
		see()
		c.want("it does not", c.claim(web), "")

		// A write that did not happen is not waited for.
		c.server.Intercept(func(method string, _ proto.Message) error {
			if method == "Transact" {
				return apierr.Unavailable("no")
			}
			return nil
		})
		if _, err := c.Create(t.Context(), web, 2, build); !apierr.IsUnavailable(err) {
			t.Fatalf("create: %v", err)
		}
		c.want("nothing was written", c.claim(web), "")
	})
}

func TestDeleteChecksUIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newCluster(t)
		web := c.set("web")
		stale := []*corev1.Pod{}
		for _, name := range []string{"stays", "replaced", "gone", "goes"} {
			stale = append(stale, c.pod(name, controlledBy(web)))
		}
		clienttest.Remove(c.server, stale[1])
		c.pod("replaced", controlledBy(web))
		clienttest.Remove(c.server, stale[2])
		deleted, err := c.Delete(t.Context(), web, stale[1:])
		if err != nil || fmt.Sprint(deleted) != "[default/goes]" {
			t.Errorf("deleted %v, %v; want the one that is still the same", deleted, err)
		}
		c.settle()
		c.want("claim", c.claim(web), "replaced stays")
	})
}

// TestReplacedDependentIsNotAwaited deletes a pod and makes it again under its name at once, as a
// StatefulSet does.
func TestReplacedDependentIsNotAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newCluster(t)
		web := c.set("web")
		old := c.pod("web-0", controlledBy(web))
		synctest.Wait()
		see := c.blind()
		if _, err := c.Delete(t.Context(), web, []*corev1.Pod{old}); err != nil {
			t.Fatal(err)
		}
		clienttest.Remove(c.server, old)
		c.pod("web-0", controlledBy(web))
		see()
		c.want("claim", c.claim(web), "web-0")
	})
}

func TestCreateBatches(t *testing.T) {
	large := strings.Repeat("x", 200<<10)
	for _, tt := range []struct {
		name      string
		n         int
		annotated string
		most      int // operations that the server takes at once
		want      int // transactions
	}{
		{"none", 0, "", 500, 0},
		{"one batch", 250, "", 500, 1},
		{"three batches", 600, "", 500, 3},
		{"large objects", 12, large, 500, 3},
		{"a server that takes fewer", 130, "", 100, 3}, // 130 refused, then 65 and 65
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newCluster(t)
				web := c.set("web")
				c.server.Intercept(func(_ string, req proto.Message) error {
					if r, ok := req.(*apiv1.TransactRequest); ok && len(r.GetOperations()) > tt.most {
						return apierr.BadField("operations", "too many")
					}
					return nil
				})
				created, err := c.Create(t.Context(), web, tt.n, func(i int) *corev1.Pod {
					p := build(i)
					p.Metadata.Annotations = map[string]string{"note": tt.annotated}
					return p
				})
				names := map[Key]bool{}
				for _, k := range created {
					names[k] = true
				}
				if err != nil || len(names) != tt.n {
					t.Errorf("created %d of %d: %v", len(names), tt.n, err)
				}
				if n := c.server.Calls("Transact"); n != tt.want {
					t.Errorf("%d transactions, want %d", n, tt.want)
				}
			})
		})
	}
}

func TestCreateReportsWhatExists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newCluster(t)
		web := c.set("web")
		c.pod("web-3")
		created, err := c.Create(t.Context(), web, 5, build)
		if !apierr.IsAlreadyExists(err) || len(created) != 0 {
			t.Errorf("created %v in a transaction that failed: %v", created, err)
		}
		c.server.Intercept(func(_ string, req proto.Message) error {
			if r, ok := req.(*apiv1.TransactRequest); ok && len(r.GetOperations()) > 2 {
				return apierr.BadField("operations", "too many")
			}
			return nil
		})
		created, err = c.Create(t.Context(), web, 5, build)
		if !apierr.IsAlreadyExists(err) || fmt.Sprint(created) != "[default/web-0 default/web-1]" {
			t.Errorf("created %v before the transaction that failed: %v", created, err)
		}
		c.settle()
		c.want("controllers", c.controllers(), "web-0=web web-1=web")
	})
}

func TestWatchEnqueuesOwnersAndAdopters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, api := clienttest.Start(t)
		c := &cluster{t: t, server: server}
		web := c.set("web")
		c.set("also")

		ctx, cancel := context.WithCancel(t.Context())
		seen := map[Key]bool{}
		term := NewTerm(ctx, api, nil, NewMetrics(nil))
		sets := Informer(term, client.InformerOptions[*appsv1.ReplicaSet]{})
		pods := Informer(term, client.InformerOptions[*corev1.Pod]{Indexers: ByController[*corev1.Pod]()})
		NewDependents(DependentsConfig[*appsv1.ReplicaSet, *corev1.Pod]{
			Client: term.Client(), Owners: sets, Dependents: pods,
			Selector: func(rs *appsv1.ReplicaSet) *metav1.LabelSelector { return rs.GetSpec().GetSelector() },
		}).Watch(term.Controller("test", 1, func(_ context.Context, k Key) (Result, error) {
			seen[k] = true
			return Result{}, nil
		}))
		done := make(chan error, 1)
		go func() { done <- term.Run() }()
		defer func() { cancel(); <-done }()
		c.settle()
		step := func(what string, act func(), want string) {
			t.Helper()
			clear(seen)
			act()
			c.settle()
			if got := fmt.Sprint(slices.SortedFunc(maps.Keys(seen), func(a, b Key) int { return strings.Compare(a.Name, b.Name) })); got != want {
				t.Errorf("%s: enqueued %s, want %s", what, got, want)
			}
		}
		step("an orphan", func() { c.pod("orphan") }, "[default/also default/web]")
		step("one that matches nothing", func() { c.pod("db", labelled("db")) }, "[]")
		step("one that is controlled", func() { c.pod("owned", controlledBy(web)) }, "[default/web]")
		step("it is deleted", func() { clienttest.Remove(server, webPod("owned")) }, "[default/web]")
	})
}
