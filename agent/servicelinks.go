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
	// linksPatience is the maximum time that the start of a container waits for services while the
	// informer has not synced and there is no snapshot. Static pods start without them when no control
	// plane can be reached.
	linksPatience = 3 * time.Second
)

func namespaceOf(s *corev1.Service) []string { return []string{s.GetMetadata().GetNamespace()} }

// servicesIn returns the services of a namespace: those of the snapshot until the informer has
// synced.
func (w *watches) servicesIn(ctx context.Context, namespace string) []*corev1.Service {
	if !w.services.HasSynced() && len(w.kept) == 0 {
		wait, cancel := context.WithTimeout(ctx, linksPatience)
		_ = w.services.WaitForSync(wait) // continue with what is known by then
		cancel()
	}
	if w.services.HasSynced() {
		return w.services.ByIndex(byNamespace, namespace)
	}
	kept := slices.Collect(ofKind[*corev1.Service](w.kept))
	return slices.DeleteFunc(kept, func(s *corev1.Service) bool { return s.GetMetadata().GetNamespace() != namespace })
}
