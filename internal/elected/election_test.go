package elected

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
	"github.com/xebec-project/xebec/internal/controller"
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
	*election
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
	var err error
	if p.election, err = newElection(Config{Name: "copier", Setup: p.setup}, Deps{Host: host, Client: c}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.stop = cancel
	go func() { p.done <- p.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-p.done
	})
	return p
}

func (p *copier) setup(t *controller.Term) error {
	maps := controller.Informer(t, client.InformerOptions[*corev1.ConfigMap]{})
	controller.For(t.Controller("copy", 2, func(ctx context.Context, k controller.Key) (controller.Result, error) {
		if p.active.Add(1) > 2 {
			panic("two leaders")
		}
		defer p.active.Add(-1)
		if p.panics.Load() {
			panic("on purpose")
		}
		if p.broken.Load() {
			return controller.Result{}, errors.New("on purpose")
		}
		m, ok := maps.Get(k.Namespace, k.Name)
		if !ok || m.Data["have"] == m.Data["want"] {
			return controller.Result{}, nil
		}
		m = client.Clone(m)
		m.Data["have"] = m.Data["want"]
		if _, err := client.Update(ctx, t.Client(), m); err != nil {
			p.refused.Add(1)
			return controller.Result{}, err
		}
		p.writes.Add(1)
		return controller.Result{}, nil
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

// leading reports whether the instance leads.
func leading(p *copier) func() bool { return func() bool { return p.current() != nil } }

func copied(t *testing.T, c *client.Client, name string) bool {
	t.Helper()
	m, err := client.Get[*corev1.ConfigMap](t.Context(), c, "default", name)
	return err == nil && m.Data["have"] == m.Data["want"]
}

func TestLeaderReconciles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, configMap("a", "1"))
		var active atomic.Int64
		one := startCopier(t, c, "master-1", &active)
		eventually(t, "copied", func() bool { return copied(t, c, "a") })
		if !leading(one)() || one.leader() != "copier@master-1" {
			t.Errorf("leading %v, leader %q", leading(one)(), one.leader())
		}
		two := startCopier(t, c, "master-2", &active)
		eventually(t, "the leader is known", func() bool { return two.leader() == "copier@master-1" })
		if leading(two)() {
			t.Error("two leaders")
		}
		if _, err := (&controllerService{election: two.election}).Resync(t.Context(), &controlv1.ResyncRequest{}); apierr.Reason(err) != ReasonNotLeader || !strings.Contains(err.Error(), "copier@master-1") {
			t.Errorf("a follower answers Resync with %v", err)
		}
		resp, err := (&controllerService{election: one.election}).Resync(t.Context(), &controlv1.ResyncRequest{Service: "copier", Controller: "copy"})
		if err != nil || resp.Keys != 1 {
			t.Errorf("Resync queued %v, %v", resp.GetKeys(), err)
		}
		// A graceful stop hands over at once.
		one.stop()
		if err := <-one.done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
		one.done <- nil
		if d := eventually(t, "handed over", leading(two)); d > 200*time.Millisecond {
			t.Errorf("handed over after %v", d)
		}
		clienttest.Seed(s, configMap("b", "1"))
		eventually(t, "the new leader works", func() bool { return copied(t, c, "b") })
	})
}

// vanish makes the Lease of a leader on master-1 that is gone: under a lease that is not renewed.
// It returns the leader's fence.
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

// TestRestartedLeaderLeadsAtOnce starts an instance again whose earlier run was killed: it does not
// wait for the lease to expire, and what the former run might still write is refused.
func TestRestartedLeaderLeadsAtOnce(t *testing.T) {
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

func TestFollowerLeadsWithinASecondOfLeaseExpiry(t *testing.T) {
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
		if leading(again)() == leading(other)() {
			t.Errorf("leading: %v, %v", leading(again)(), leading(other)())
		}
	})
}

func TestDeposedLeaderLeadsAgain(t *testing.T) {
	for name, depose := range map[string]func(*testing.T, *clienttest.Server, *client.Client){
		"the lease expires": func(t *testing.T, s *clienttest.Server, c *client.Client) {
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
				eventually(t, "leads", leading(p))
				term := p.current()
				depose(t, s, c)
				eventually(t, "leads a new term", func() bool { now := p.current(); return now != nil && now != term })
				clienttest.Seed(s, configMap("a", "1"))
				eventually(t, "works again", func() bool { return copied(t, c, "a") })
			})
		})
	}
}

// TestFailedCandidaciesBackOff has every candidacy fail, for what the watch of the election does
// not show yet, or because the server is overloaded.
func TestFailedCandidaciesBackOff(t *testing.T) {
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

func TestListControllersShowsFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		var active atomic.Int64
		p := startCopier(t, c, "master-1", &active)
		p.panics.Store(true)
		clienttest.Seed(s, configMap("a", "1"))
		list := func() *controlv1.Controller {
			resp, err := (&controllerService{election: p.election}).ListControllers(t.Context(), &controlv1.ListControllersRequest{})
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
		if len(errs) != 10 || errs[0].Key != "default/a" || errs[0].Message != "on purpose" {
			t.Errorf("%d errors, the newest %v", len(errs), errs[0])
		}
		p.broken.Store(false)
		eventually(t, "recovers", func() bool { return copied(t, c, "a") })
		if l := list(); l.Name != "copy" || l.QueueDepth != 0 || l.Active != 0 {
			t.Errorf("afterwards: %v", l)
		}
	})
}

func TestNewRefusesIncompleteConfigurations(t *testing.T) {
	setup := func(*controller.Term) error { return nil }
	c := client.New(nil)
	for want, tt := range map[string]struct {
		cfg  Config
		deps Deps
	}{
		"no name":             {Config{Setup: setup}, Deps{Host: "h", Client: c}},
		"no name of the host": {Config{Name: "s", Setup: setup}, Deps{Client: c}},
		"no client":           {Config{Name: "s", Setup: setup}, Deps{Host: "h"}},
		"no setup":            {Config{Name: "s"}, Deps{Host: "h", Client: c}},
		"want 2s or more":     {Config{Name: "s", Setup: setup, LeaseTTL: time.Second}, Deps{Host: "h", Client: c}},
	} {
		if _, err := New(tt.cfg, tt.deps); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("got %v, want an error that ends in %q", err, want)
		}
	}
}
