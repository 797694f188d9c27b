package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/component"
	"github.com/xebec-project/xebec/agent/policy"
	"github.com/xebec-project/xebec/agent/snapshot"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// policyPatience is how long a pod waits at a time for network policies to be known, before it says
// what it waits for.
const policyPatience = 10 * time.Second

// policyWatch passes the objects of its watches to a policy.Enforcer. Namespaces and the pods of
// other nodes are watched from the first policy on: a cluster without any pays nothing.
type policyWatch struct {
	log        *zap.Logger
	policies   *client.Informer[*networkingv1.NetworkPolicy]
	namespaces *client.Informer[*corev1.Namespace]
	pods       *client.Informer[*corev1.Pod]
	kept       []scheme.Object
	// remembers is set when an earlier agent kept what it knew, be it nothing.
	remembers bool
	keeper    *snapshot.Keeper
	// first is closed by the first policy.
	first chan struct{}

	mu    sync.Mutex
	began bool
}

func newPolicyWatch(c *client.Client, stateDir string, log *zap.Logger) *policyWatch {
	failed := func(what string) func(error) {
		return func(err error) {
			log.Debug("Watch ended, resuming", zap.String(metrics.KeyWatch, what), zap.Error(err))
		}
	}
	w := &policyWatch{
		log: log,
		policies: client.NewInformer(
			c,
			client.InformerOptions[*networkingv1.NetworkPolicy]{OnError: failed("networkpolicies"), Transform: slim[*networkingv1.NetworkPolicy]},
		),
		namespaces: client.NewInformer(
			c,
			client.InformerOptions[*corev1.Namespace]{OnError: failed("namespaces"), Transform: slim[*corev1.Namespace]},
		),
		pods:  client.NewInformer(c, client.InformerOptions[*corev1.Pod]{OnError: failed("pods of all nodes"), Summary: true}),
		first: make(chan struct{}),
	}
	path := filepath.Join(stateDir, "policies")
	w.keeper = snapshot.NewKeeper(path, w.all, log)
	kept, err := snapshot.Load(path)
	if err != nil {
		log.Error("Failed to read the snapshot of network policies, new pods wait for the control plane", zap.Error(err))
	}
	_, missing := os.Stat(path)
	w.kept, w.remembers = kept, err == nil && missing == nil
	return w
}

// all yields what has to be known to enforce policies on pods that start without a control plane.
func (w *policyWatch) all(yield func(scheme.Object) bool) {
	for _, p := range w.policies.List() {
		if !yield(p) {
			return
		}
	}
	for _, n := range w.namespaces.List() {
		if !yield(n) {
			return
		}
	}
	for _, p := range w.pods.List() {
		if !yield(p) {
			return
		}
	}
}

// run passes events to the enforcer until the context ends, and reports the end of the initial
// lists.
func (w *policyWatch) run(ctx context.Context, tasks *component.Tasks, e *policy.Enforcer) error {
	policies := newResumed(ofKind[*networkingv1.NetworkPolicy](w.kept), e.OnPolicy)
	namespaces := newResumed(ofKind[*corev1.Namespace](w.kept), e.OnNamespace)
	pods := newResumed(ofKind[*corev1.Pod](w.kept), e.OnPod)
	if w.remembers {
		e.Know(policy.Remembered)
	}
	w.kept = nil
	w.policies.OnChange(func(old, now *networkingv1.NetworkPolicy) {
		if now != nil {
			w.begin(e)
		}
		policies.onChange(old, now)
		w.keeper.Changed()
	})
	w.namespaces.OnChange(func(old, now *corev1.Namespace) {
		namespaces.onChange(old, now)
		w.keeper.Changed()
	})
	w.pods.OnChange(func(old, now *corev1.Pod) {
		pods.onChange(old, now)
		w.keeper.Changed()
	})
	tasks.Go(func() error { return w.policies.Run(ctx) })
	if err := w.policies.WaitForSync(ctx); err != nil {
		return err
	}
	policies.forget()
	w.mu.Lock()
	if !w.began {
		e.Know(policy.Everything) // which is that there are no policies
	}
	w.mu.Unlock()
	w.keeper.Changed()
	tasks.Go(func() error { return w.keeper.Run(ctx) })

	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.first:
	}
	tasks.Go(func() error { return w.namespaces.Run(ctx) })
	tasks.Go(func() error { return w.pods.Run(ctx) })
	if err := errors.Join(w.namespaces.WaitForSync(ctx), w.pods.WaitForSync(ctx)); err != nil {
		return err
	}
	namespaces.forget()
	pods.forget()
	e.Know(policy.Everything)
	w.keeper.Changed()
	return nil
}

// begin has namespaces and pods watched, which policies are about. Until they are known nothing is
// enforced by halves: pods keep what they have, and those that start wait.
func (w *policyWatch) begin(e *policy.Enforcer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.began {
		return
	}
	w.began = true
	close(w.first)
	e.Unlearn()
}
