// Package edgetest is a caller that does what no client library does: it leaves messages unfinished
// and connections idle, and makes calls with whatever headers it likes. It is for tests and
// benchmarks of limits.
package edgetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Conn is one HTTP/2 connection. Its methods may be called by several goroutines.
type Conn struct {
	conn   net.Conn
	framer *http2.Framer
	done   chan struct{}

	mu       sync.Mutex
	changed  sync.Cond
	headers  bytes.Buffer
	encoder  *hpack.Encoder
	next     uint32
	window   int64            // of the connection
	initial  int64            // of a stream
	windows  map[uint32]int64 // of streams, beyond the initial
	ended    map[uint32]map[string]string
	answered int
	err      error
}

// Dial connects from a local address, any when it is nil, to a server by TLS. The configuration
// says nothing of HTTP/2.
func Dial(ctx context.Context, local net.Addr, address string, config *tls.Config) (*Conn, error) {
	dialer := &net.Dialer{LocalAddr: local, Timeout: 10 * time.Second}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	secure := tls.Client(raw, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	c := &Conn{
		conn: secure, framer: http2.NewFramer(secure, secure), done: make(chan struct{}),
		next: 1, window: 65535, initial: 65535, windows: make(map[uint32]int64), ended: make(map[uint32]map[string]string),
	}
	c.changed.L = &c.mu
	c.encoder = hpack.NewEncoder(&c.headers)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(secure, http2.ClientPreface); err != nil {
		_ = raw.Close()
		return nil, err
	}
	if err := c.framer.WriteSettings(); err != nil {
		_ = raw.Close()
		return nil, err
	}
	go c.read()
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() {
	_ = c.conn.Close()
	<-c.done
}

// Done is closed when the server has closed the connection, or Close was called.
func (c *Conn) Done() <-chan struct{} { return c.done }

// read follows what the server says.
func (c *Conn) read() {
	defer close(c.done)
	for {
		frame, err := c.framer.ReadFrame()
		c.mu.Lock()
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if size, ok := f.Value(http2.SettingInitialWindowSize); ok {
					c.initial = int64(size)
				}
				_ = c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.framer.WritePing(true, f.Data)
			}
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				c.window += int64(f.Increment)
			} else {
				c.windows[f.StreamID] += int64(f.Increment)
			}
		case *http2.MetaHeadersFrame:
			if f.StreamEnded() {
				trailer := make(map[string]string)
				for _, field := range f.Fields {
					trailer[field.Name] = field.Value
				}
				c.ended[f.StreamID] = trailer
				c.answered++
			}
		case *http2.RSTStreamFrame:
			if c.ended[f.StreamID] == nil {
				c.ended[f.StreamID] = map[string]string{"rst": f.ErrCode.String()}
				c.answered++
			}
		}
		if err != nil {
			c.err = err
		}
		c.changed.Broadcast()
		c.mu.Unlock()
		if err != nil {
			_ = c.conn.Close()
			return
		}
	}
}

// Open begins a call of a method with headers, in pairs, besides those that every call has, and
// returns its stream.
func (c *Conn) Open(method string, headers ...string) (stream uint32, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	stream = c.next
	c.next += 2
	c.headers.Reset()
	pairs := append([]string{
		":method", "POST", ":scheme", "https", ":path", method, ":authority", "xebec", "content-type", "application/grpc", "te", "trailers",
	}, headers...)
	for i := 0; i+1 < len(pairs); i += 2 {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}); err != nil {
			return 0, err
		}
	}
	block := c.headers.Bytes()
	const most = 16 << 10
	first := block[:min(most, len(block))]
	err = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndHeaders: len(first) == len(block)})
	for rest := block[len(first):]; err == nil && len(rest) > 0; {
		part := rest[:min(most, len(rest))]
		rest = rest[len(part):]
		err = c.framer.WriteContinuation(stream, len(rest) == 0, part)
	}
	return stream, err
}

// errAnswered ends a Send to a stream that the server has ended.
var errAnswered = errors.New("the server has ended the call")

// Send sends part of a message: its prefix, which announces so many bytes, and as many of them as
// sent says, as the server's windows allow. It returns when all is sent, the server ends the call
// or the connection, or ctx ends.
func (c *Conn) Send(ctx context.Context, stream uint32, announced, sent int) error {
	prefix := make([]byte, 5)
	binary.BigEndian.PutUint32(prefix[1:], uint32(announced))
	if err := c.data(ctx, stream, prefix); err != nil {
		return err
	}
	chunk := make([]byte, 16<<10)
	for sent > 0 {
		n := min(sent, len(chunk))
		if err := c.data(ctx, stream, chunk[:n]); err != nil {
			return err
		}
		sent -= n
	}
	return nil
}

func (c *Conn) data(ctx context.Context, stream uint32, data []byte) error {
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})()
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(data) > 0 {
		switch {
		case c.err != nil:
			return c.err
		case c.ended[stream] != nil:
			return errAnswered
		case ctx.Err() != nil:
			return ctx.Err()
		}
		n := min(int64(len(data)), c.window, c.initial+c.windows[stream])
		if n <= 0 {
			c.changed.Wait()
			continue
		}
		if err := c.framer.WriteData(stream, false, data[:n]); err != nil {
			return err
		}
		c.window -= n
		c.windows[stream] -= n
		data = data[n:]
	}
	return nil
}

// Answer waits until the server ends a call and returns its trailers, or "rst" with the code of a
// reset.
func (c *Conn) Answer(ctx context.Context, stream uint32) (map[string]string, error) {
	return c.await(ctx, func() map[string]string { return c.ended[stream] })
}

// AnyAnswer is Answer for the first call that the server ends, whichever it is.
func (c *Conn) AnyAnswer(ctx context.Context) (map[string]string, error) {
	return c.await(ctx, func() map[string]string {
		for _, answer := range c.ended {
			return answer
		}
		return nil
	})
}

// await waits until there is an answer.
func (c *Conn) await(ctx context.Context, answer func() map[string]string) (map[string]string, error) {
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})()
	c.mu.Lock()
	defer c.mu.Unlock()
	for answer() == nil {
		if c.err != nil {
			return nil, c.err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		c.changed.Wait()
	}
	return answer(), nil
}
