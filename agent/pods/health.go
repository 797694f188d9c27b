package pods

import (
	"bytes"
	"context"
	"fmt"
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

// knownHealth returns what the control plane was told of the very attempt that runs: after a restart of the agent it holds
// until the probes say otherwise.
func (w *worker) knownHealth(pod *corev1.Pod, c *container) (ready, started bool) {
	st := pod.GetStatus()
	for _, cs := range append(st.GetContainerStatuses(), st.GetInitContainerStatuses()...) {
		if cs.GetName() == c.spec.GetName() && cs.GetContainerId() == "containerd://"+c.status.ID {
			return cs.GetReady(), cs.GetStarted()
		}
	}
	return false, false
}

// target is a running container for its probes and hooks. With alone, what a command leaves running ends with it.
func (w *worker) target(spec *corev1.Container, id string, alone bool) probe.Target {
	return probe.Target{
		Host: w.ip.String(), Container: spec,
		Exec: func(ctx context.Context, command []string) (int, []byte, error) {
			var out bytes.Buffer
			var mu sync.Mutex
			sink := lockedWriter{&mu, &out}
			code, err := w.cfg.Runtime.Exec(ctx, id, runtime.ExecConfig{Command: command, Stdout: sink, Stderr: sink, Alone: alone})
			mu.Lock()
			defer mu.Unlock()
			return int(code), bytes.Clone(out.Bytes()), err
		},
	}
}

// lockedWriter keeps the beginning of what several streams bring.
type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := maxMessage - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// probe runs the container's probes until ctx ends: the startup probe first, then the others together.
func (w *worker) probe(ctx context.Context, pod *corev1.Pod, spec *corev1.Container, id string, startedAt time.Time, h *health) {
	// A probe runs again and again: what it left behind would pile up.
	target := w.target(spec, id, true)
	check := func(p *corev1.Probe) func(context.Context) error {
		return func(ctx context.Context) error { return probe.Check(ctx, p.GetHandler(), target) }
	}
	unhealthy := func(kind string) func(error) {
		return func(err error) {
			w.cfg.Recorder.Event(pod, "Warning", "Unhealthy", fmt.Sprintf("%s probe failed: %v", kind, err))
		}
	}
	kill := func(kind string) func(bool, error) {
		return func(ok bool, err error) {
			if ok {
				return
			}
			h.set(func(h *health) { h.failed = fmt.Errorf("failed %s probe: %w", kind, err) })
			w.nudge()
		}
	}
	if started, _, _ := h.get(); !started {
		p := spec.GetStartupProbe()
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
		h.set(func(h *health) { h.started, h.ready = true, spec.GetReadinessProbe() == nil })
		w.nudge()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if p := spec.GetLivenessProbe(); p != nil {
		wg.Go(func() {
			probe.Loop{Probe: p, StartedAt: startedAt, Healthy: true, Check: check(p), Failed: unhealthy("Liveness"), Changed: kill("liveness")}.Run(ctx)
		})
	}
	if p := spec.GetReadinessProbe(); p != nil {
		_, ready, _ := h.get()
		probe.Loop{Probe: p, StartedAt: startedAt, Healthy: ready, Check: check(p), Failed: unhealthy("Readiness"), Changed: func(ok bool, _ error) {
			h.set(func(h *health) { h.ready = ok })
			w.nudge()
		}}.Run(ctx)
	}
}
