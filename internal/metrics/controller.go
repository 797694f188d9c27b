package metrics

// Names of the metrics that every service with controllers has.
const (
	// QueueDepth is the number of keys that wait, by controller.
	QueueDepth = "xebec_controller_queue_depth"
	// QueueSeconds is how long keys waited from being due to being taken, by controller.
	QueueSeconds = "xebec_controller_queue_seconds"
	// ReconcileSeconds is how long reconciles took, by controller.
	ReconcileSeconds = "xebec_controller_reconcile_seconds"
	// ReconcileFailures counts the reconciles that failed, by controller.
	ReconcileFailures = "xebec_controller_reconcile_failures_total"
	// QueueRetries counts the keys queued again with backoff, by controller.
	QueueRetries = "xebec_controller_queue_retries_total"
	// ElectionLeading is 1 while this instance leads its service, else 0.
	ElectionLeading = "xebec_election_leading"
	// ElectionTerms counts the terms that this instance began to lead.
	ElectionTerms = "xebec_election_terms_total"
	// EventsDropped counts the events that were not written, by reason: full, limited, failed.
	EventsDropped = "xebec_events_dropped_total"
	// EventsWritten counts the events that were written.
	EventsWritten = "xebec_events_written_total"
)

// LabelController names a controller.
const LabelController = "controller"
