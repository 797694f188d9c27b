// Package osthread runs code on an operating-system thread of its own, for what belongs to a thread
// rather than to a process: namespaces, and cgroups of version 1.
package osthread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Do calls f on a thread that no other goroutine will ever use, and returns its error. f may change
// the thread's namespaces and cgroups: the thread ends with the call. Goroutines that f starts run
// elsewhere; processes that it forks start where the thread is.
func Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Not unlocked at the end, so that the runtime ends the thread with the goroutine.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// All but the main thread, that is: it can't end before the process, the runtime would park it
			// where f had led it, and /proc/self would show the process there. While it is held here,
			// another is found.
			done <- Do(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}
