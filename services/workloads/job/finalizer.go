package job

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// releasePatch is a JSON patch that takes the finalizer from a pod. It fails for another pod of the
// name, and for one that has lost the finalizer.
func releasePatch(pod *corev1.Pod) []byte {
	at := slices.Index(pod.GetMetadata().GetFinalizers(), batch.FinalizerTracking)
	return fmt.Appendf(nil, `[{"op":"test","path":"/metadata/uid","value":%q},`+
		`{"op":"test","path":"/metadata/finalizers/%d","value":%q},{"op":"remove","path":"/metadata/finalizers/%d"}]`,
		pod.GetMetadata().GetUid(), at, batch.FinalizerTracking, at)
}

// abandonPatch is releasePatch for a pod that no Job counts. It fails when the pod has changed: a
// Job that adopted it meanwhile counts it.
func abandonPatch(pod *corev1.Pod) []byte {
	return fmt.Appendf(nil, `[{"op":"test","path":"/metadata/resourceVersion","value":%q},%s`,
		pod.GetMetadata().GetResourceVersion(), releasePatch(pod)[1:])
}

func releaseOf(pod *corev1.Pod) client.Operation {
	m := pod.GetMetadata()
	return client.OpPatch(kinds.Of(pod), m.GetNamespace(), m.GetName(), releasePatch(pod), client.JSONPatch)
}

// finalizers takes the finalizer from pods that no Job counts any more: their Job has ended or is
// gone, or they were orphaned.
type finalizers struct {
	client *client.Client
	jobs   *client.Informer[*batchv1.Job]
	pods   *client.Informer[*corev1.Pod]
}

func addFinalizers(t *controller.Term, cfg Config) {
	f := &finalizers{client: t.Client(), jobs: cfg.Jobs, pods: cfg.Pods}
	c := t.Controller("job-finalizer", cfg.Workers, f.reconcile)
	controller.Source(c, cfg.Pods)
	look := func(pod *corev1.Pod) {
		if isTracked(pod) && !f.isCounted(pod) {
			c.EnqueueAfter(client.KeyOf(pod), f.pauseFor(pod))
		}
	}
	cfg.Pods.OnChange(func(_, now *corev1.Pod) {
		if now != nil {
			look(now)
		}
	})
	cfg.Jobs.OnChange(func(old, now *batchv1.Job) {
		j := now
		if j == nil {
			j = old
		} else if keeps(j) {
			return
		}
		for _, pod := range controller.ControlledBy(cfg.Pods, j.GetMetadata().GetUid()) {
			look(pod)
		}
	})
}

// watchesApart is how long the informer of pods lags behind that of Jobs as a rule. The transaction
// that ends a Job takes the finalizer from its pods, which the second informer shows later.
const watchesApart = time.Second

// pauseFor is how long a pod waits for its informer: not at all when no Job can have released it.
func (f *finalizers) pauseFor(pod *corev1.Pod) time.Duration {
	name, uid, _ := owner(pod)
	if j, ok := f.jobs.Get(pod.GetMetadata().GetNamespace(), name); ok && j.GetMetadata().GetUid() == uid {
		return watchesApart
	}
	return 0
}

// owner returns the Job that controls a pod. A pod without a controller has none; other is true for
// a pod that something else controls.
func owner(pod *corev1.Pod) (name, uid string, other bool) {
	ref := kinds.ControllerOf(pod)
	if ref == nil {
		return "", "", false
	}
	k := kinds.Of(new(batchv1.Job))
	return ref.GetName(), ref.GetUid(), ref.GetKind() != k.Name || ref.GetApiVersion() != k.APIVersion()
}

// isCounted reports whether the informer shows a Job that will count a pod, or another controller
// that has to care for it.
func (f *finalizers) isCounted(pod *corev1.Pod) bool {
	name, uid, other := owner(pod)
	j, ok := f.jobs.Get(pod.GetMetadata().GetNamespace(), name)
	return other || ok && j.GetMetadata().GetUid() == uid && keeps(j)
}

// keeps reports whether pods of a Job keep their finalizer: it counts them, or another controller
// does.
func keeps(j *batchv1.Job) bool { return !isOurs(j) || batch.Finished(j) == nil }

func (f *finalizers) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	pod, ok := f.pods.Get(key.Namespace, key.Name)
	if !ok || !isTracked(pod) || f.isCounted(pod) {
		return controller.Result{}, nil
	}
	// The informer of Jobs may not show a new one yet.
	if name, uid, _ := owner(pod); name != "" {
		j, err := client.Get[*batchv1.Job](ctx, f.client, key.Namespace, name)
		switch {
		case apierr.IsNotFound(err):
		case err != nil:
			return controller.Result{}, fmt.Errorf("check that the job of a pod is gone: %w", err)
		case j.GetMetadata().GetUid() == uid && keeps(j):
			return controller.Result{}, nil
		}
	}
	_, err := client.Patch[*corev1.Pod](ctx, f.client, key.Namespace, key.Name, abandonPatch(pod), client.JSONPatch)
	switch {
	case apierr.IsNotFound(err):
		return controller.Result{}, nil
	case apierr.IsBadRequest(err) && !apierr.IsInvalid(err):
		// The informer does not show yet that the pod has changed.
		return controller.Result{RequeueAfter: controller.WrittenPause}, nil
	}
	return controller.Result{}, err
}
