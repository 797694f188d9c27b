package checkpoint

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/xebec-project/xebec/agent/pods/resources"
)

// Exit is how one attempt of a container ended.
type Exit struct {
	ContainerID string
	Code        int32
	Reason      string
	Message     string
	StartedAt   time.Time
	FinishedAt  time.Time
}

// Record is what must be known of a container after a crash of the agent and can't be asked of
// containerd.
type Record struct {
	// Attempt is the number of the current attempt, which is also the count of restarts. Renewed is
	// the one with which the pod last began again.
	Attempt, Renewed int
	// Image and ImageID are the full name and digest of the image of the current attempt, Asked the
	// name in the spec.
	Image, ImageID, Asked string
	// StartedAt is when the current attempt was started, zero before.
	StartedAt time.Time
	// Exit is how the current attempt ended, nil before.
	Exit *Exit
	// Last is how the attempt before the current one ended.
	Last *Exit
	// Crashes counts the restarts since the container last ran for long.
	Crashes int
	// Applied is what the current attempt is bounded to, and Shared what it is by the pod's limits
	// where it has none of its own; both are nil where the agent that started it did not write that
	// down.
	Applied *resources.Allotment
	Shared  map[string]string
}

// Begun reports whether the container was started, or tried to, since the pod began.
func (r Record) Begun() bool { return r.Attempt > r.Renewed || !r.StartedAt.IsZero() || r.Exit != nil }

// Next is the record of the attempt after one that has ended.
func (r Record) Next() Record {
	if r.Exit.FinishedAt.Sub(r.Exit.StartedAt) >= StableAfter {
		r.Crashes = 0
	}
	r.Last, r.Exit, r.StartedAt = r.Exit, nil, time.Time{}
	r.Attempt++
	return r
}

// StableAfter is how long a container must have run for its earlier crashes to be forgotten.
const StableAfter = 10 * time.Minute

// SaveRecord stores the record of a container.
func (d Dir) SaveRecord(container string, r Record) error {
	if err := writeJSON(d.record(container), r); err != nil {
		return fmt.Errorf("saving the record of container %s: %w", container, err)
	}
	return nil
}

// LoadRecord returns the zero record for a container that has none, or one that can't be read: such
// a container counts as never started, unless containerd knows better.
func (d Dir) LoadRecord(container string) Record {
	var r Record
	b, err := os.ReadFile(d.record(container))
	if err != nil || json.Unmarshal(b, &r) != nil {
		return Record{}
	}
	return r
}
