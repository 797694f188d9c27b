package pods

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

// health is what the probes of a running container say.
type health struct {
	mu             sync.Mutex
	started, ready bool
	// failed is why the container must be restarted.
	failed error
}

func (h *health) get() (started, ready bool, failed error) {
	if h == nil {
		return false, false, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.started, h.ready, h.failed
}

func (h *health) set(f func(*health)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
}

// knownHealth returns what the pod's status says of the attempt that runs: after a restart of the agent that holds until the probes
// say otherwise.
func knownHealth(st *corev1.PodStatus, container, id string) (ready, started bool) {
	for _, cs := range append(st.GetContainerStatuses(), st.GetInitContainerStatuses()...) {
		if cs.GetName() == container && cs.GetContainerId() == "containerd://"+id {
			return cs.GetReady(), cs.GetStarted()
		}
	}
	return false, false
}

// newHealth returns the health of an attempt that starts or was adopted, by the pod's status, and whether it had started before.
func newHealth(st *corev1.PodStatus, spec *corev1.Container, id string) (h *health, wasStarted bool) {
	wasReady, wasStarted := knownHealth(st, spec.GetName(), id)
	h = &health{started: spec.GetStartupProbe() == nil || wasStarted}
	h.ready = h.started && (spec.GetReadinessProbe() == nil || wasReady)
	return h, wasStarted
}

// fail records why the container must be restarted.
func (h *health) fail(err error) { h.set(func(h *health) { h.failed = err }) }

// prober runs the probes and hooks of one attempt of a container.
type prober struct {
	runtime *runtime.Runtime
	// event records an event of the pod.
	event func(eventType, reason, message string)
	// changed is called when health changed. It must not block.
	changed func()
	pod     netip.Addr
	spec    *corev1.Container
	// id is containerd's of the attempt.
	id string
}

// target is the container for its probes and hooks. With alone, what a command leaves running ends with it.
func (r prober) target(alone bool) probe.Target {
	return probe.Target{
		Host: r.pod.String(), Container: r.spec,
		Exec: func(ctx context.Context, command []string) (int, []byte, error) {
			var out bytes.Buffer
			var mu sync.Mutex
			sink := lockedWriter{&mu, &out}
			code, err := r.runtime.Exec(ctx, r.id, runtime.ExecConfig{Command: command, Stdout: sink, Stderr: sink, Alone: alone})
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

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := maxOutput - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// probe runs the container's probes until ctx ends: the startup probe first, then the others together.
func (r prober) probe(ctx context.Context, startedAt time.Time, h *health) {
	// A probe runs again and again: what it left behind would pile up.
	target := r.target(true)
	check := func(p *corev1.Probe) func(context.Context) error {
		return func(ctx context.Context) error { return probe.Check(ctx, p.GetHandler(), target) }
	}
	unhealthy := func(kind string) func(error) {
		return func(err error) {
			r.event("Warning", "Unhealthy", fmt.Sprintf("%s probe failed: %v", kind, err))
		}
	}
	kill := func(kind string) func(bool, error) {
		return func(ok bool, err error) {
			if ok {
				return
			}
			h.fail(fmt.Errorf("failed %s probe: %w", kind, err))
			r.changed()
		}
	}
	if started, _, _ := h.get(); !started {
		p := r.spec.GetStartupProbe()
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
		h.set(func(h *health) { h.started, h.ready = true, r.spec.GetReadinessProbe() == nil })
		r.changed()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if p := r.spec.GetLivenessProbe(); p != nil {
		wg.Go(func() {
			probe.Loop{Probe: p, StartedAt: startedAt, Healthy: true, Check: check(p), Failed: unhealthy("Liveness"), Changed: kill("liveness")}.Run(ctx)
		})
	}
	if p := r.spec.GetReadinessProbe(); p != nil {
		_, ready, _ := h.get()
		probe.Loop{Probe: p, StartedAt: startedAt, Healthy: ready, Check: check(p), Failed: unhealthy("Readiness"), Changed: func(ok bool, _ error) {
			h.set(func(h *health) { h.ready = ok })
			r.changed()
		}}.Run(ctx)
	}
}
