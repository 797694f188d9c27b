package metrics

// Names of the metrics of a node's network.
const (
	// DatapathServices is the number of addresses that the service maps hold, a port and protocol each.
	DatapathServices = "xebec_datapath_services"
	// DatapathBackends is the number of endpoints in the service maps, counted once for each address they stand behind.
	DatapathBackends = "xebec_datapath_backends"
	// DatapathMapPressure is how full a map is, from 0 to 1, by map. Full maps of services refuse more; a full table of
	// flows, counted every minute, forgets what was used least recently.
	DatapathMapPressure = "xebec_datapath_map_pressure_ratio"
	// DatapathWrites counts the writes of changes to the service maps, by result: ok, failed.
	DatapathWrites = "xebec_datapath_writes_total"
	// DatapathWriteSeconds is how long successful writes of changes to the service maps took.
	DatapathWriteSeconds = "xebec_datapath_write_seconds"
	// DatapathDelaySeconds is the time from hearing of a change to having it in the service maps.
	DatapathDelaySeconds = "xebec_datapath_delay_seconds"
	// PodnetAddresses is the number of pod addresses in use on the node.
	PodnetAddresses = "xebec_podnet_addresses"
	// PodnetAddressesFree is the number of pod addresses that the node has left.
	PodnetAddressesFree = "xebec_podnet_addresses_free"
	// PodnetRoutes is the number of other nodes to whose pods there should be a route.
	PodnetRoutes = "xebec_podnet_routes"
	// PodnetRepairFailures counts the rounds of repair that left the node's routes incomplete.
	PodnetRepairFailures = "xebec_podnet_repair_failures_total"
	// PodnetSetupSeconds is how long it took to connect a pod, by result: ok, failed.
	PodnetSetupSeconds = "xebec_podnet_setup_seconds"
	// DNSQueries counts the answers that the node's DNS server gave, by response code.
	DNSQueries = "xebec_dns_queries_total"
	// DNSUpstreamSeconds is how long questions to the node's resolvers took, by result: ok, failed.
	DNSUpstreamSeconds = "xebec_dns_upstream_seconds"
)

// Labels of the network's metrics.
const (
	// LabelMap names an eBPF map.
	LabelMap = "map"
	// LabelResult is ResultOK or ResultFailed.
	LabelResult = "result"
	// LabelRcode is a DNS response code, such as NXDOMAIN.
	LabelRcode = "rcode"
)

// Values of LabelResult.
const (
	ResultOK     = "ok"
	ResultFailed = "failed"
)

// Result is the value of LabelResult for an error.
func Result(err error) string {
	if err != nil {
		return ResultFailed
	}
	return ResultOK
}
