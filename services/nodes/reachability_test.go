package nodes

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/kinds/core"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// machines are simulated nodes: their agents renew leases and answer, unless something is wrong
// with them.
type machines struct {
	client *client.Client
	work   sync.WaitGroup

	mu sync.Mutex
	// mute agents do not answer; cut ones answer other nodes only. Neither renews its lease.
	mute, cut map[string]bool
	changed   chan struct{} // closed at each change of mute and cut
}

var errNoAnswer = errors.New("no answer")

// ask is the service's, as Service.ask says.
func (m *machines) ask(ctx context.Context, from, node *corev1.Node) error {
	name := node.GetMetadata().GetName()
	for {
		m.mu.Lock()
		answers := !m.mute[name] && (from == nil && !m.cut[name] || from != nil && !m.mute[from.GetMetadata().GetName()])
		changed := m.changed
		m.mu.Unlock()
		if answers {
			return nil
		}
		select {
		case <-ctx.Done():
			return errNoAnswer
		case <-changed:
		}
	}
}

func (m *machines) set(of map[string]bool, value bool, names ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		of[name] = value
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

// run is one node's agent.
func (m *machines) run(ctx context.Context, t *testing.T, name string) {
	for ctx.Err() == nil {
		m.mu.Lock()
		lost, changed := m.mute[name] || m.cut[name], m.changed
		m.mu.Unlock()
		alive, silence := context.WithCancel(ctx)
		if !lost {
			if err := m.beat(alive, name); err != nil {
				t.Errorf("heartbeat of %s: %v", name, err)
			}
		}
		for same := true; same && ctx.Err() == nil; {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			m.mu.Lock()
			same, changed = lost == (m.mute[name] || m.cut[name]), m.changed
			m.mu.Unlock()
		}
		silence()
	}
}

func (m *machines) beat(ctx context.Context, name string) error {
	lease, err := client.KeepLease(ctx, m.client, heartbeatTTL, nil)
	if err != nil {
		return err
	}
	_, _ = client.Delete[*coordinationv1.Lease](ctx, m.client, heartbeatNamespace, name)
	heartbeat := &coordinationv1.Lease{Metadata: &metav1.ObjectMeta{Namespace: heartbeatNamespace, Name: name}}
	if _, err := client.Create(ctx, m.client, heartbeat, client.UnderLease(lease.ID())); err != nil {
		return err
	}
	m.work.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second): // as agents do, after which they are believed
		}
		for ctx.Err() == nil {
			n, err := client.Get[*corev1.Node](ctx, m.client, "", name)
			if err != nil {
				return
			}
			n.Status.Conditions = []*corev1.NodeCondition{{Type: core.NodeReady, Status: condition.True}}
			if _, err := client.UpdateStatus(ctx, m.client, n); err == nil {
				return
			}
		}
	})
	return nil
}

