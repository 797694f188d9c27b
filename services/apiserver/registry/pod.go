package registry

import (
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// podStrategy lets the agent of a node confirm the end of the pods that run there.
type podStrategy struct{ Generic }

// GracePeriod is what the request names for a pod that an agent ends, even where the pod's own is
// 0.
func (s podStrategy) GracePeriod(o scheme.Object, asked *int64) int64 {
	if asked != nil && endedByAgent(o.(*corev1.Pod)) {
		return *asked
	}
	return s.Generic.GracePeriod(o, asked)
}

// endedByAgent reports whether a pod runs on a node, whose agent confirms its end.
func endedByAgent(p *corev1.Pod) bool {
	return p.GetSpec().GetNodeName() != "" && !core.IsPodFinished(p)
}

// KeepStatusMetadata restores the owners, as in Kubernetes.
func (podStrategy) KeepStatusMetadata(o, old scheme.Object) {
	o.GetMetadata().OwnerReferences = old.GetMetadata().GetOwnerReferences()
}
