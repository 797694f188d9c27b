package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Dial connects to a TCP port of the loopback device in a network namespace, given by the path that
// pins it; an empty path stands for the calling process's own.
func Dial(ctx context.Context, netns string, port uint16) (*net.TCPConn, error) {
	if netns == "" {
		return dialLoopback(ctx, port)
	}
	ns, err := os.Open(netns)
	if err != nil {
		return nil, fmt.Errorf("entering the pod's network: %w", err)
	}
	defer ns.Close()
	type result struct {
		conn *net.TCPConn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// The thread leaves the agent's namespaces for good: it is not unlocked, and so ends with the
		// goroutine.
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{err: fmt.Errorf("entering the pod's network: %w", err)}
			return
		}
		conn, err := dialLoopback(ctx, port)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

func dialLoopback(ctx context.Context, port uint16) (*net.TCPConn, error) {
	var errs []error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
