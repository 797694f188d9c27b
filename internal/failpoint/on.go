//go:build failpoints

package failpoint

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// mu makes counting down one step.
var mu sync.Mutex

// Hit kills the process if the point is armed and due. A name has no slash in it.
func Hit(name string) {
	dir := os.Getenv(Env)
	if dir == "" {
		return
	}
	mu.Lock()
	defer mu.Unlock()
	trace, err := os.OpenFile(filepath.Join(dir, Trace), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		fmt.Fprintln(trace, name)
		trace.Close()
	}
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if err != nil {
		return
	}
	left, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		return
	}
	if left > 1 {
		_ = os.WriteFile(path, []byte(strconv.Itoa(left-1)), 0o600)
		return
	}
	_ = os.Remove(path)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // The signal takes every thread, this one not necessarily at once.
}
