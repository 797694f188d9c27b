package registry

import "github.com/xebec-project/xebec/internal/kind"

// deploymentStrategy keeps status writes from changing labels, as in Kubernetes.
type deploymentStrategy struct{ Generic }

// KeepStatusMetadata restores the labels.
func (deploymentStrategy) KeepStatusMetadata(o, old kind.Object) {
	o.GetMetadata().Labels = old.GetMetadata().GetLabels()
}
