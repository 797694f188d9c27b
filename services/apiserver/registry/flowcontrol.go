package registry

import "github.com/xebec-project/xebec/internal/scheme"

// flowControlStrategy keeps status writes from changing metadata, as in Kubernetes.
type flowControlStrategy struct{ Generic }

// KeepStatusMetadata restores the metadata that other status writes change.
func (flowControlStrategy) KeepStatusMetadata(o, old scheme.Object) {
	now, was := o.GetMetadata(), old.GetMetadata()
	now.Labels, now.Annotations = was.GetLabels(), was.GetAnnotations()
	now.Finalizers, now.OwnerReferences = was.GetFinalizers(), was.GetOwnerReferences()
}
