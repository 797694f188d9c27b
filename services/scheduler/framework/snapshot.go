package framework

// Snapshot is the cluster as one cycle sees it. It is valid until the cache that it is of changes.
type Snapshot struct {
	// Nodes are all nodes, by name.
	Nodes []*Node
	// Resources numbers the entries of the nodes' vectors.
	Resources *ResourceTable
}
