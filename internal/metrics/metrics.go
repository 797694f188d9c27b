// Package metrics holds the names of every metric and the keys of every structured log field, so
// that dashboards, alerts and log queries have one list to look at.
package metrics

// Names of metrics.
const (
	// RPCHandled counts the calls that a server ended, by method and status code.
	RPCHandled = "xebec_rpc_server_handled_total"
	// RPCSeconds is how long unary calls took at the server, by method.
	RPCSeconds = "xebec_rpc_server_handling_seconds"
	// RPCInFlight is the number of unary calls that a server works on now.
	RPCInFlight = "xebec_rpc_server_in_flight"
	// RPCRefused counts the calls refused before they reached a handler, by reason.
	RPCRefused = "xebec_rpc_server_refused_total"
	// RPCConnectionsClosed counts the connections that a server's limits refused or closed, by reason:
	// pending (too many that have not authenticated), rate (the source connects too often without
	// authenticating), timeout (it did not authenticate in time), failures (too many of its calls
	// failed to authenticate), expired (so has its caller's certificate).
	RPCConnectionsClosed = "xebec_rpc_server_connections_closed_total"
	// RPCPendingConnections is the number of connections whose callers are authenticating.
	RPCPendingConnections = "xebec_rpc_server_pending_connections"
	// RPCWaitingConnections is the number of connections that wait for others to authenticate first.
	RPCWaitingConnections = "xebec_rpc_server_waiting_connections"
	// RPCConnections is the number of open connections whose callers have authenticated.
	RPCConnections = "xebec_rpc_server_connections"
	// RPCCallers is the number of callers that have authenticated and have connections open.
	RPCCallers = "xebec_rpc_server_callers"
	// CertificateExpiry is the Unix time at which the process's own certificate expires.
	CertificateExpiry = "xebec_certificate_expiry_timestamp_seconds"
	// RetriesTotal counts the calls that this process made again because an attempt failed.
	RetriesTotal = "xebec_retries_total"
	// RetriesRefusedTotal counts the calls that were not made again because the process's budget of
	// repetitions was used up.
	RetriesRefusedTotal = "xebec_retries_refused_total"
	// EtcdLimit is how many requests to etcd this process has under way at most, as etcd's latency
	// allows.
	EtcdLimit = "xebec_etcd_client_limit"
	// EtcdInFlight is how many requests to etcd this process has under way.
	EtcdInFlight = "xebec_etcd_client_in_flight"
	// EtcdWaiting is how many requests to etcd wait for their turn.
	EtcdWaiting = "xebec_etcd_client_waiting"
	// LogLinesLeftOut counts the lines that were not logged because there were too many of the same
	// message, by level.
	LogLinesLeftOut = "xebec_log_lines_left_out_total"
	// DiscoveryRegistered is 1 while this instance is registered, else 0.
	DiscoveryRegistered = "xebec_discovery_registered"
	// BuildInfo is 1, labelled with version, commit and Go version.
	BuildInfo = "xebec_build_info"
	// GatewayNodeConnections is the number of agents the gateway is connected to.
	GatewayNodeConnections = "xebec_gateway_node_connections"
	// GatewayConnections counts the connections that callers made, by listener and result: admitted,
	// denied by the access list, cut when the list changed, bad_proxy_header.
	GatewayConnections = "xebec_gateway_connections_total"
	// GatewayOpenConnections is the number of callers' connections that are open, by listener.
	GatewayOpenConnections = "xebec_gateway_open_connections"
)

// Labels of metrics.
const (
	LabelMethod = "method"
	LabelCode   = "code"
	LabelReason = "reason"
	// LabelListener is public or private.
	LabelListener = "listener"
)

// MessageCall is the message of a log line about a call that succeeded. Those of a gateway about
// writes are an audit.
const MessageCall = "Call"
