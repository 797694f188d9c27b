package metrics

// Names of the metrics of a node's network.
const (
	// DatapathServices is the number of addresses that the service maps hold, a port and protocol
	// each.
	DatapathServices = "xebec_datapath_services"
	// DatapathBackends is the number of endpoints in the service maps, counted once for each address
	// they stand behind.
	DatapathBackends = "xebec_datapath_backends"
	// DatapathMapPressure is the fill level of a map, from 0 to 1, by map. Full maps of services
	// refuse more; a full table of flows, counted every minute, forgets what was used least recently.
	DatapathMapPressure = "xebec_datapath_map_pressure_ratio"
	// DatapathWrites counts the writes of changes to the service maps, by result: ok, failed.
	DatapathWrites = "xebec_datapath_writes_total"
	// DatapathWriteSeconds is the duration of successful writes of changes to the service maps.
	DatapathWriteSeconds = "xebec_datapath_write_seconds"
	// DatapathDelaySeconds is the time from hearing of a change to having it in the service maps.
	DatapathDelaySeconds = "xebec_datapath_delay_seconds"
	// DatapathFlows is the number of entries in the uplink's table of flows, two for each flow,
	// counted every 15 s.
	DatapathFlows = "xebec_datapath_flows"
	// DatapathFlowsCapacity is the most entries that the table of flows holds.
	DatapathFlowsCapacity = "xebec_datapath_flows_capacity"
	// DatapathFlowsEntered counts the entries that the table of flows took, since it was made.
	DatapathFlowsEntered = "xebec_datapath_flows_entered_total"
	// DatapathFlowsRemoved counts the entries of flows that had ended and were removed, since the
	// table was made.
	DatapathFlowsRemoved = "xebec_datapath_flows_removed_total"
	// DatapathFlowsEvicted counts the entries that a full table forgot for new ones, since it was
	// made.
	DatapathFlowsEvicted = "xebec_datapath_flows_evicted_total"
	// DatapathDrops counts the packets from or to the outside that were dropped, by reason:
	// no_endpoint, source_range (the client is in none of the service's ranges), no_service (no
	// service has this port of a load balancer's address), no_route, no_port (no source port was
	// free), table_full (the table of flows took no more), broken, encapsulated (a packet to the
	// overlay's port that is not from another node); and, as refused, the connections and datagrams of
	// sockets on the node to services without endpoints.
	DatapathDrops = "xebec_datapath_drops_total"
	// DatapathConnections counts the connections and flows of datagrams to a service, by service and
	// backend. The 1000 pairs with the most have a series each, all others are counted for the service
	// and backend "other".
	DatapathConnections = "xebec_datapath_service_connections_total"
	// DatapathPackets counts the packets between clients outside and a service, both ways, by service
	// and backend.
	DatapathPackets = "xebec_datapath_service_packets_total"
	// DatapathSocketsClosed counts the connected UDP sockets that were closed because their endpoint
	// had been removed.
	DatapathSocketsClosed = "xebec_datapath_sockets_closed_total"
	// DatapathFeature is 1 for the method by which a node provides a feature that depends on its
	// kernel, by feature and method: stale_sockets (closing connected UDP sockets of endpoints that
	// were removed) by iterator, sock_diag or none; refusal_error (what a socket of a service without
	// endpoints gets) by ECONNREFUSED or EPERM; loopback_node_ports by netns_cookie or none.
	DatapathFeature = "xebec_datapath_feature_info"
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
	// DNSUp is 1 while the node's DNS process answers its agent, else 0.
	DNSUp = "xebec_dns_up"
)

// Labels of the network's metrics.
const (
	// LabelMap names an eBPF map.
	LabelMap = "map"
	// LabelResult is ResultOK or ResultFailed.
	LabelResult = "result"
	// LabelFeature names a feature that depends on a node's kernel.
	LabelFeature = "feature"
	// LabelRcode is a DNS response code, such as NXDOMAIN.
	LabelRcode = "rcode"
)

// Labels of traffic to services.
const (
	// LabelService is "namespace/name[:port]".
	LabelService = "service"
	// LabelBackend is the address and port of an endpoint.
	LabelBackend = "backend"
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
