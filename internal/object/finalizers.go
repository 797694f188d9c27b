package object

// Finalizers that the collector acts on.
const (
	// FinalizerForeground holds an object until its dependents are gone.
	FinalizerForeground = "foregroundDeletion"
	// FinalizerOrphan holds an object until its dependents no longer refer to it.
	FinalizerOrphan = "orphan"
	// FinalizerKubernetes holds a namespace until it is empty.
	FinalizerKubernetes = "kubernetes"
)
