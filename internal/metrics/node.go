package metrics

// Keys of log fields of the node agent.
const (
	// KeyPod is the namespace and name of a pod, KeyUID its UID.
	KeyPod       = "pod"
	KeyUID       = "uid"
	KeyContainer = "container"
	// KeyAttempt is the number of restarts of a container.
	KeyAttempt = "attempt"
	// KeyExitCode is the exit code of a process.
	KeyExitCode = "exit_code"
	KeyVolume   = "volume"
	// KeyPhase is the phase of the sync of a pod.
	KeyPhase       = "phase"
	KeyPriority    = "priority"
	KeyGracePeriod = "grace_period"
	KeyReason      = "reason"
	// KeyPreviousVersion is the version of the process that is replaced.
	KeyPreviousVersion = "previous_version"
	// KeyReplaces reports whether a process takes over from another.
	KeyReplaces = "replaces"
	// KeyKnownBefore reports whether the node was registered before the agent started.
	KeyKnownBefore = "known_before"
	KeyDirectory   = "directory"
	// KeyWatch is the kind that a watch is about.
	KeyWatch = "watch"
	// KeyObjects, KeyContainers and KeySockets are numbers of them.
	KeyObjects    = "objects"
	KeyContainers = "containers"
	KeySockets    = "sockets"
	// KeySignal is an eviction signal, KeyAvailable its available amount.
	KeySignal    = "signal"
	KeyAvailable = "available"
	// KeyFreed and KeyToFree are in bytes.
	KeyFreed  = "freed"
	KeyToFree = "to_free"
	// KeyUsage is the usage of a disk in percent.
	KeyUsage    = "usage_percent"
	KeyImages   = "images"
	KeyLastUsed = "last_used"
	// KeyFeature is a feature of the datapath, KeyProvider the way it is provided, and KeyMissing what
	// does not work.
	KeyFeature  = "feature"
	KeyProvider = "provider"
	KeyMissing  = "missing"
	KeyPort     = "port"
	KeyProtocol = "protocol"
	// KeyDirection is ingress or egress, KeyRule the rule of a policy that decides.
	KeyDirection   = "direction"
	KeyRule        = "rule"
	KeySource      = "source"
	KeyDestination = "destination"
	KeyClient      = "client"
	// KeyDNSName is the name of a query.
	KeyDNSName = "dns_name"
)
