package pods_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
)

// TestForkBomb lets a container make processes without end: the pod's bound stops it, and others go
// on.
func TestForkBomb(t *testing.T) {
	n := start(t, func(n *node) { n.processes = 64 })
	other := n.create(pod("other", "sleep 3600"))
	p := n.until(other, "it runs", core.IsPodReady)
	uid := n.create(pod("bomb", "f() { sleep 3600 & f & }; while true; do f; done"))
	pids := func(file string) (out []string) {
		for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/pids"} {
			found, _ := filepath.Glob(filepath.Join(root, n.daemon.CgroupParent, "pod"+uid, file))
			for _, path := range found {
				if b, err := os.ReadFile(path); err == nil {
					out = append(out, strings.TrimSpace(string(b)))
				}
			}
		}
		return out
	}
	containerdtest.Eventually(t, 30*time.Second, "the bound was met", func() bool {
		// Some kernels count it where the bound is, some where the process is that met it.
		for _, events := range slices.Concat(pids("pids.events"), pids("*/pids.events")) {
			var refused int
			if _, err := fmt.Sscanf(events, "max %d", &refused); err == nil && refused > 0 {
				return true
			}
		}
		return false
	})
	current, most := pids("pids.current"), pids("pids.max")
	if !slices.Equal(most, []string{"64"}) || len(current) != 1 {
		t.Fatalf("%v processes of %v", current, most)
	}
	if now, err := strconv.Atoi(current[0]); err != nil || now > 64 {
		t.Errorf("%s processes: %v", current[0], err)
	}
	if got := n.run(p, "echo well"); got != "well\n" {
		t.Errorf("another pod says %q", got)
	}
	n.delete(uid)
	n.untilGone(uid)
	n.delete(other)
	n.untilGone(other)
}
