package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"slices"

	"golang.org/x/sys/unix"
)

// ReadOnlyBelow reports whether a mount can be read-only together with what is mounted below its
// source. That takes Linux 5.12 and runc 1.1. The answer is found once.
func (r *Runtime) ReadOnlyBelow() bool { return r.readOnlyBelow() }

func readOnlyBelow() bool {
	// A kernel that knows the call finds no such file instead.
	if err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); errors.Is(err, unix.ENOSYS) {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "runc", "features").Output()
	if err != nil {
		// Those before 1.1 don't tell what they can do.
		return false
	}
	var features struct{ MountOptions []string }
	return json.Unmarshal(out, &features) == nil && slices.Contains(features.MountOptions, "rro")
}
