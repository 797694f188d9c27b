package runtime_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/runtime"
)

// testReadOnlyBelow writes to a file system that is mounted below a volume: a read-only mount alone
// does not keep a container from it.
func testReadOnlyBelow(n *node) {
	if !n.rt.ReadOnlyBelow() {
		if os.Getenv("CI") == "true" {
			n.Fatal("the machine can't make mounts below a read-only one read-only")
		}
		n.Skip("the machine can't make mounts below a read-only one read-only")
	}
	n.uid = uuid.NewString()
	dir := filepath.Join(n.daemon.Dir, "layered")
	below := filepath.Join(dir, "below")
	if err := os.MkdirAll(below, 0o755); err != nil {
		n.Fatal(err)
	}
	if err := unix.Mount("below", below, "tmpfs", 0, ""); err != nil {
		n.Fatal(err)
	}
	defer unix.Unmount(below, unix.MNT_DETACH)
	var ids []string
	for name, m := range map[string]runtime.Mount{
		"top":  {ReadOnly: true},
		"deep": {ReadOnly: true, ReadOnlyBelow: true},
		"bare": {Options: []string{"noexec", "nosuid", "nodev"}},
	} {
		m.Source, m.Target = dir, "/v"
		cfg := n.config(name, "sh", "-c", fmt.Sprintf("for d in /v /v/below; do touch $d/%s 2>/dev/null && echo $d writable || echo $d read-only; done; grep ' /v ' /proc/self/mountinfo; echo end", name))
		cfg.Mounts = []runtime.Mount{m}
		ids = append(ids, n.start(cfg).ID)
		want := map[string]string{
			"top": "/v read-only\n/v/below writable\n", "deep": "/v read-only\n/v/below read-only\n", "bare": "/v writable\n/v/below writable\n",
		}[name]
		got := n.output(cfg, "end")
		if !strings.HasPrefix(got, want) {
			n.Errorf("%s: %s", name, got)
		}
		for _, option := range m.Options {
			if !strings.Contains(got, option) {
				n.Errorf("no %s in %s", option, got)
			}
		}
	}
	for _, id := range ids {
		if err := n.rt.Remove(n.Context(), id); err != nil {
			n.Error(err)
		}
	}
	if err := n.rt.RemovePod(n.Context(), n.uid); err != nil {
		n.Error(err)
	}
}
