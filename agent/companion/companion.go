// Package companion turns a program into one of the agent's small companions before the rest of it
// is initialized.
//
// A log writer, or a keeper of streams, is started for every container, and the container's start
// waits for it; a reaper is started for every pod whose containers see each other's processes. The
// agent's program is large, and initializing all its packages takes several times as long as such a
// process needs to be ready; it also touches memory that each of those processes would then hold.
// Go initializes a package as soon as those that it imports are, in the order of import paths, so
// that this one, which imports little, comes before most of what is slow. The main package imports
// it for its effect; it has none on a program that was not asked to be a companion.
package companion

import (
	"os"

	"github.com/xebec-project/xebec/agent/logs"
	"github.com/xebec-project/xebec/agent/reaper"
	"github.com/xebec-project/xebec/agent/streams"
)

func init() {
	switch {
	case logs.Asked():
		os.Exit(logs.RunWriter(os.Args[2]))
	case reaper.Asked():
		os.Exit(reaper.Run())
	case streams.Asked():
		os.Exit(streams.Run())
	}
}
