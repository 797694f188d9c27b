package controller

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	controlv1 "github.com/xebec-project/xebec/proto/xebec/control/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name},
		Data:     map[string]string{"want": value},
	}
}

// copier is a service whose controller copies "want" to "have" in every config map.
type copier struct {
	*Group
	stop    context.CancelFunc
	done    chan error
	host    string
	writes  atomic.Int64
	broken  atomic.Bool
	panics  atomic.Bool
	active  *atomic.Int64 // over all instances: two at once would be two leaders
	refused atomic.Int64
}

func startCopier(t *testing.T, c *client.Client, host string, active *atomic.Int64) *copier {
	t.Helper()
	p := &copier{host: host, active: active, done: make(chan error, 1)}
	g, err := NewGroup(Config{Service: "copier", Host: host, Client: c, Setup: p.setup})
	if err != nil {
		t.Fatal(err)
	}
	p.Group = g
	ctx, cancel := context.WithCancel(t.Context())
	p.stop = cancel
	go func() { p.done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-p.done
	})
	return p
}

func (p *copier) setup(t *Term) error {
	maps := Informer(t, client.InformerOptions[*corev1.ConfigMap]{})
	For(t.Controller("copy", 2, func(ctx context.Context, k Key) (Result, error) {
		if p.active.Add(1) > 2 {
			panic("two leaders")
		}
		defer p.active.Add(-1)
		if p.panics.Load() {
			panic("as told")
		}
		if p.broken.Load() {
			return Result{}, errors.New("as told")
		}
		m, ok := maps.Get(k.Namespace, k.Name)
		if !ok || m.Data["have"] == m.Data["want"] {
			return Result{}, nil
		}
		m = client.Clone(m)
		m.Data["have"] = m.Data["want"]
		if _, err := client.Update(ctx, t.Client(), m); err != nil {
			p.refused.Add(1)
			return Result{}, err
		}
		p.writes.Add(1)
		return Result{}, nil
	}), maps)
	return nil
}

// eventually waits on the fake clock until cond holds, and returns how long that took.
func eventually(t *testing.T, what string, cond func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	for time.Since(begun) < time.Minute {
		synctest.Wait()
		if cond() {
			return time.Since(begun)
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Fatalf("waited a minute in vain: %s", what)
	return 0
}

func copied(t *testing.T, c *client.Client, name string) bool {
	t.Helper()
	m, err := client.Get[*corev1.ConfigMap](t.Context(), c, "default", name)
	return err == nil && m.Data["have"] == m.Data["want"]
}

func TestGroupLeadsAndReconciles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, configMap("a", "1"))
		var active atomic.Int64
		one := startCopier(t, c, "master-1", &active)
		eventually(t, "copied", func() bool { return copied(t, c, "a") })
		if !one.Leading() || one.Leader() != "copier@master-1" {
			t.Errorf("leading %v, leader %q", one.Leading(), one.Leader())
		}
		two := startCopier(t, c, "master-2", &active)
		eventually(t, "the leader is known", func() bool { return two.Leader() == "copier@master-1" })
		if two.Leading() {
			t.Error("two leaders")
		}
		if _, err := (&service{group: two.Group}).Resync(t.Context(), &controlv1.ResyncRequest{}); apierr.Reason(err) != ReasonNotLeader || !strings.Contains(err.Error(), "copier@master-1") {
			t.Errorf("a follower answers Resync with %v", err)
		}
		resp, err := (&service{group: one.Group}).Resync(t.Context(), &controlv1.ResyncRequest{Service: "copier", Controller: "copy"})
		if err != nil || resp.Keys != 1 {
			t.Errorf("Resync queued %v, %v", resp.GetKeys(), err)
		}
		// A graceful stop hands over at once.
		one.stop()
		if err := <-one.done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
		one.done <- nil
		if d := eventually(t, "handed over", two.Leading); d > 200*time.Millisecond {
			t.Errorf("handed over after %v", d)
		}
		clienttest.Seed(s, configMap("b", "1"))
		eventually(t, "the new leader works", func() bool { return copied(t, c, "b") })
	})
}

// vanish makes the Lease of a leader on master-1 that is gone: under a lease that nobody renews. It returns the leader's
// fence.
func vanish(t *testing.T, c *client.Client) *apiv1.Fence {
	t.Helper()
	grant, err := c.Leases().Grant(t.Context(), &apiv1.GrantRequest{TtlSeconds: 5})
	if err != nil {
		t.Fatal(err)
	}
	holder := "copier@master-1"
	won, err := client.Create(t.Context(), c, &coordinationv1.Lease{
		Metadata: &metav1.ObjectMeta{Namespace: "kube-system", Name: "copier"},
		Spec:     &coordinationv1.LeaseSpec{HolderIdentity: &holder},
	}, client.UnderLease(grant.LeaseId))
	if err != nil {
		t.Fatal(err)
	}
	return &apiv1.Fence{Namespace: "kube-system", Name: "copier", CreateRevision: won.GetMetadata().GetResourceVersion()}
}

