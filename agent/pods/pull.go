package pods

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/pods/mounts"
	"github.com/xebec-project/xebec/agent/pods/objects"
	"github.com/xebec-project/xebec/agent/pods/status"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// pull is an image on its way.
type pull struct {
	// name is the image's as the pod has it, volume that of the image volume that it is for, if any.
	name, volume string
	done         chan struct{}
	began        time.Time
	img          images.Image
	// pulled tells that the image came from its registry.
	pulled bool
	err    error
}

// ensureImages gets the images for the coming attempt without holding up the worker: those of the
// volumes that it mounts, and its own. When one is not there yet it returns when to look again, 0
// for as soon as the pull is over.
func (w *worker) ensureImages(ctx context.Context, pod *corev1.Pod, c *container) (ready bool, wait time.Duration) {
	for _, v := range mounts.ImageVolumes(pod, c.spec) {
		name, src := v.GetName(), v.GetVolumeSource().GetImage()
		if ready, err := w.hasImageVolume(name); ready || err != nil {
			// The error comes again when the volume is made.
			continue
		}
		if w.pulledByOther(c, name) {
			return false, pullRetry
		}
		img, wait := w.ensureImage(ctx, pod, c, pull{name: src.GetReference(), volume: name}, pullPolicy(src.GetReference(), src.GetPullPolicy()))
		if img == nil {
			return false, wait
		}
		w.volumeImages[name] = img.Name
	}
	if c.image == nil {
		c.image, wait = w.ensureImage(ctx, pod, c, pull{name: c.spec.GetImage()}, pullPolicy(c.spec.GetImage(), c.spec.GetImagePullPolicy()))
	}
	return c.image != nil, wait
}

// pullRetry is how soon a container looks again whether another one has pulled an image for both.
const pullRetry = 200 * time.Millisecond

// pulledByOther reports whether another container of the pod pulls the image of a volume.
func (w *worker) pulledByOther(c *container, volume string) bool {
	return slices.ContainsFunc(w.containers, func(other *container) bool {
		return other != c && other.pull != nil && other.pull.volume == volume
	})
}

// ensureImage gets one image, nil while it is not there yet.
func (w *worker) ensureImage(ctx context.Context, pod *corev1.Pod, c *container, want pull, policy string) (*images.Image, time.Duration) {
	store, name := w.cfg.Runtime.Images(), want.name
	if c.pull != nil && (c.pull.name != name || c.pull.volume != want.volume) {
		// What it was for has changed meanwhile; it ends by itself.
		c.pull = nil
	}
	if c.pull == nil && policy != "Always" {
		img, _, err := store.Ensure(ctx, name, "Never", nil)
		if err == nil {
			w.cfg.Recorder.Event(pod, "Normal", "Pulled", fmt.Sprintf("Container image %q already present on machine", name))
			c.failures = 0
			return &img, 0
		}
		if policy == "Never" || !errors.Is(err, images.ErrNeverPull) {
			return nil, w.imageFailed(pod, c, name, err)
		}
	}
	if c.pull == nil {
		if _, err := images.Normalize(name); err != nil {
			return nil, w.imageFailed(pod, c, name, err)
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
		p := &want
		p.done, p.began = make(chan struct{}), time.Now()
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
		return nil, 0
	}
	p := c.pull
	c.pull = nil
	if p.err != nil {
		return nil, w.imageFailed(pod, c, name, p.err)
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
	c.failures = 0
	return &p.img, 0
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

func (w *worker) imageFailed(pod *corev1.Pod, c *container, name string, err error) time.Duration {
	c.failures++
	c.failedImage = name
	now, wait := time.Now(), backoff(c.failures, w.cfg.BackoffInitial, w.cfg.BackoffMax)
	c.failedAt, c.retryAt = now, now.Add(wait)
	reason := status.ReasonErrImagePull
	event, message := eventFailed, fmt.Sprintf("Failed to pull image %q: %v", name, err)
	switch {
	case errors.Is(err, images.ErrInvalidName):
		reason = status.ReasonInvalidImageName
		event, message = eventInspectFailed, fmt.Sprintf("Failed to inspect image %q: %v", name, err)
	case errors.Is(err, images.ErrNeverPull):
		reason = status.ReasonErrImageNeverPull
		event, message = reason, err.Error()
	}
	c.waiting = status.Cause{Reason: reason, Message: err.Error()}
	w.cfg.Recorder.Event(pod, "Warning", event, message)
	if reason == status.ReasonErrImagePull {
		w.cfg.Recorder.Event(pod, "Normal", "BackOff", fmt.Sprintf("Back-off pulling image %q", name))
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
			Message: fmt.Sprintf("Back-off pulling image %q: %s", c.failedImage, c.waiting.Message),
		}
	}
	return wait
}

func pullPolicy(image, policy string) string {
	if policy != "" {
		return policy
	}
	full, err := images.Normalize(image)
	if err == nil && strings.HasSuffix(full, ":latest") {
		return "Always"
	}
	return "IfNotPresent"
}
