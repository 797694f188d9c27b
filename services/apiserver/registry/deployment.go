package registry

import "github.com/xebec-project/xebec/internal/scheme"

// deploymentStrategy keeps status writes from changing labels, as in Kubernetes.
type deploymentStrategy struct{ Generic }

// KeepStatusMetadata restores the labels.
func (deploymentStrategy) KeepStatusMetadata(o, old scheme.Object) {
	o.GetMetadata().Labels = old.GetMetadata().GetLabels()
}
