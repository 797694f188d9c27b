// Package containerdtest starts containerd daemons of their own for tests, and builds small images
// for them.
package containerdtest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"
)

var count atomic.Int32

// Daemon is a containerd with directories, a socket and a cgroup parent of its own.
type Daemon struct {
	// Dir is short, on tmpfs, and removed with the test.
	Dir string
	// Address is the socket.
	Address string
	// CgroupParent is for the containers of this test only.
	CgroupParent string

	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
	log  *os.File
}

// Need skips the test where it can't run: without root, containerd, runc or a static busybox. With
// CI=true it fails.
func Need(t *testing.T) {
	t.Helper()
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, p := range []string{"containerd", "containerd-shim-runc-v2", "runc", "busybox"} {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing: %s", strings.Join(missing, ", "))
	}
	t.Skipf("missing: %s", strings.Join(missing, ", "))
}

// Start runs a daemon until the test ends.
func Start(t *testing.T) *Daemon { return StartOn(t, 0) }

// StartOn is Start with a disk of so many bytes for images and containers, 0 for as many as the
// machine has.
func StartOn(t *testing.T, disk int64) *Daemon {
	t.Helper()
	Need(t)
	// Paths of unix sockets are short; so is this.
	dir, err := os.MkdirTemp("/dev/shm", "xbc")
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{
		Dir:          dir,
		Address:      filepath.Join(dir, "c.sock"),
		CgroupParent: fmt.Sprintf("/xebec-test-%d-%d", os.Getpid(), count.Add(1)),
		t:            t,
	}
	t.Cleanup(d.cleanUp)
	if root := filepath.Join(dir, "root"); disk > 0 {
		if err := os.Mkdir(root, 0o711); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("xebec-test", root, "tmpfs", 0, fmt.Sprintf("size=%d", disk)); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt",
  "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = %q
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), d.Address)
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if d.log, err = os.Create(filepath.Join(dir, "containerd.log")); err != nil {
		t.Fatal(err)
	}
	d.Run()
	return d
}

// Run starts the process, after Kill or at first, and returns when it takes connections.
func (d *Daemon) Run() {
	d.t.Helper()
	os.Remove(d.Address)
	d.cmd = exec.Command("containerd", "--config", filepath.Join(d.Dir, "config.toml"))
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		defer close(done)
		_ = cmd.Wait()
	}(d.cmd, d.done)
	Eventually(d.t, 20*time.Second, "containerd listens", func() bool {
		c, err := net.Dial("unix", d.Address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// Kill ends the process with SIGKILL. Its shims and containers go on.
func (d *Daemon) Kill() {
	d.t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		d.t.Fatal(err)
	}
	<-d.done
}

func (d *Daemon) cleanUp() {
	if d.t.Failed() {
		if b, err := os.ReadFile(filepath.Join(d.Dir, "containerd.log")); err == nil {
			d.t.Logf("the end of containerd's log:\n%s", b[max(0, len(b)-3000):])
		}
	}
	d.killCgroup()
	if d.cmd != nil && d.cmd.Process != nil {
		_ = d.cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-d.done:
		case <-time.After(10 * time.Second):
			_ = d.cmd.Process.Kill()
			<-d.done
		}
	}
	// What was just being started when the others were killed is there now.
	Eventually(d.t, 20*time.Second, "the test's processes are gone", func() bool {
		d.killCgroup()
		return !d.killOthers()
	})
	d.unmountAll()
	d.removeCgroups()
	if err := os.RemoveAll(d.Dir); err != nil {
		d.t.Errorf("the test left something behind: %v", err)
	}
}

// killCgroup ends every process under the test's cgroup parent.
func (d *Daemon) killCgroup() {
	for _, procs := range d.cgroupFiles("cgroup.procs") {
		b, _ := os.ReadFile(procs)
		for _, f := range strings.Fields(string(b)) {
			var pid int
			if _, err := fmt.Sscan(f, &pid); err == nil && pid > 1 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}

// killOthers ends shims, writers of logs and whatever else has the test's directory among its
// arguments, and reports whether there was any.
func (d *Daemon) killOthers() bool {
	found := false
	cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, c := range cmdlines {
		b, err := os.ReadFile(c)
		if err != nil || !bytes.Contains(b, []byte(d.Dir+"/")) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(c, "/proc/%d/cmdline", &pid); err == nil && pid != os.Getpid() {
			found = true
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return found
}

func (d *Daemon) unmountAll() {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	var points []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], d.Dir+"/") {
			points = append(points, f[4])
		}
	}
	for i := len(points) - 1; i >= 0; i-- {
		_ = unix.Unmount(points[i], unix.MNT_DETACH)
	}
}

func (d *Daemon) cgroupFiles(base string) []string {
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		roots, _ := filepath.Glob(pattern + d.CgroupParent)
		for _, root := range roots {
			_ = filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
				if err == nil && e.Name() == base {
					out = append(out, p)
				}
				return nil
			})
		}
	}
	return out
}

func (d *Daemon) removeCgroups() {
	Eventually(d.t, 10*time.Second, "the test's cgroups are gone", func() bool {
		files := d.cgroupFiles("cgroup.procs")
		for i := len(files) - 1; i >= 0; i-- {
			_ = unix.Rmdir(filepath.Dir(files[i]))
		}
		return len(files) == 0
	})
}

// Eventually fails the test unless the condition comes true in time.
func Eventually(t *testing.T, timeout time.Duration, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", timeout, what)
		case <-tick.C:
		}
	}
}

// applets are the commands of busybox that the images have.
var applets = []string{
	"sh",
	"sleep",
	"cat",
	"echo",
	"env",
	"id",
	"ls",
	"true",
	"false",
	"hostname",
	"touch",
	"tail",
	"dd",
	"stty",
	"httpd",
	"nc",
	"kill",
	"printf",
	"wget",
	"rm",
	"test",
}

// Busybox returns an image with the machine's static busybox, whose default command is a shell that
// sleeps.
func Busybox(t testing.TB) v1.Image {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	bin, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "data"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, bin)
	for _, a := range applets {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox", Mode: 0o777}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/:/bin/sh\nweb:x:101:102::/:/bin/sh\n"))
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nweb:x:102:\nlogs:x:103:web\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.Architecture, cfg.OS = runtime.GOARCH, "linux"
	cfg.Config.Cmd = []string{"/bin/sleep", "3600"}
	cfg.Config.Env = []string{"PATH=/bin", "FROM_IMAGE=yes"}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return img
}

// Archive returns an image as docker save writes it.
func Archive(t testing.TB, ref string, img v1.Image) io.Reader {
	t.Helper()
	tag, err := name.NewTag(ref, name.WithDefaultRegistry("docker.io"))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tarball.Write(tag, img, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}
