// Package eviction keeps a node from running out of what cannot be shared out twice: memory, disk,
// process ids. Before the kernel has to kill something it ends the pod that is most to blame, as
// Kubernetes' kubelet does: those first that use more than they asked for, then those of lower
// priority, then those that use most.
package eviction

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Signal names what is left of something on the node.
type Signal string

// The signals, as Kubernetes names them. nodefs is where pods' volumes and logs lie, imagefs where
// images and containers' own files do.
const (
	MemoryAvailable   Signal = "memory.available"
	NodeFSAvailable   Signal = "nodefs.available"
	NodeFSInodesFree  Signal = "nodefs.inodesFree"
	ImageFSAvailable  Signal = "imagefs.available"
	ImageFSInodesFree Signal = "imagefs.inodesFree"
	PIDAvailable      Signal = "pid.available"
)

// What a pod may exceed though the node has enough: its own limits, of a volume, of what a
// container writes and logs, and of all containers together. There are no thresholds for them;
// Kubernetes' metrics name them so.
const (
	EmptyDirLimit  Signal = "emptydirfs.limit"
	ContainerLimit Signal = "ephemeralcontainerfs.limit"
	PodLimit       Signal = "ephemeralpodfs.limit"
)

// limits are all of those.
var limits = []Signal{EmptyDirLimit, ContainerLimit, PodLimit}

// signals in the order in which they are acted on: what the kernel would kill for comes first.
var signals = []Signal{MemoryAvailable, PIDAvailable, NodeFSAvailable, NodeFSInodesFree, ImageFSAvailable, ImageFSInodesFree}

// Pressure is a condition of the node.
type Pressure string

// The conditions, as Kubernetes names them.
const (
	MemoryPressure Pressure = "MemoryPressure"
	DiskPressure   Pressure = "DiskPressure"
	PIDPressure    Pressure = "PIDPressure"
)

// Pressures are all conditions.
var Pressures = []Pressure{MemoryPressure, DiskPressure, PIDPressure}

// pressure returns the condition that a signal tells of.
func (s Signal) pressure() Pressure {
	switch s {
	case MemoryAvailable:
		return MemoryPressure
	case PIDAvailable:
		return PIDPressure
	}
	return DiskPressure
}

// resource is what pods call that of which the signal tells what is left.
func (s Signal) resource() string {
	switch s {
	case MemoryAvailable:
		return "memory"
	case PIDAvailable:
		return "pids"
	case NodeFSInodesFree, ImageFSInodesFree:
		return "inodes"
	}
	return "ephemeral-storage"
}

// Amount is a number of bytes, files or processes, or a share of all there are.
type Amount struct {
	absolute int64
	percent  float64
	text     string
}

// Of returns the amount, given how much there is in all.
func (a Amount) Of(capacity int64) int64 {
	if a.percent > 0 {
		return int64(a.percent / 100 * float64(capacity))
	}
	return a.absolute
}

// String returns the amount as it was written.
func (a Amount) String() string { return a.text }

func parseAmount(s string) (Amount, error) {
	if p, ok := strings.CutSuffix(s, "%"); ok {
		v, err := strconv.ParseFloat(p, 64)
		if err != nil || v < 0 || v >= 100 {
			return Amount{}, fmt.Errorf("%q is not a share between 0%% and 100%%", s)
		}
		return Amount{percent: v, text: s}, nil
	}
	q, err := resource.ParseQuantity(s)
	if err != nil || q.Sign() < 0 {
		return Amount{}, fmt.Errorf("%q is not a quantity such as 100Mi, or a share such as 10%%", s)
	}
	return Amount{absolute: q.Value(), text: s}, nil
}

// Threshold is how little of something may be left.
type Threshold struct {
	Signal Signal
	// Least is what must be left.
	Least Amount
	// Grace is how long less may be left; 0 for a hard threshold.
	Grace time.Duration
	// Reclaim is how much more than Least must be left again before all is well.
	Reclaim Amount
}

// Settings are thresholds as they are written in a configuration.
type Settings struct {
	// Hard and Soft are each "signal<amount", such as "memory.available<100Mi" or
	// "nodefs.available<10%".
	Hard, Soft []string
	// SoftGrace gives each soft threshold its time, "signal=duration".
	SoftGrace []string
	// MinimumReclaim is "signal=amount".
	MinimumReclaim []string
}

// Parse reads thresholds. The error names every problem.
func Parse(s Settings) ([]Threshold, error) {
	var problems []error
	reclaim := map[Signal]Amount{}
	for _, text := range s.MinimumReclaim {
		signal, value, err := split(text, "=")
		if err == nil {
			reclaim[signal], err = parseAmount(value)
		}
		problems = append(problems, err)
	}
	grace := map[Signal]time.Duration{}
	for _, text := range s.SoftGrace {
		signal, value, err := split(text, "=")
		if err == nil {
			if grace[signal], err = time.ParseDuration(value); err == nil && grace[signal] <= 0 {
				err = fmt.Errorf("%q is not a time to wait", value)
			}
		}
		problems = append(problems, err)
	}
	var out []Threshold
	for i, text := range slices.Concat(s.Hard, s.Soft) {
		signal, value, err := split(text, "<")
		if err != nil {
			problems = append(problems, err)
			continue
		}
		t := Threshold{Signal: signal, Reclaim: reclaim[signal]}
		if t.Least, err = parseAmount(value); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", text, err))
			continue
		}
		if i >= len(s.Hard) {
			if t.Grace = grace[signal]; t.Grace == 0 {
				problems = append(problems, fmt.Errorf("%s: a soft threshold needs a grace period", text))
			}
		}
		out = append(out, t)
	}
	return out, errors.Join(problems...)
}

func split(text, sep string) (Signal, string, error) {
	name, value, ok := strings.Cut(text, sep)
	if signal := Signal(strings.TrimSpace(name)); ok && slices.Contains(signals, signal) {
		return signal, strings.TrimSpace(value), nil
	}
	return "", "", fmt.Errorf("%q does not say signal%samount: signals are %v", text, sep, signals)
}
