package metrics

// Names of the metrics of network policies on a node.
const (
	// PolicyPods is the number of pods on the node that policies select, by direction: ingress,
	// egress.
	PolicyPods = "xebec_policy_pods"
	// PolicyDrops counts the packets that policies kept from a pod, or a pod from sending, by pod,
	// direction and reason: not-allowed by any rule, revoked from a flow that rules allowed before,
	// fragment of a packet that did not pass.
	PolicyDrops = "xebec_policy_drops_total"
	// PolicyMapPressure is the fill level of a map, from 0 to 1, by map. Full maps of sets keep
	// policies from changing; a full table of flows, counted every minute, forgets what was used least
	// recently.
	PolicyMapPressure = "xebec_policy_map_pressure_ratio"
	// PolicyWrites counts the writes of changes to the policy maps, by result: ok, failed.
	PolicyWrites = "xebec_policy_writes_total"
	// PolicyDelaySeconds is the time from hearing of a change to having it enforced.
	PolicyDelaySeconds = "xebec_policy_delay_seconds"
)

// Labels of the metrics of network policies.
const (
	// LabelDirection is ingress or egress, as seen from the pod.
	LabelDirection = "direction"
	// LabelNamespace and LabelPod name a pod.
	LabelNamespace = "namespace"
	LabelPod       = "pod"
)
