// Package fairness decides in which order a server works on the calls that it has received, when
// they are more than it can work on at once. It follows Kubernetes' API Priority and Fairness
// (k8s.io/apiserver/pkg/util/flowcontrol): a server has a fixed number of seats, a call takes one
// while it is worked on, each priority level is guaranteed a share of the seats and may borrow
// those that others do not use, and within a level the callers take turns. It knows nothing of
// gRPC: package edge chooses the level and the caller of a call.
//
// Each level keeps half of its share for itself, as the part that is not lendable in API Priority
// and Fairness: however busy the others are, its first calls never wait. A level that is below its
// share gets every seat that becomes free before levels that borrow.
//
// Within a level each caller has a queue of its own. Free seats go round the callers that have
// calls waiting (Nagle, "On Packet Switches with Infinite Storage", RFC 970), so that a caller with
// one call waits for at most one call of each other. Queues are exact and not shuffle-sharded:
// callers have authenticated, and a caller costs memory only while it has calls waiting.
package fairness

import (
	"errors"
	"fmt"
	"runtime"
	"time"
)

// Level is the priority of a call.
type Level int

// Levels, in the order in which those below their share get free seats.
const (
	// System is the control plane's own elections and leases.
	System Level = iota
	// Leases is the leases of nodes: nodes that cannot renew theirs are taken for lost, which makes
	// more work.
	Leases
	// Nodes is all other calls of nodes.
	Nodes
	// Controllers is the calls of services and of service accounts.
	Controllers
	// People is the calls of people and their tools.
	People
	levelCount
)

// level describes a level: its name in metrics and messages, and its share of the seats in percent.
var levels = [levelCount]struct {
	name  string
	share int
}{
	System:      {"system", 10},
	Leases:      {"leases", 10},
	Nodes:       {"nodes", 40},
	Controllers: {"controllers", 25},
	People:      {"people", 15},
}

// String returns the name of the level, as metrics have it.
func (l Level) String() string { return levels[l].name }

// All returns all levels, in their order.
func All() []Level { return []Level{System, Leases, Nodes, Controllers, People} }

// MinSeats is how many seats a server has at least: one for each level.
const MinSeats = int(levelCount)

// Queues bounds the calls that wait for a seat. The zero value of a field stands for that of
// DefaultQueues.
type Queues struct {
	// PerCaller bounds the waiting calls of one caller in a level.
	PerCaller int `yaml:"perCaller" help:"waiting calls of one caller; further ones are refused"`
	// PerLevel bounds the waiting calls of one priority level. The fuller the level, the fewer calls
	// of one caller may wait.
	PerLevel int `yaml:"perLevel" help:"waiting calls of one priority level; further ones are refused"`
	// MaxWait is how long a call waits at most before it is refused.
	MaxWait time.Duration `yaml:"maxWait" help:"longest wait of a call before it is refused"`
}

// DefaultQueues are those of every server unless its configuration says otherwise. A waiting call
// holds about 15 KiB, and at most the 64 KiB of its stream's window.
func DefaultQueues() Queues {
	return Queues{PerCaller: 256, PerLevel: 8192, MaxWait: 5 * time.Second}
}

// WithDefaults returns the bounds with every zero field filled.
func (q Queues) WithDefaults() Queues {
	d := DefaultQueues()
	if q.PerCaller == 0 {
		q.PerCaller = d.PerCaller
	}
	if q.PerLevel == 0 {
		q.PerLevel = d.PerLevel
	}
	if q.MaxWait == 0 {
		q.MaxWait = d.MaxWait
	}
	return q
}

// Validate returns all problems; key is what precedes the names of the fields in the configuration,
// such as "queues".
func (q Queues) Validate(key string) error {
	var problems []error
	for _, field := range []struct {
		name  string
		value int64
	}{{"perCaller", int64(q.PerCaller)}, {"perLevel", int64(q.PerLevel)}, {"maxWait", int64(q.MaxWait)}} {
		if field.value < 0 {
			problems = append(problems, fmt.Errorf("%s.%s: must not be negative; 0 is the default", key, field.name))
		}
	}
	return errors.Join(problems...)
}

// Config says how many calls a server works on at once, and how many wait.
type Config struct {
	// Seats is how many calls are worked on at once; 0 is DefaultSeats, and less than MinSeats counts
	// as MinSeats.
	Seats int
	// Queues bounds the calls that wait.
	Queues Queues
}

// DefaultSeats is 64 for each processor, at least 256. A call waits for etcd or another service for
// most of its time, so that several per processor keep the processors busy; many more would only
// wait in the wrong place, where no order is kept.
func DefaultSeats() int { return max(256, 64*runtime.GOMAXPROCS(0)) }

// ValidateSeats returns what is wrong with a number of seats from a configuration; key is its name
// there.
func ValidateSeats(key string, seats int) error {
	if seats != 0 && seats < MinSeats {
		return fmt.Errorf("%s: must be at least %d, one for each priority level, or 0 for the default; is %d", key, MinSeats, seats)
	}
	return nil
}

// nominal divides the seats by the shares of the levels, at least one for each.
func nominal(seats int) [levelCount]int {
	var out [levelCount]int
	rest, left := seats-MinSeats, seats
	for l := range out {
		out[l] = 1 + rest*levels[l].share/100
		left -= out[l]
	}
	for l := 0; left > 0; l, left = (l+1)%MinSeats, left-1 {
		out[l]++
	}
	return out
}

// Reasons of refusals, the label of the counter.
const (
	// ReasonCaller: the caller has too many calls waiting.
	ReasonCaller = "caller"
	// ReasonLevel: the level has too many calls waiting.
	ReasonLevel = "level"
	// ReasonWait: the call waited too long.
	ReasonWait = "wait"
)

// RefusedError says why a call gets no seat, and when it is worth another try.
type RefusedError struct {
	// Level is that of the call.
	Level Level
	// Reason is one of the constants above.
	Reason string
	// Delay is how long to wait before the next try. It grows with the number of calls that wait, and
	// is random, so that refused callers do not come back at once.
	Delay time.Duration
	// Waited is how long the call waited.
	Waited time.Duration
	text   string
}

func (e *RefusedError) Error() string { return e.text }
