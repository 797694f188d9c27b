package agent

import (
	"context"
	"slices"
	"time"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	// byNamespace indexes services by their namespace.
	byNamespace = "namespace"
	// linksPatience is how long a container's start waits, at most, for an agent that knows no
	// services yet, not even those that the agent before kept. Static pods start without them when no
	// control plane can be reached.
	linksPatience = 3 * time.Second
)

func namespaceOf(s *corev1.Service) []string { return []string{s.GetMetadata().GetNamespace()} }

// servicesIn returns the services of a namespace: while the control plane has not told them yet,
// those that were kept.
func (w *watches) servicesIn(ctx context.Context, namespace string) []*corev1.Service {
	if !w.services.HasSynced() && len(w.kept) == 0 {
		wait, cancel := context.WithTimeout(ctx, linksPatience)
		_ = w.services.WaitForSync(wait) // what is known by then has to do
		cancel()
	}
	if w.services.HasSynced() {
		return w.services.ByIndex(byNamespace, namespace)
	}
	kept := slices.Collect(ofKind[*corev1.Service](w.kept))
	return slices.DeleteFunc(kept, func(s *corev1.Service) bool { return s.GetMetadata().GetNamespace() != namespace })
}
