package metrics

// Names of the metrics of the cloud service.
const (
	// CloudPoolAddresses is the number of addresses that a pool of load balancers has in all, by pool
	// and family.
	CloudPoolAddresses = "xebec_cloud_pool_addresses"
	// CloudPoolAllocated is the number of addresses of a pool that services have, by pool and family.
	// The leader tells.
	CloudPoolAllocated = "xebec_cloud_pool_allocated"
	// CloudAllocationFailures counts the times that a service's wish for an address could not be
	// granted.
	CloudAllocationFailures = "xebec_cloud_allocation_failures_total"
)

// Labels of those metrics.
const (
	// LabelPool names a pool of addresses.
	LabelPool = "pool"
	// LabelFamily is IPv4 or IPv6.
	LabelFamily = "family"
)
