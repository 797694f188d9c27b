package runtime_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/volumes"
)

// TestMountImage mounts the files of an image for a pod, again after their mount was lost, and
// removes them without harm to the image.
func TestMountImage(t *testing.T) {
	n := start(t)
	const image, uid = busybox, "5f0c1a52-0000-4000-8000-000000000001"
	dir := filepath.Join(n.daemon.Dir, "volumes", "files")
	for range 2 {
		if err := n.rt.MountImage(t.Context(), uid, "files", image, dir); err != nil {
			t.Fatal(err)
		}
		if mounted, err := volumes.Mounted(dir); err != nil || !mounted {
			t.Errorf("mounted %v, %v", mounted, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "bin", "busybox")); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); err == nil {
			t.Error("the files of the image can be changed")
		}
		// As after a restart of the machine: the file system is there and the mount is not.
		if err := unix.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.rt.MountImage(t.Context(), uid, "files", "docker.io/library/absent:1", dir); err == nil {
		t.Error("an image was mounted that is not there")
	}
	if err := n.rt.MountImage(t.Context(), uid, "files", image, dir); err != nil {
		t.Fatal(err)
	}
	if left, err := n.rt.Snapshots(t.Context(), uid); err != nil || len(left) != 1 {
		t.Errorf("the pod has the file systems %q, %v", left, err)
	}
	if err := volumes.Remove(filepath.Dir(dir)); err != nil {
		t.Fatal(err)
	}
	if err := n.rt.RemovePod(t.Context(), uid); err != nil {
		t.Fatal(err)
	}
	if left, err := n.rt.Snapshots(t.Context(), uid); err != nil || len(left) != 0 {
		t.Errorf("file systems %q are left, %v", left, err)
	}
	if err := n.rt.MountImage(t.Context(), uid, "files", image, dir); err != nil {
		t.Errorf("the image itself is damaged: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "bin", "busybox")); err != nil {
		t.Errorf("the image itself is damaged: %v", err)
	}
}
