package pods

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/pods/objects"
	"github.com/xebec-project/xebec/agent/pods/status"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// pull is an image on its way.
type pull struct {
	done  chan struct{}
	began time.Time
	img   images.Image
	// pulled tells that the image came from its registry.
	pulled bool
	err    error
}

// ensureImage gets the image for the coming attempt without holding up the worker. When it is not
// there yet it returns when to look again, 0 for as soon as the pull is over.
func (w *worker) ensureImage(ctx context.Context, pod *corev1.Pod, c *container) (bool, time.Duration) {
	if c.image != nil {
		return true, 0
	}
	store, name, policy := w.cfg.Runtime.Images(), c.spec.GetImage(), pullPolicy(c.spec)
	if c.pull == nil && policy != "Always" {
		img, _, err := store.Ensure(ctx, name, "Never", nil)
		if err == nil {
			w.cfg.Recorder.Event(pod, "Normal", "Pulled", fmt.Sprintf("Container image %q already present on machine", name))
			c.image, c.failures = &img, 0
			return true, 0
		}
		if policy == "Never" || !errors.Is(err, images.ErrNeverPull) {
			return false, w.imageFailed(pod, c, err)
		}
	}
	if c.pull == nil {
		if _, err := images.Normalize(name); err != nil {
			return false, w.imageFailed(pod, c, err)
		}
		keys, err := w.keyring(ctx, pod)
		if err != nil {
			text := strings.ReplaceAll(err.Error(), objects.ErrConfig.Error()+": ", "")
			w.cfg.Recorder.Event(
				pod,
				"Warning",
				"FailedToRetrieveImagePullSecret",
				"Unable to retrieve some image pull secrets; pulling the image may fail: "+text,
			)
		}
		p := &pull{done: make(chan struct{}), began: time.Now()}
		c.pull = p
		w.cfg.Recorder.Event(pod, "Normal", "Pulling", fmt.Sprintf("Pulling image %q", name))
		w.wg.Go(func() {
			p.img, p.pulled, p.err = store.Ensure(ctx, name, policy, keys, func(at images.Progress) {
				w.cfg.Recorder.Event(pod, "Normal", "Pulling", pullProgress(name, at))
			})
			close(p.done)
			w.nudge()
		})
	}
	select {
	case <-c.pull.done:
	default:
		if c.failures == 0 {
			c.waiting = status.Cause{Reason: status.ReasonContainerCreating}
		}
		return false, 0
	}
	p := c.pull
	c.pull = nil
	if p.err != nil {
		return false, w.imageFailed(pod, c, p.err)
	}
	message := fmt.Sprintf(
		"Successfully pulled image %q in %v. Image size: %d bytes.",
		name,
		time.Since(p.began).Round(time.Millisecond),
		p.img.Size,
	)
	if !p.pulled {
		message = fmt.Sprintf("Container image %q already present on machine", name)
	}
	w.cfg.Recorder.Event(pod, "Normal", "Pulled", message)
	c.image, c.failures = &p.img, 0
	return true, 0
}

// pullProgress says how far a pull is.
func pullProgress(name string, at images.Progress) string {
	if at.Queued {
		return fmt.Sprintf("Image %q is waiting for other image pulls to finish", name)
	}
	return fmt.Sprintf("Pulling image %q: %d of %d MiB", name, at.Done>>20, at.Total>>20)
}

// keyring gathers the credentials that the pod's secrets hold. What can't be read is left out: the
// registry may do without.
func (w *worker) keyring(ctx context.Context, pod *corev1.Pod) (images.Keyring, error) {
	keys := images.Keyring{}
	var errs []error
	for _, ref := range pod.GetSpec().GetImagePullSecrets() {
		secret, err := objects.Cache{Cluster: w.cfg.Cluster, Dir: w.dir, Namespace: w.namespace}.Secret(ctx, ref.GetName())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for name, legacy := range map[string]bool{".dockerconfigjson": false, ".dockercfg": true} {
			if config, ok := secret.GetData()[name]; ok {
				errs = append(errs, keys.Add(config, legacy))
			}
		}
	}
	return keys, errors.Join(errs...)
}

// showErrImagePull is how long a pod shows why its image could not be pulled before it shows that
// it waits.
const showErrImagePull = 2 * time.Second

func (w *worker) imageFailed(pod *corev1.Pod, c *container, err error) time.Duration {
	c.failures++
	now, wait := time.Now(), backoff(c.failures, w.cfg.BackoffInitial, w.cfg.BackoffMax)
	c.failedAt, c.retryAt = now, now.Add(wait)
	reason := status.ReasonErrImagePull
	event, message := eventFailed, fmt.Sprintf("Failed to pull image %q: %v", c.spec.GetImage(), err)
	switch {
	case errors.Is(err, images.ErrInvalidName):
		reason = status.ReasonInvalidImageName
		event, message = eventInspectFailed, fmt.Sprintf("Failed to inspect image %q: %v", c.spec.GetImage(), err)
	case errors.Is(err, images.ErrNeverPull):
		reason = status.ReasonErrImageNeverPull
		event, message = reason, err.Error()
	}
	c.waiting = status.Cause{Reason: reason, Message: err.Error()}
	w.cfg.Recorder.Event(pod, "Warning", event, message)
	if reason == status.ReasonErrImagePull {
		w.cfg.Recorder.Event(pod, "Normal", "BackOff", fmt.Sprintf("Back-off pulling image %q", c.spec.GetImage()))
		return min(wait/2, showErrImagePull)
	}
	return wait
}

// backOff waits with a container that could not be made.
func (c *container) backOff(wait time.Duration) time.Duration {
	if c.waiting.Reason == status.ReasonErrImagePull {
		if left := min(showErrImagePull, c.retryAt.Sub(c.failedAt)/2) - time.Since(c.failedAt); left > 0 {
			return min(wait, left)
		}
		c.waiting = status.Cause{
			Reason:  status.ReasonImagePullBackOff,
			Message: fmt.Sprintf("Back-off pulling image %q: %s", c.spec.GetImage(), c.waiting.Message),
		}
	}
	return wait
}

func pullPolicy(c *corev1.Container) string {
	if p := c.GetImagePullPolicy(); p != "" {
		return p
	}
	full, err := images.Normalize(c.GetImage())
	if err == nil && strings.HasSuffix(full, ":latest") {
		return "Always"
	}
	return "IfNotPresent"
}