// TestGroupSucceedsItself starts an instance anew whose former run was killed: it need not wait for the lapse, and what
// the former run might still write is refused.
func TestGroupSucceedsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		former := vanish(t, c)
		begun := time.Now()
		var active atomic.Int64
		startCopier(t, c, "master-1", &active)
		clienttest.Seed(s, configMap("a", "1"))
		eventually(t, "copied", func() bool { return copied(t, c, "a") })
		if d := time.Since(begun); d > time.Second {
			t.Errorf("works after %v, want within a second", d)
		}
		if _, err := client.Create(t.Context(), c.WithFence(former), configMap("late", "1")); !apierr.IsElectionLost(err) {
			t.Errorf("a write of the former run: %v, want it refused", err)
		}
	})
}

func TestGroupTakesOverWithinASecondOfTheLapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		vanish(t, c)
		begun := time.Now()
		var active atomic.Int64
		again, other := startCopier(t, c, "master-2", &active), startCopier(t, c, "master-3", &active)
		clienttest.Seed(s, configMap("a", "1"))
		eventually(t, "copied", func() bool { return copied(t, c, "a") })
		if d := time.Since(begun); d < 5*time.Second || d > 6*time.Second {
			t.Errorf("taken over after %v, want from 5s to 6s", d)
		}
		if again.Leading() == other.Leading() {
			t.Errorf("leading: %v, %v", again.Leading(), other.Leading())
		}
	})
}

func TestGroupStepsDownAndComesBack(t *testing.T) {
	for name, depose := range map[string]func(*testing.T, *clienttest.Server, *client.Client){
		"the lease lapses": func(t *testing.T, s *clienttest.Server, c *client.Client) {
			s.Disconnect()
			s.Intercept(func(string, proto.Message) error { return status.Error(codes.Unavailable, "the disk stalls") })
			<-time.After(20 * time.Second)
			s.Intercept(nil)
		},
		"the Lease is deleted": func(t *testing.T, s *clienttest.Server, c *client.Client) {
			if _, err := client.Delete[*coordinationv1.Lease](t.Context(), c, "kube-system", "copier"); err != nil {
				t.Error(err)
			}
		},
		"a write is refused": func(t *testing.T, s *clienttest.Server, c *client.Client) {
			once := true
			s.Intercept(func(method string, _ proto.Message) error {
				if method == "Update" && once {
					once = false
					return apierr.ElectionLost("kube-system/copier")
				}
				return nil
			})
			clienttest.Seed(s, configMap("poke", "1"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := clienttest.Start(t)
				var active atomic.Int64
				p := startCopier(t, c, "master-1", &active)
				eventually(t, "leads", p.Leading)
				term := p.current()
				depose(t, s, c)
				eventually(t, "leads a new term", func() bool { now := p.current(); return now != nil && now != term })
				if term.ctx.Err() == nil {
					t.Error("the former term goes on")
				}
				clienttest.Seed(s, configMap("a", "1"))
				eventually(t, "works again", func() bool { return copied(t, c, "a") })
			})
		})
	}
}

// TestCandidaciesInVainBecomeRare has every candidacy fail, for what the watch of the election does not show yet, or because the
// server is overloaded.
func TestCandidaciesInVainBecomeRare(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		most int // candidacies in a minute
	}{
		"another was faster": {status.Error(codes.AlreadyExists, "exists"), 120},
		"unavailable":        {apierr.Unavailable("no"), 120},
		"overloaded":         {apierr.Overloaded(5*time.Second, "busy"), 12},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := clienttest.Start(t)
				s.Intercept(func(method string, _ proto.Message) error {
					if method == "Create" {
						return tc.err
					}
					return nil
				})
				startCopier(t, c, "master-1", &atomic.Int64{})
				<-time.After(time.Minute)
				if n := s.Calls("Create"); n == 0 || n > tc.most {
					t.Errorf("%d candidacies in a minute, want 1 to %d", n, tc.most)
				}
			})
		})
	}
}

func TestGroupRemembersFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		var active atomic.Int64
		p := startCopier(t, c, "master-1", &active)
		p.panics.Store(true)
		clienttest.Seed(s, configMap("a", "1"))
		list := func() *controlv1.Controller {
			resp, err := (&service{group: p.Group}).ListControllers(t.Context(), &controlv1.ListControllersRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if len(resp.Controllers) == 0 {
				return nil
			}
			return resp.Controllers[0]
		}
		eventually(t, "fails", func() bool { return list().GetFailures() >= 3 })
		p.panics.Store(false)
		p.broken.Store(true)
		eventually(t, "fails again", func() bool { return list().GetFailures() >= 12 })
		errs := list().GetLastErrors()
		if len(errs) != lastErrors || errs[0].Key != "default/a" || errs[0].Message != "as told" {
			t.Errorf("%d errors, the newest %v", len(errs), errs[0])
		}
		p.broken.Store(false)
		eventually(t, "recovers", func() bool { return copied(t, c, "a") })
		if l := list(); l.Name != "copy" || l.QueueDepth != 0 || l.Active != 0 {
			t.Errorf("afterwards: %v", l)
		}
	})
}

func TestNewGroupRefuses(t *testing.T) {
	setup := func(*Term) error { return nil }
	c := client.New(nil)
	for name, cfg := range map[string]Config{
		"service": {Host: "h", Client: c, Setup: setup},
		"host":    {Service: "s", Client: c, Setup: setup},
		"client":  {Service: "s", Host: "h", Setup: setup},
		"setup":   {Service: "s", Host: "h", Client: c},
		"lease":   {Service: "s", Host: "h", Client: c, Setup: setup, LeaseTTL: time.Second},
	} {
		if _, err := NewGroup(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without a good %s: %v", name, err)
		}
	}
}
