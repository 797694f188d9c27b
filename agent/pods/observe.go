package pods

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// observe compares containerd's containers with the records. What has ended is recorded before it
// is removed.
func (w *worker) observe(ctx context.Context, pod *corev1.Pod, list []runtime.Status) error {
	for _, c := range w.containers {
		c.running, c.status = false, runtime.Status{}
		if c.rec.Attempt == 0 && c.rec.StartedAt.IsZero() && c.rec.Exit == nil {
			// The record is lost, or was never written: containerd knows how far the container had come.
			for _, s := range list {
				if s.Name == c.spec.GetName() {
					c.rec.Attempt = max(c.rec.Attempt, s.Attempt)
				}
			}
		}
	}
	for _, s := range list {
		c := w.container(s.Name)
		if c == nil && s.State == runtime.Running {
			// A pod of which nothing is left but labels: its containers are only to be stopped.
			c = &container{spec: &corev1.Container{Name: s.Name}, rec: checkpoint.Record{Attempt: s.Attempt, StartedAt: s.CreatedAt, Image: s.Image}}
			w.containers = append(w.containers, c)
		}
		if c == nil || s.Attempt != c.rec.Attempt || c.rec.Exit != nil {
			if err := w.cfg.Runtime.Remove(ctx, s.ID); err != nil {
				return err
			}
			continue
		}
		switch s.State {
		case runtime.Running:
			c.status, c.running = s, true
			if c.attending == nil {
				if err := w.cfg.Runtime.EndCommands(ctx, s); err != nil {
					w.log.Warn("Failed to end exec processes of the previous agent", zap.String(metrics.KeyContainer, s.Name), zap.Error(err))
				}
			}
			if err := w.attend(ctx, pod, c); err != nil {
				return err
			}
		case runtime.Exited:
			if err := w.recordExit(ctx, c, s); err != nil {
				return err
			}
		case runtime.Created:
			if err := w.cfg.Runtime.Remove(ctx, s.ID); err != nil {
				return err
			}
		}
	}
	for _, c := range w.containers {
		if !c.running && !c.rec.StartedAt.IsZero() && c.rec.Exit == nil {
			e := &checkpoint.Exit{
				ContainerID: runtime.ID(w.uid, c.spec.GetName(), c.rec.Attempt), Code: status.UnknownCode, Reason: status.ReasonUnknown,
				Message: "the container's process was not found, for example after a restart of the node", StartedAt: c.rec.StartedAt,
				FinishedAt: time.Now(),
			}
			if err := w.ended(c, e); err != nil {
				return err
			}
		}
		if !c.running {
			// Not before the container was removed: until then lines of its log may still be on their way.
			c.endFollowers()
		}
	}
	w.observed = true
	return nil
}

// recordExit records how an attempt ended and removes it.
func (w *worker) recordExit(ctx context.Context, c *container, s runtime.Status) error {
	e := w.exitOf(c, s)
	silent := e.Message == ""
	if silent {
		e.Message = w.logTail(c, e.Code)
	}
	if err := w.ended(c, e); err != nil {
		return err
	}
	if err := w.cfg.Runtime.Remove(ctx, s.ID); err != nil {
		return err
	}
	// The removal waits for who writes the log: only now are all lines in it.
	if words := w.logTail(c, e.Code); silent && words != e.Message {
		e.Message = words
		return w.dir.SaveRecord(c.spec.GetName(), c.rec)
	}
	return nil
}
