package runtime_test

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
)

// testPropagation mounts below a volume on either side and looks for it on the other.
func testPropagation(n *node) {
	n.uid = uuid.NewString()
	dir := filepath.Join(n.daemon.Dir, "shared")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		n.Fatal(err)
	}
	if err := unix.Mount("shared", dir, "tmpfs", 0, ""); err != nil {
		n.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		n.Fatal(err)
	}
	for _, sub := range []string{"below", "inside"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			n.Fatal(err)
		}
	}
	// What is mounted by what is open, and not by a path, is propagated alike.
	file, err := os.Open(dir)
	if err != nil {
		n.Fatal(err)
	}
	defer file.Close()
	script := "mount -t tmpfs inside /v/inside && touch /v/inside/of-container; while ! test -e /v/below/of-node; do sleep 0.1; done; echo seen; sleep 3600"
	ids := map[runtime.Propagation]string{}
	for _, p := range []runtime.Propagation{runtime.PropagationNone, runtime.PropagationHostToContainer, runtime.PropagationBidirectional} {
		cfg := n.config("sees-"+string(p[0]+'a'-'A'), "sh", "-c", script)
		cfg.Security.Privileged = p == runtime.PropagationBidirectional
		cfg.Mounts = []runtime.Mount{{File: file, Target: "/v", Propagation: p}}
		ids[p] = n.start(cfg).ID
	}
	containerdtest.Eventually(n.T, 60*time.Second, "the node sees the container's mount", func() bool {
		_, err := os.Stat(filepath.Join(dir, "inside", "of-container"))
		return err == nil
	})
	below := filepath.Join(dir, "below")
	if err := unix.Mount("below", below, "tmpfs", 0, ""); err != nil {
		n.Fatal(err)
	}
	defer unix.Unmount(below, unix.MNT_DETACH)
	defer unix.Unmount(filepath.Join(dir, "inside"), unix.MNT_DETACH)
	if err := os.WriteFile(filepath.Join(below, "of-node"), nil, 0o644); err != nil {
		n.Fatal(err)
	}
	n.output(n.config("sees-h", ""), "seen")
	n.output(n.config("sees-b", ""), "seen")
	if got := n.output(n.config("sees-n", ""), ""); got != "" && got[len(got)-5:] == "seen\n" {
		n.Error("a container without propagation sees what was mounted later")
	}
	// The paths by which runc was given it are gone again, and with them nothing that is mounted below
	// it.
	after := n.config("comes-later", "sh", "-c", "test -e /v/below/of-node && echo seen; sleep 3600")
	after.Mounts = []runtime.Mount{{File: file, Target: "/v"}}
	ids["later"] = n.start(after).ID
	n.output(after, "seen")
	if _, err := os.Stat(filepath.Join(below, "of-node")); err != nil {
		n.Errorf("what is mounted below a volume is gone from the node: %v", err)
	}
	n.noBinds()
	n.leaveBinds(file)
	n.noBinds()
	if _, err := os.Stat(filepath.Join(below, "of-node")); err != nil {
		n.Errorf("what is mounted below a volume is gone from the node with what an agent left: %v", err)
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

// noBinds fails the test if paths that files were bound to are left.
func (n *node) noBinds() {
	n.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		n.Fatal(err)
	}
	if dir := filepath.Join(n.daemon.Dir, "mounts"); strings.Contains(string(mounts), " "+dir+"/") {
		n.Errorf("binds are left in %s:\n%s", dir, mounts)
	}
	if left, err := filepath.Glob(filepath.Join(n.daemon.Dir, "mounts", "*")); err != nil || len(left) > 0 {
		n.Errorf("paths are left: %v, %v", left, err)
	}
}

// leaveBinds does what an agent does that dies while a container is made, and starts the next one.
func (n *node) leaveBinds(file *os.File) {
	n.Helper()
	dir := filepath.Join(n.daemon.Dir, "mounts", "lost-main-0")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		n.Fatal(err)
	}
	if err := unix.Mount("binds", dir, "tmpfs", 0, ""); err != nil {
		n.Fatal(err)
	}
	point := filepath.Join(dir, "0")
	if err := os.Mkdir(point, 0o700); err != nil {
		n.Fatal(err)
	}
	if err := unix.Mount(file.Name(), point, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		n.Fatal(err)
	}
	if err := open(n.T, n.daemon).Close(); err != nil {
		n.Error(err)
	}
}
