package osthread

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDo calls from many goroutines, one of which is likely to sit on the main thread, and expects
// none on it.
func TestDo(t *testing.T) {
	failed := errors.New("failed")
	for range 200 {
		var tid int
		if err := Do(func() error { tid = unix.Gettid(); return failed }); err != failed {
			t.Fatalf("got %v, want the function's own error", err)
		}
		if tid == unix.Getpid() {
			t.Fatal("called on the main thread")
		}
		// The thread ends with the call, a moment later; what must not happen is that it serves another
		// goroutine.
		if unix.Gettid() == tid {
			t.Fatal("the thread serves other goroutines afterwards")
		}
	}
}
