package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/xebec-project/xebec/tests/cluster"
)

// meter tells what processes use from when it was made.
type meter struct {
	processes []*cluster.Process
	before    []cluster.Usage
}

func newMeter(processes []*cluster.Process) (*meter, error) {
	m := &meter{processes: processes}
	for _, p := range processes {
		u, err := p.Usage()
		if err != nil {
			return nil, err
		}
		m.before = append(m.before, u)
	}
	return m, nil
}

// read returns the processor time of all processes since the meter was made, and a note with that
// of each.
func (m *meter) read() (total time.Duration, note string, err error) {
	var parts []string
	for i, p := range m.processes {
		u, err := p.Usage()
		if err != nil {
			return 0, "", err
		}
		cpu := u.CPU - m.before[i].CPU
		total += cpu
		parts = append(parts, fmt.Sprintf("%s %.2f", p.Service, cpu.Seconds()))
	}
	return total, "CPU-s: " + strings.Join(parts, ", "), nil
}

// quantile returns the value below which the given share of the sorted durations lies.
func quantile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*share))]
}

// milliseconds prints a duration in milliseconds with the digits that mean something.
func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 0.1:
		return fmt.Sprintf("%.3f ms", ms)
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

func median(durations []time.Duration) time.Duration {
	slices.Sort(durations)
	return quantile(durations, 0.5)
}

const mebibyte = 1 << 20
