// Package logs writes and reads containers' log files.
//
// Every line on disk is one entry in the format of the Kubernetes container runtime interface:
//
//	2026-01-02T15:04:05.999999999Z stdout F a whole line
//	2026-01-02T15:04:06.000000001Z stderr P the beginning of a line that does not end yet
//
// The writer is a process of its own, one for each container, which containerd's shim starts and
// keeps (a "binary://" log URI): it outlives the agent and containerd alike, so that neither's
// death costs a line or blocks a container that writes. It holds one buffer for each stream, runs
// on one thread's worth of scheduler and allocates nothing per line.
package logs

import (
	"io"
	"time"
)

const (
	// MaxBytes is the size at which a log file is put aside as its ".1", replacing the one before. A
	// container's log so takes at most twice as much.
	MaxBytes = 10 << 20
	// maxEntry is the most bytes of a line that one entry holds; a longer line is cut into partial
	// entries.
	maxEntry = 16 << 10

	timeFormat = "2006-01-02T15:04:05.000000000Z07:00"
)

// rotated is where a log file goes when it is full.
func rotated(path string) string { return path + ".1" }

// Options selects what Read returns.
type Options struct {
	// Follow waits for more until the container has ended.
	Follow bool
	// Tail, when not negative, selects only the last so many lines.
	Tail int64
	// Since, when not zero, selects only lines written then or later.
	Since time.Time
	// Stderr, when not nil, gets what the container wrote to its stderr; otherwise that comes between
	// the rest.
	Stderr io.Writer
	// Timestamps puts each line's time before it.
	Timestamps bool
}
