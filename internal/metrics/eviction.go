package metrics

// LabelSignal is that of which too little was left, as thresholds name it.
const LabelSignal = "signal"

// Evictions counts the pods that a node ended because it ran short, by signal: memory.available, nodefs.available,
// nodefs.inodesFree, imagefs.available, imagefs.inodesFree, pid.available.
const Evictions = "xebec_eviction_pods_total"
