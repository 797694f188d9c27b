package metrics

// LabelLevel is the priority level of a call (system, leases, nodes, controllers, people), or the
// level of a log line.
const LabelLevel = "level"

// Names of the metrics of a server's seats.
const (
	// RPCSeats is the number of seats in use, by priority level: unary calls that are worked on, and
	// watches that send their initial state.
	RPCSeats = "xebec_rpc_server_seats_in_use"
	// RPCQueue is the number of calls that wait for a seat, by priority level.
	RPCQueue = "xebec_rpc_server_queue_length"
	// RPCWaitSeconds is how long calls waited for their seat, 0 for most, by priority level.
	RPCWaitSeconds = "xebec_rpc_server_queue_seconds"
	// RPCOverloaded counts the calls that got no seat, by priority level and reason: caller (too many
	// calls of the caller wait), level (too many of the level wait), wait (the call waited too long).
	RPCOverloaded = "xebec_rpc_server_overloaded_total"
)
