package pods

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// exit is how one attempt of a container ended.
type exit struct {
	ContainerID string
	Code        int32
	Reason      string
	Message     string
	StartedAt   time.Time
	FinishedAt  time.Time
}

// record is what must be known of a container after a crash of the agent and can't be asked of containerd.
type record struct {
	// Attempt is the number of the current attempt, which is also the count of restarts. Renewed is the one with which the pod
	// last began anew.
	Attempt, Renewed int
	// Image and ImageID are the full name and digest of the image of the current attempt, Asked the name in the spec.
	Image, ImageID, Asked string
	// StartedAt is when the current attempt was started, zero before.
	StartedAt time.Time
	// Exit is how the current attempt ended, nil before.
	Exit *exit
	// Last is how the attempt before the current one ended.
	Last *exit
	// Crashes counts the restarts since the container last ran for long.
	Crashes int
	// Applied is what the current attempt is bounded to, and Shared what it is by the pod's limits where it has none of its own;
	// both are nil where the agent that started it did not write that down.
	Applied *allotment
	Shared  map[string]string
}

// begun tells whether the container was started, or tried to, since the pod began.
func (r record) begun() bool { return r.Attempt > r.Renewed || !r.StartedAt.IsZero() || r.Exit != nil }

// next is the record of the attempt after one that has ended.
func (r record) next() record {
	if r.Exit.FinishedAt.Sub(r.Exit.StartedAt) >= stableAfter {
		r.Crashes = 0
	}
	r.Last, r.Exit, r.StartedAt = r.Exit, nil, time.Time{}
	r.Attempt++
	return r
}

// stableAfter is how long a container must have run for its earlier crashes to be forgotten.
const stableAfter = 10 * time.Minute

func (d dir) saveRecord(container string, r record) error {
	b, err := json.Marshal(r)
	if err == nil {
		err = writeFile(d.record(container), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("saving the record of container %s: %w", container, err)
	}
	return nil
}

// loadRecord returns the zero record for a container that has none, or one that can't be read: such a container counts as
// never started, unless containerd knows better.
func (d dir) loadRecord(container string) record {
	var r record
	b, err := os.ReadFile(d.record(container))
	if err != nil || json.Unmarshal(b, &r) != nil {
		return record{}
	}
	return r
}
