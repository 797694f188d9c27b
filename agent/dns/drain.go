package dns

import (
	"context"
	"net"
	"sync"
	"time"
)

// drainingListener hands out TCP connections until it is drained. Another process that has the
// socket accepts later connections, while the accepted ones get their first response: a client that
// connected just before has not sent its query yet, and closing its connection would fail the
// query.
type drainingListener struct {
	*net.TCPListener
	ended chan struct{} // closed when Accept returns no more connections

	mu       sync.Mutex
	draining bool
	// unanswered is the number of open connections without a response so far.
	unanswered int
	// changed is closed and replaced when unanswered falls.
	changed chan struct{}
}

func newDrainingListener(l *net.TCPListener) *drainingListener {
	return &drainingListener{TCPListener: l, ended: make(chan struct{}), changed: make(chan struct{})}
}

// Accept returns net.ErrClosed once the listener is drained or closed.
func (l *drainingListener) Accept() (net.Conn, error) {
	conn, err := l.TCPListener.Accept()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if !l.draining {
			return nil, err
		}
		close(l.ended)
		return nil, net.ErrClosed
	}
	l.unanswered++
	return &trackedConn{Conn: conn, answered: sync.OnceFunc(l.answered)}, nil
}

func (l *drainingListener) answered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unanswered--
	close(l.changed)
	l.changed = make(chan struct{})
}

// drain stops accepting and returns when each connection has had a response, or ctx ends.
func (l *drainingListener) drain(ctx context.Context) {
	l.mu.Lock()
	l.draining = true
	l.mu.Unlock()
	_ = l.SetDeadline(time.Unix(1, 0))
	select {
	case <-l.ended:
	case <-ctx.Done():
		return
	}
	for {
		l.mu.Lock()
		left, changed := l.unanswered, l.changed
		l.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// trackedConn counts as answered once it has been written to or closed.
type trackedConn struct {
	net.Conn
	answered func()
}

func (c *trackedConn) Write(b []byte) (int, error) {
	defer c.answered()
	return c.Conn.Write(b)
}

func (c *trackedConn) Close() error {
	defer c.answered()
	return c.Conn.Close()
}
