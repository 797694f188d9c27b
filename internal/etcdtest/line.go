package etcdtest

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Line is a way to a member whose answers can be delayed or lost. What clients send passes at once.
type Line struct {
	listener net.Listener
	delay    atomic.Int64 // in nanoseconds
	silent   chan struct{}
	once     sync.Once
}

// NewLine returns a line to the member at an endpoint that passes everything at once. It ends with
// the test.
func NewLine(tb testing.TB, endpoint string) *Line {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	l := &Line{listener: listener, silent: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(endpoint, "http://"))
			if err != nil {
				client.Close()
				continue
			}
			// At once when the test has ended since the connection was accepted.
			context.AfterFunc(ctx, func() { client.Close(); server.Close() })
			all.Go(func() { pass(client, server, &atomic.Int64{}, nil) })
			all.Go(func() { pass(server, client, &l.delay, l.silent) })
		}
	})
	tb.Cleanup(func() {
		cancel()
		listener.Close()
		all.Wait()
	})
	return l
}

// Endpoint is the line's address for clients.
func (l *Line) Endpoint() string { return l.listener.Addr().String() }

// Delay delays what the member sends from now on.
func (l *Line) Delay(d time.Duration) { l.delay.Store(int64(d)) }

// Silence makes the line lose everything that the member sends, while connections stay open.
func (l *Line) Silence() { l.once.Do(func() { close(l.silent) }) }

// pass copies what one side sends after a delay, until silent is closed.
func pass(from, to net.Conn, delay *atomic.Int64, silent <-chan struct{}) {
	type chunk struct {
		bytes []byte
		due   time.Time
	}
	chunks := make(chan chunk, 4096)
	var writing sync.WaitGroup
	writing.Go(func() {
		for c := range chunks {
			select {
			case <-silent:
				continue
			case <-time.After(time.Until(c.due)):
			}
			select {
			case <-silent: // since both were due
			default:
				_, _ = to.Write(c.bytes)
			}
		}
	})
	for {
		b := make([]byte, 4096)
		n, err := from.Read(b)
		if n > 0 {
			chunks <- chunk{b[:n], time.Now().Add(time.Duration(delay.Load()))}
		}
		if err != nil {
			close(chunks)
			writing.Wait()
			return
		}
	}
}
