package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/loopbacktest"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestMain runs the DNS process if the test program was started as one. It fails when a goroutine
// outlives the tests.
func TestMain(m *testing.M) {
	if Asked() {
		os.Exit(Run())
	}
	goleak.VerifyTestMain(m)
}

const patience = 60 * time.Second

// host is a machine with a directory and an address for DNS; agents come and go.
type host struct {
	*testing.T
	dir     string
	address netip.AddrPort
	version string
}

func newHost(t *testing.T) *host {
	h := &host{T: t, dir: filepath.Join(t.TempDir(), "dns"), address: loopbacktest.Address(t), version: "1"}
	t.Cleanup(func() {
		if pid := h.pid(); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return h
}

// pid returns the process that agents find, 0 for none.
func (h *host) pid() int {
	content, err := os.ReadFile(pidPath(h.dir))
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		h.Error(err)
	}
	pid, err := strconv.Atoi(string(content))
	if err != nil {
		h.Error(err)
	}
	return pid
}

// agent is the part of an agent that updates DNS, until it is killed.
func (h *host) agent() (r *Resolver, kill func()) {
	h.Helper()
	r, err := New(Config{
		Settings: Settings{Version: h.version, Domain: "cluster.local", Address: h.address}, Dir: h.dir, Log: zaptest.NewLogger(h),
	})
	if err == nil {
		err = r.Start(h.Context())
	}
	if err != nil {
		h.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx)
	}()
	kill = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	h.Cleanup(kill)
	return r, kill
}

func (h *host) lookup(network, name string) (string, error) {
	ask := new(miekg.Msg).SetQuestion(name+".default.svc.cluster.local.", miekg.TypeA)
	client := miekg.Client{Net: network, Timeout: 10 * time.Second}
	answer, _, err := client.Exchange(ask, h.address.String())
	switch {
	case err != nil:
		return "", err
	case answer.Rcode != miekg.RcodeSuccess:
		return miekg.RcodeToString[answer.Rcode], nil
	case len(answer.Answer) != 1:
		return "", fmt.Errorf("%d answers", len(answer.Answer))
	}
	return answer.Answer[0].(*miekg.A).A.String(), nil
}

func (h *host) until(name, want string) {
	h.Helper()
	got, err := "", error(nil)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if got, err = h.lookup("udp", name); err == nil && got == want {
			return
		}
	}
	h.Fatalf("%s is %s (%v), want %s", name, got, err, want)
}

func (h *host) untilDead(pid int) {
	h.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return
		}
	}
	h.Fatalf("process %d still runs", pid)
}

// storm asks for a name by UDP and TCP without pause until stop is called, which fails the test for
// each answer but want.
func (h *host) storm(name, want string) (stop func()) {
	var asked, failed atomic.Int64
	var first atomic.Value
	done := make(chan struct{})
	var all sync.WaitGroup
	for _, network := range []string{"udp", "udp", "tcp"} {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				got, err := h.lookup(network, name)
				asked.Add(1)
				if err != nil || got != want {
					failed.Add(1)
					first.CompareAndSwap(nil, fmt.Sprintf("%s: %s (%v)", network, got, err))
				}
			}
		})
	}
	return func() {
		h.Helper()
		close(done)
		all.Wait()
		if failed.Load() > 0 {
			h.Errorf("%d of %d queries failed, the first by %v", failed.Load(), asked.Load(), first.Load())
		}
		if asked.Load() == 0 {
			h.Error("nothing was asked")
		}
	}
}

func service(name, ip string) *corev1.Service {
	return &corev1.Service{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: &corev1.ServiceSpec{ClusterIp: ip}}
}

func slice(name, service, ip string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		Metadata:    &metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"kubernetes.io/service-name": service}},
		AddressType: "IPv4", Endpoints: []*discoveryv1.Endpoint{{Addresses: []string{ip}}},
	}
}

// TestProcessOutlivesAgents kills agents while names are asked for: answers come from the last
// state until an agent has sent a whole one.
func TestProcessOutlivesAgents(t *testing.T) {
	h := newHost(t)
	r, kill := h.agent()
	r.OnService(nil, service("kept", "10.96.0.1"))
	r.OnService(nil, service("moved", "10.96.0.2"))
	r.OnService(nil, service("removed", "10.96.0.3"))
	r.OnService(nil, service("headless", "None"))
	r.OnEndpointSlice(nil, slice("a", "headless", "10.244.0.1"))
	r.Synced()
	h.until("kept", "10.96.0.1")
	h.until("headless", "10.244.0.1")
	pid := h.pid()

	stop := h.storm("kept", "10.96.0.1")
	for range 20 {
		kill()
		r, kill = h.agent() // killed before it knows anything
	}
	r.OnService(nil, service("kept", "10.96.0.1"))
	r.OnService(nil, service("moved", "10.96.0.4"))
	h.until("moved", "10.96.0.2")
	r.OnService(nil, service("headless", "None"))
	r.OnEndpointSlice(nil, slice("a", "headless", "10.244.0.1"))
	r.Synced()
	h.until("moved", "10.96.0.4")
	h.until("removed", "NXDOMAIN")
	r.OnEndpointSlice(slice("a", "headless", "10.244.0.1"), slice("a", "headless", "10.244.0.2"))
	h.until("headless", "10.244.0.2")
	r.OnEndpointSlice(slice("a", "headless", "10.244.0.2"), nil)
	h.until("headless", "NXDOMAIN")
	r.OnService(service("moved", "10.96.0.4"), nil)
	h.until("moved", "NXDOMAIN")
	stop()
	if got := h.pid(); got != pid {
		t.Errorf("process %d was replaced by %d", pid, got)
	}
}

