package metrics

// DNSProcessNamespace begins the names of the metrics of the process that answers DNS.
const DNSProcessNamespace = "xebec_dns"

// Keys of log fields of servers and their calls.
const (
	KeyService   = "service"
	KeyHost      = "host"
	KeyCaller    = "caller"
	KeyForwarder = "forwarder"
	KeyMethod    = "method"
	KeyObject    = "object"
	KeyCode      = "code"
	KeyLatency   = "latency"
	// KeyRequestID identifies a call at every server that it passes.
	KeyRequestID = "request_id"
	// KeyPeer is the address of a connection's other end.
	KeyPeer     = "peer"
	KeyListener = "listener"
	KeyAddress  = "address"
	// KeyFrom is the source of the rules of an access list. KeyPrivate and KeyPublic are its prefixes;
	// KeyPrivateClosed and KeyPublicClosed report listeners that accept masters only.
	KeyFrom          = "from"
	KeyPrivate       = "private"
	KeyPrivateClosed = "private_closed"
	KeyPublic        = "public"
	KeyPublicClosed  = "public_closed"
	// KeyUnlogged is the number of entries of the same kind that were left out before this one.
	KeyUnlogged = "unlogged"
	// KeyError is the key that zap.Error uses.
	KeyError = "error"
	KeyPanic = "panic"
	KeyStack = "stack"
)

// Keys of log fields of controllers and objects.
const (
	KeyNode      = "node"
	KeyPods      = "pods"
	KeyNamespace = "namespace"
	// KeyController names a controller, KeyControllers is their number, KeyKey an object that one
	// reconciles, and KeySync how long the informers took to sync.
	KeyController  = "controller"
	KeyControllers = "controllers"
	KeyKey         = "key"
	KeySync        = "sync"
	KeyRevision    = "revision"
	// KeyTTL is the time to live of a lease.
	KeyTTL = "ttl"
	// KeyKinds is the number of served kinds, and KeyAdded how many of them are new.
	KeyKinds = "kinds"
	KeyAdded = "added"
	// KeyZone names a zone of nodes, KeyDisruption is its state, KeyNodes how many nodes it has, and
	// KeyNotReady how many of them are not ready.
	KeyZone       = "zone"
	KeyDisruption = "disruption"
	KeyNodes      = "nodes"
	KeyNotReady   = "not_ready"
	// KeyRelist reports whether a watch begins with a list.
	KeyRelist = "relist"
)

// Keys of log fields of processes and their parts.
const (
	KeyVersion = "version"
	// KeyRegistered reports whether an instance is registered.
	KeyRegistered = "registered"
	// KeyDuration is how long something took, KeyWaited how long something waited, KeyLimit the
	// longest time allowed, and KeyRetryAfter the time until the next attempt.
	KeyDuration   = "duration"
	KeyWaited     = "waited"
	KeyLimit      = "limit"
	KeyRetryAfter = "retry_after"
	KeyFile       = "file"
	// KeyMessage is the message of other log entries.
	KeyMessage = "message"
	// KeyKeys is a number of keys for tokens, KeyNewest the id of the newest.
	KeyKeys   = "keys"
	KeyNewest = "newest"
)

// Keys of log fields of members of etcd.
const (
	KeyMember     = "member"
	KeyLeader     = "leader"
	KeyDataDir    = "data_dir"
	KeyPeerURL    = "peer_url"
	KeyClientURL  = "client_url"
	KeyQuotaBytes = "quota_bytes"
	KeyAlarm      = "alarm"
)

// Keys of log fields of the lab.
const (
	KeyGateway = "gateway"
	KeyProcess = "process"
	// KeyExit describes how a process ended, KeyRestartIn when it starts again.
	KeyExit      = "exit"
	KeyRestartIn = "restart_in"
	KeyStep      = "step"
	// KeyPowerOff reports a host that is stopped without warning, KeyCut one without a network.
	KeyPowerOff = "power_off"
	KeyCut      = "cut"
)