// lossy is a number of machines, each with a pod of its name, under the service; then something
// happens. It returns when each pod was evicted, as seen every 100 ms, after what happened.
func lossy(t *testing.T, count int, happens func(m *machines, others []string)) map[string]time.Duration {
	t.Helper()
	server, c := clienttest.Start(t)
	cfg := DefaultConfig()
	svc, err := New(cfg, Deps{Deps: elected.Deps{Host: "master-1", Client: c}})
	if err != nil {
		t.Fatal(err)
	}
	m := &machines{client: c, mute: map[string]bool{}, cut: map[string]bool{}, changed: make(chan struct{})}
	svc.ask = m.ask
	ctx, cancel := context.WithCancel(t.Context())
	m.work.Go(func() { _ = svc.Run(ctx) })
	var others []string
	for i := range count {
		name := fmt.Sprintf("node-%d", i)
		if i > 0 {
			others = append(others, name)
		}
		clienttest.Seed(server, &corev1.Node{
			Metadata: &metav1.ObjectMeta{Name: name}, Spec: &corev1.NodeSpec{PodCidr: fmt.Sprintf("10.244.%d.0/24", i)},
			Status: &corev1.NodeStatus{Addresses: []*corev1.NodeAddress{{Type: "InternalIP", Address: "192.0.2.1"}}},
		})
		clienttest.Seed(server, &corev1.Pod{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: &corev1.PodSpec{NodeName: name}})
		m.work.Go(func() { m.run(ctx, t, name) })
	}
	<-time.After(30 * time.Second)
	began := time.Now()
	done := make(chan struct{})
	m.work.Go(func() {
		happens(m, others)
		close(done)
	})
	evicted := map[string]time.Duration{}
	for over := false; !over; {
		select {
		case <-done:
			over = true
		case <-time.After(100 * time.Millisecond):
		}
		all, _, err := client.List[*corev1.Pod](ctx, c, client.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			if name := p.GetMetadata().GetName(); p.GetMetadata().GetDeletionTimestamp() != nil && evicted[name] == 0 {
				evicted[name] = time.Since(began)
			}
		}
		if len(all) != count {
			t.Fatalf("%d pods are there, want %d: no end of a pod was confirmed", len(all), count)
		}
	}
	cancel()
	m.work.Wait()
	return evicted
}

func TestSlowNodesKeepTheirPods(t *testing.T) {
	for _, tt := range []struct {
		name    string
		count   int
		happens func(m *machines, others []string)
		// within is when all pods of other nodes must have been evicted, zero for never.
		within [2]time.Duration
	}{
		{"a hundred agents are paused for 15 s", 101, func(m *machines, others []string) {
			m.set(m.mute, true, others...)
			<-time.After(15 * time.Second)
			m.set(m.mute, false, others...)
			<-time.After(time.Minute)
		}, [2]time.Duration{}},
		{"twenty nodes are cut off from the masters", 21, func(m *machines, others []string) {
			m.set(m.cut, true, others...)
			<-time.After(5 * time.Minute)
		}, [2]time.Duration{}},
		{"a node is cut off from the masters, and paused for 15 s", 2, func(m *machines, others []string) {
			m.set(m.cut, true, others...)
			<-time.After(100 * time.Second)
			m.set(m.mute, true, others...)
			<-time.After(15 * time.Second)
			m.set(m.mute, false, others...)
			<-time.After(100 * time.Second)
		}, [2]time.Duration{}},
		{"a node loses power", 3, func(m *machines, others []string) {
			m.set(m.mute, true, others[0])
			<-time.After(time.Minute)
		}, [2]time.Duration{16 * time.Second, 22 * time.Second}},
		{"three nodes of eleven lose power: one is evicted every 10 s", 11, func(m *machines, others []string) {
			m.set(m.mute, true, others[:3]...)
			<-time.After(time.Minute)
		}, [2]time.Duration{16 * time.Second, 43 * time.Second}},
		{"twenty nodes of the only zone lose power", 21, func(m *machines, others []string) {
			m.set(m.mute, true, others...)
			<-time.After(5 * time.Minute)
		}, [2]time.Duration{}},
		{"a node is cut off from the masters, and loses power", 2, func(m *machines, others []string) {
			m.set(m.cut, true, others...)
			<-time.After(100 * time.Second)
			m.set(m.mute, true, others...)
			<-time.After(time.Minute)
		}, [2]time.Duration{104 * time.Second, 125 * time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				evicted := lossy(t, tt.count, tt.happens)
				if tt.within[1] == 0 {
					if len(evicted) > 0 {
						t.Errorf("pods were evicted: %v", evicted)
					}
					return
				}
				if len(evicted) == 0 {
					t.Error("no pod was evicted")
				}
				for name, after := range evicted {
					if after < tt.within[0] || after > tt.within[1] {
						t.Errorf("the pod of %s was evicted after %v, want within %v", name, after, tt.within)
					}
				}
			})
		})
	}
}
