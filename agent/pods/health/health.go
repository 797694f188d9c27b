// Package health runs the probes of a container and holds what they say.
package health

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/xebec-project/xebec/agent/probe"
	"github.com/xebec-project/xebec/agent/runtime"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Health is what the probes of a running container say.
type Health struct {
	mu             sync.Mutex
	started, ready bool
	// failed is why the container must be restarted.
	failed error
}

// Get returns whether the container has started and is ready, and why it must be restarted, nil if
// it need not. A nil Health has not started.
func (h *Health) Get() (started, ready bool, failed error) {
	if h == nil {
		return false, false, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.started, h.ready, h.failed
}

func (h *Health) set(f func(*Health)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
}

// knownHealth returns what the pod's status says of the attempt that runs: after a restart of the
// agent that holds until the probes say otherwise.
func knownHealth(st *corev1.PodStatus, container, id string) (ready, started bool) {
	for _, cs := range append(st.GetContainerStatuses(), st.GetInitContainerStatuses()...) {
		if cs.GetName() == container && cs.GetContainerId() == "containerd://"+id {
			return cs.GetReady(), cs.GetStarted()
		}
	}
	return false, false
}

// New returns the health of an attempt that starts or was adopted, by the pod's status, and whether
// it had started before.
func New(st *corev1.PodStatus, spec *corev1.Container, id string) (h *Health, wasStarted bool) {
	wasReady, wasStarted := knownHealth(st, spec.GetName(), id)
	h = &Health{started: spec.GetStartupProbe() == nil || wasStarted}
	h.ready = h.started && (spec.GetReadinessProbe() == nil || wasReady)
	return h, wasStarted
}

// Fail records why the container must be restarted.
func (h *Health) Fail(err error) { h.set(func(h *Health) { h.failed = err }) }

// Prober runs the probes and hooks of one attempt of a container.
type Prober struct {
	Runtime *runtime.Runtime
	// Event records an event of the pod.
	Event func(eventType, reason, message string)
	// Changed is called when health changed. It must not block.
	Changed func()
	Pod     netip.Addr
	Spec    *corev1.Container
	// ID is containerd's of the attempt.
	ID string
}

// Target is the container for its probes and hooks. With alone, what a command leaves running ends
// with it.
func (r Prober) Target(alone bool) probe.Target {
	return probe.Target{
		Host: r.Pod.String(), Container: r.Spec,
		Exec: func(ctx context.Context, command []string) (int, []byte, error) {
			var out bytes.Buffer
			var mu sync.Mutex
			sink := lockedWriter{&mu, &out}
			code, err := r.Runtime.Exec(ctx, r.ID, runtime.ExecConfig{Command: command, Stdout: sink, Stderr: sink, Alone: alone})
			mu.Lock()
			defer mu.Unlock()
			return int(code), bytes.Clone(out.Bytes()), err
		},
	}
}

// maxOutput is how much of the output of a probe's command is kept.
const maxOutput = 4 << 10

// lockedWriter keeps the beginning of what several streams bring.
type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

// Write implements io.Writer.
func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := maxOutput - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// Run runs the container's probes until ctx ends: the startup probe first, then the others
// together.
func (r Prober) Run(ctx context.Context, startedAt time.Time, h *Health) {
	// A probe runs again and again: what it left behind would pile up.
	target := r.Target(true)
	check := func(p *corev1.Probe) func(context.Context) error {
		return func(ctx context.Context) error { return probe.Check(ctx, p.GetHandler(), target) }
	}
	unhealthy := func(kind string) func(error) {
		return func(err error) {
			r.Event("Warning", "Unhealthy", fmt.Sprintf("%s probe failed: %v", kind, err))
		}
	}
	kill := func(kind string) func(bool, error) {
		return func(ok bool, err error) {
			if ok {
				return
			}
			h.Fail(fmt.Errorf("failed %s probe: %w", kind, err))
			r.Changed()
		}
	}
	if started, _, _ := h.Get(); !started {
		p := r.Spec.GetStartupProbe()
		once, cancel := context.WithCancel(ctx)
		probe.Loop{Probe: p, StartedAt: startedAt, Healthy: true, Failed: unhealthy("Startup"), Changed: kill("startup"),
			Check: func(ctx context.Context) error {
				err := check(p)(ctx)
				if err == nil {
					cancel()
				}
				return err
			}}.Run(once)
		cancel()
		if ctx.Err() != nil {
			return
		}
		h.set(func(h *Health) { h.started, h.ready = true, r.Spec.GetReadinessProbe() == nil })
		r.Changed()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if p := r.Spec.GetLivenessProbe(); p != nil {
		wg.Go(func() {
			probe.Loop{
				Probe:     p,
				StartedAt: startedAt,
				Healthy:   true,
				Check:     check(p),
				Failed:    unhealthy("Liveness"),
				Changed:   kill("liveness"),
			}.Run(
				ctx,
			)
		})
	}
	if p := r.Spec.GetReadinessProbe(); p != nil {
		_, ready, _ := h.Get()
		probe.Loop{
			Probe:     p,
			StartedAt: startedAt,
			Healthy:   ready,
			Check:     check(p),
			Failed:    unhealthy("Readiness"),
			Changed: func(ok bool, _ error) {
				h.set(func(h *Health) { h.ready = ok })
				r.Changed()
			},
		}.Run(
			ctx,
		)
	}
}
