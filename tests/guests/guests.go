// Package guests has what the tests share that boot machines: hosts in containers (tests/hosts),
// virtual machines (tests/vm) and kernels on emulated ones (tests/kernels).
package guests

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cacheDir holds trees, boxes and kernels between runs.
const cacheDir = "/var/cache/xebec"

// Suite is the Debian release that machines run unless a test's variable names another.
const Suite = "bookworm"

// Image identifies a file or directory in the cache.
type Image struct {
	// Kind is the first part of the name. Images of a kind are built one at a time.
	Kind  string
	Suite string
	// Recipe determines the contents: images of other recipes are outdated, and removed. Empty for
	// contents that never change.
	Recipe string
	// Extension is the end of the name.
	Extension string
}

// Get returns the path of the image in the cache. If it is missing, build makes it at another path,
// from which it is renamed.
func (i Image) Get(t testing.TB, build func(path string)) string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(cacheDir, 0o755))
	lock, err := os.OpenFile(filepath.Join(cacheDir, i.Kind+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	must(err)
	defer lock.Close()
	must(unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	path := filepath.Join(cacheDir, i.name())
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		must(err)
		return path
	}
	// Outdated images, and those whose build was interrupted.
	old, err := filepath.Glob(filepath.Join(cacheDir, i.Kind+"-"+i.Suite+"*"))
	must(err)
	for _, o := range old {
		must(os.RemoveAll(o))
	}
	part := path + ".part"
	build(part)
	must(os.Rename(part, path))
	return path
}

func (i Image) name() string {
	name := i.Kind + "-" + i.Suite
	if i.Recipe != "" {
		sum := sha256.Sum256([]byte(i.Recipe))
		name += fmt.Sprintf("-%x", sum[:6])
	}
	return name + i.Extension
}

// Missing skips a test that requires what is missing. With CI=true it fails.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("missing: ", what)
	}
	t.Skip("missing: ", what)
}

// Require calls Missing unless the test runs as root and finds the programs.
func Require(t testing.TB, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root")
	}
	if i := slices.IndexFunc(programs, func(p string) bool { _, err := exec.LookPath(p); return err != nil }); i >= 0 {
		Missing(t, programs[i])
	}
}

// MemoryDir returns a directory on tmpfs, which is removed at the end of the test. Its name begins
// with prefix.
func MemoryDir(t testing.TB, prefix string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", prefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Run runs a program in a directory, the current one if dir is empty, and returns its output. The
// test ends when the program fails.
func Run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, LastLines(out, 40))
	}
	return string(out)
}

// Await returns when check returns nil, and ends the test after limit.
func Await(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); ; <-tick.C {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s not in %v: %v", what, limit, err)
		}
	}
}

// LastLines returns the last n lines of a program's output.
func LastLines(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
