// Package eviction keeps a node from running out of incompressible resources: memory, disk, process
// IDs. It evicts pods before the kernel has to kill processes, in the order of Kubernetes' kubelet:
// first pods that use more than they requested, then those of lower priority, then those with the
// highest usage.
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

// Signal is the name of an available amount of a resource.
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

// signals in the order in which they are handled: memory first, since the kernel kills processes
// for it.
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

// resource is the name in pod specs of the resource that a signal is about.
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
			return Amount{}, fmt.Errorf("invalid percentage %q: want 0%% to 100%%", s)
		}
		return Amount{percent: v, text: s}, nil
	}
	q, err := resource.ParseQuantity(s)
	if err != nil || q.Sign() < 0 {
		return Amount{}, fmt.Errorf("invalid amount %q: want a quantity such as 100Mi, or a percentage such as 10%%", s)
	}
	return Amount{absolute: q.Value(), text: s}, nil
}

// Threshold is the minimum available amount of a signal.
type Threshold struct {
	Signal Signal
	// Least is the amount that must be available.
	Least Amount
	// Grace is the time that less may be available; 0 for a hard threshold.
	Grace time.Duration
	// Reclaim is the amount above Least that must be available before the threshold counts as no
	// longer crossed.
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
				err = fmt.Errorf("invalid duration %q: want more than 0s", value)
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
				problems = append(problems, fmt.Errorf("%s: a soft threshold requires a grace period", text))
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
	return "", "", fmt.Errorf("invalid threshold %q: want SIGNAL%sAMOUNT with SIGNAL one of %v", text, sep, signals)
}
