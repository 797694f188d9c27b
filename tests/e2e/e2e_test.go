// Package e2e drives whole clusters as their users do: the built programs, a lab of three masters
// and two nodes with real containers and eBPF, the command line, and a typed client beside it.
// Every test finishes by itself on a machine of two processors; none sleeps, all wait for what they
// expect, with a limit. The tests that share a lab run one after the other, and beside them those
// that have one of their own.
//
// Most tests need root, as a lab does. XEBEC_BIN may name a directory with built programs, as `make
// build` leaves them in bin/.
package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xebec-project/xebec/lab"
	"github.com/xebec-project/xebec/tests/cluster"
)

// Limits for what is waited for. They are many times what things take, for a machine that is busy
// with other tests.
const (
	upLimit   = 2 * time.Minute
	waitLimit = time.Minute
)

// The shape of the lab that most tests share.
const (
	sharedMasters = 3
	sharedNodes   = 2
)

// built is what is built once for all tests.
var built = sync.OnceValues(build)

// shared is the lab that most tests share; it comes up with the first of them.
var shared = sync.OnceValues(func() (*ship, error) {
	return launch(lab.Options{Masters: sharedMasters, Nodes: sharedNodes})
})

// products are the programs and images under test.
type products struct {
	bin    string // directory of the programs
	images string // directory with echo.tar and client.tar of version 1, and echo-2.tar of version 2
	dir    string // scratch directory, which holds what was built here
}

func TestMain(m *testing.M) {
	flag.Parse()
	// Queues say how many tests run side by side; a test that waits in one needs a place too.
	if err := flag.Set("test.parallel", "1000"); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := cleanUp(); err != nil {
		fmt.Fprintln(os.Stderr, "clean up:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// queue lets tests run one after the other, in the order in which they join it, beside those of
// other queues.
type queue struct {
	mu   sync.Mutex
	last chan struct{} // closed when the test that joined last has ended
}

// sharedLab is for tests of the lab that most share, ownLabs for those with a lab of their own.
// A test without a queue runs before all that have one.
var sharedLab, ownLabs queue

// join makes the test parallel and waits until the tests before it have ended. Call it once, first.
func (q *queue) join(t *testing.T) {
	t.Helper()
	q.mu.Lock()
	before, done := q.last, make(chan struct{})
	q.last = done
	q.mu.Unlock()
	t.Cleanup(func() { close(done) })
	t.Parallel()
	if before != nil {
		<-before
	}
	began := time.Now()
	t.Cleanup(func() { t.Logf("took %.1f s after its turn began", time.Since(began).Seconds()) })
}

var (
	cleanups   []func() error
	cleanupsMu sync.Mutex
)

// afterAll has f called when all tests are done, the latest first.
func afterAll(f func() error) {
	cleanupsMu.Lock()
	defer cleanupsMu.Unlock()
	cleanups = append(cleanups, f)
}

func cleanUp() error {
	var errs []error
	for i := len(cleanups) - 1; i >= 0; i-- {
		errs = append(errs, cleanups[i]())
	}
	return errors.Join(errs...)
}

// needRoot skips a test where no lab can run, except in CI, which must be able to.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("a lab needs root")
	}
	t.Skip("a lab needs root")
}

// build makes the programs and the sample images.
func build() (*products, error) {
	// In memory: the lab's machines run the programs from here, and sockets need short paths.
	dir, err := os.MkdirTemp("/dev/shm", "xe2e")
	if err != nil {
		return nil, err
	}
	afterAll(func() error { return os.RemoveAll(dir) })
	// An unprivileged user runs the programs too.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	p := &products{dir: dir, images: filepath.Join(dir, "images")}
	began := time.Now()
	bin, remove, err := cluster.Build(context.Background(), "xebec", "xebecd", "xebec-agent")
	if err != nil {
		return nil, err
	}
	afterAll(func() error { remove(); return nil })
	p.bin = bin
	for _, version := range []string{"2", "1"} {
		if err := buildImages(p.images, version); err != nil {
			return nil, err
		}
		if version == "2" {
			if err := os.Rename(filepath.Join(p.images, "echo.tar"), filepath.Join(p.images, "echo-2.tar")); err != nil {
				return nil, err
			}
		}
	}
	fmt.Printf("built programs and images in %.1f s\n", time.Since(began).Seconds())
	return p, nil
}

func buildImages(dir, version string) error {
	cmd := exec.Command("go", "run", "github.com/xebec-project/xebec/lab/images/build", "-dir", dir, "-version", version)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build images: %w\n%s", err, out)
	}
	return nil
}

// randomName returns a name that no other lab on this machine has.
func randomName() string { return "e2e" + strings.ToLower(rand.Text()[:8]) }

// sources is the root of the source tree.
func sources(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}