// TestSuccessor replaces the process by that of another version while names are asked for.
func TestSuccessor(t *testing.T) {
	h := newHost(t)
	r, kill := h.agent()
	r.OnService(nil, service("kept", "10.96.0.1"))
	r.Synced()
	h.until("kept", "10.96.0.1")
	stop := h.storm("kept", "10.96.0.1")
	pids := []int{h.pid()}
	for _, h.version = range []string{"2", "3", "4"} {
		kill()
		r, kill = h.agent()
		if h.version == "3" {
			continue // this agent dies before its process has replaced the one before
		}
		r.OnService(nil, service("kept", "10.96.0.1"))
		r.OnService(nil, service("version", "10.96.1."+h.version))
		r.Synced()
		h.until("version", "10.96.1."+h.version)
		pids = append(pids, h.pid())
	}
	for _, pid := range pids[:len(pids)-1] {
		h.untilDead(pid)
	}
	stop()
}

// TestRestoredObjects are for a process that knows nothing, and give way to what an agent learns
// later.
func TestRestoredObjects(t *testing.T) {
	h := newHost(t)
	r, kill := h.agent()
	r.OnService(nil, service("web", "10.96.0.1"))
	r.Restored()
	h.until("web", "10.96.0.1")
	r.OnService(service("web", "10.96.0.1"), service("web", "10.96.0.2"))
	h.until("web", "10.96.0.2")
	kill()

	stop := h.storm("web", "10.96.0.2")
	r, _ = h.agent()
	r.OnService(nil, service("web", "10.96.0.1"))
	r.Restored()
	pid := h.pid()
	if _, err := r.Gather(); err != nil { // the process has had time to take them
		t.Error(err)
	}
	stop()
	r.OnService(service("web", "10.96.0.1"), service("web", "10.96.0.3"))
	r.Synced()
	h.until("web", "10.96.0.3")
	if got := h.pid(); got != pid {
		t.Errorf("process %d was replaced by %d", pid, got)
	}
}

func TestDeadProcessIsReplaced(t *testing.T) {
	h := newHost(t)
	r, _ := h.agent()
	r.OnService(nil, service("kept", "10.96.0.1"))
	r.Synced()
	h.until("kept", "10.96.0.1")
	pid := h.pid()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.untilDead(pid)
	h.until("kept", "10.96.0.1")
}

func TestStuckProcessIsReplaced(t *testing.T) {
	h := newHost(t)
	r, kill := h.agent()
	r.Synced()
	h.until("any", "NXDOMAIN")
	kill()
	pid := h.pid()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r, _ = h.agent()
	h.untilDead(pid)
	r.OnService(nil, service("kept", "10.96.0.1"))
	r.Synced()
	h.until("kept", "10.96.0.1")
}

// TestOtherProcessIsNotStopped has a number in the file that belongs to another program by now.
func TestOtherProcessIsNotStopped(t *testing.T) {
	h := newHost(t)
	if err := errors.Join(os.MkdirAll(h.dir, 0o700), os.WriteFile(pidPath(h.dir), []byte(strconv.Itoa(os.Getpid())), 0o600)); err != nil {
		t.Fatal(err)
	}
	r, _ := h.agent()
	r.Synced()
	h.until("any", "NXDOMAIN")
}

func TestProcessEndsWithItsDirectory(t *testing.T) {
	h := newHost(t)
	_, kill := h.agent()
	pid := h.pid()
	kill()
	if err := os.RemoveAll(h.dir); err != nil {
		t.Fatal(err)
	}
	h.untilDead(pid)
}

func TestMetricsOfTheProcess(t *testing.T) {
	h := newHost(t)
	r, _ := h.agent()
	r.OnService(nil, service("kept", "10.96.0.1"))
	r.Synced()
	h.until("kept", "10.96.0.1")
	value := func() map[string]float64 {
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				found[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		return found
	}
	if got := value(); got[metrics.DNSQueries] < 1 || got[metrics.DNSUp] != 1 {
		t.Errorf("metrics %v: want queries, and DNS up", got)
	}
}

// TestAddressInUse reports that another program answers at the address.
func TestAddressInUse(t *testing.T) {
	h := newHost(t)
	_, kill := h.agent()
	defer kill()
	other := newHost(t)
	r, err := New(Config{Settings: Settings{Domain: "cluster.local", Address: h.address}, Dir: other.dir, Log: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("error %v, want %v", err, unix.EADDRINUSE)
	}
}
