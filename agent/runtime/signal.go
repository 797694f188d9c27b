package runtime

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ParseSignal reads a signal as images name it: "SIGTERM", "TERM", "15" or, from 34 on,
// "SIGRTMIN+3". What is empty or unknown is SIGTERM.
func ParseSignal(s string) syscall.Signal {
	s = strings.ToUpper(strings.TrimSpace(s))
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= 64 {
		return syscall.Signal(n)
	}
	name := "SIG" + strings.TrimPrefix(s, "SIG")
	if rt, ok := strings.CutPrefix(name, "SIGRTMIN"); ok {
		if n, err := strconv.Atoi(strings.TrimPrefix(rt, "+")); err == nil && n >= 0 && n <= 30 {
			return syscall.Signal(34 + n)
		}
		if rt == "" {
			return 34
		}
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig
	}
	return syscall.SIGTERM
}
