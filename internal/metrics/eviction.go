package metrics

// LabelSignal is that of which too little was left, as thresholds name it, or the limit that was
// exceeded.
const LabelSignal = "signal"

// Evictions counts the pods that a node ended because it ran short, by signal: memory.available,
// nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree, pid.available; or
// because they used more disk than their own limits allow: emptydirfs.limit,
// ephemeralcontainerfs.limit, ephemeralpodfs.limit.
const Evictions = "xebec_eviction_pods_total"
