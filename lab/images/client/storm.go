package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// storm is a load of four kinds on one address, from so many workers of each kind, of which every
// failure is counted.
//
//	tcp   a new connection for every request, without retries
//	keep  requests one after the other on connections that are kept until the server ends them
//	udp   datagrams from one socket that is never connected, each answered before the next
//	hold  connections that stay open, with occasional requests, and must never break
//
// Only tcp goes as fast as it can.
type storm struct {
	address        netip.AddrPort
	tcp, keep, udp int
	hold           int
	timeout        time.Duration
	kinds          [4]tally
	began          time.Time
	mu             sync.Mutex
	failures       []string
}

// Indexes of storm.kinds, and their names.
const (
	kindTCP = iota
	kindKeep
	kindUDP
	kindHold
)

var kindNames = [...]string{"tcp", "keep", "udp", "hold"}

// How long workers rest after a request.
const (
	restKeep = 2 * time.Millisecond
	restHold = 100 * time.Millisecond
)

func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// mostFailures bounds how many failures are described.
const mostFailures = 20

// tally counts what became of one kind.
type tally struct {
	requests, failed atomic.Int64
	// reopened counts connections that the server closed before it had taken a request that was on its
	// way: the request was sent again on a new one, as RFC 9112, section 9.3.1, has it.
	reopened atomic.Int64
	longest  atomic.Int64 // nanoseconds
	// took counts requests by duration: eight steps between one power of two microseconds and the
	// next.
	took [256]atomic.Int64
}

func (t *tally) done(d time.Duration) {
	t.requests.Add(1)
	t.took[bucketOf(d)].Add(1)
	for {
		old := t.longest.Load()
		if int64(d) <= old || t.longest.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 1))
	if us < 8 {
		return int(us)
	}
	exponent := bits.Len64(us) - 1
	return min(exponent*8+int(us>>(exponent-3)&7), 255)
}

// limitOf returns the upper limit of a bucket.
func limitOf(bucket int) time.Duration {
	if bucket < 8 {
		return time.Duration(bucket) * time.Microsecond
	}
	exponent := bucket / 8
	return time.Duration(uint64(8+bucket%8+1)<<(exponent-3)) * time.Microsecond
}

// quantile returns how long at most the part q of the requests took, to an eighth.
func (t *tally) quantile(q float64) time.Duration {
	total := int64(0)
	for i := range t.took {
		total += t.took[i].Load()
	}
	left := int64(q * float64(total))
	for i := range t.took {
		if left -= t.took[i].Load(); left < 0 {
			return min(limitOf(i), time.Duration(t.longest.Load()))
		}
	}
	return time.Duration(t.longest.Load())
}

// Summary is what a storm prints in the end, and every second with the counts alone, as a line of
// JSON.
type Summary struct {
	Seconds  float64            `json:"seconds"`
	Kinds    map[string]Outcome `json:"kinds"`
	Failures []string           `json:"failures,omitempty"`
	Final    bool               `json:"final,omitempty"`
}

// Outcome is what became of the requests of one kind; durations are in microseconds.
type Outcome struct {
	Requests int64 `json:"requests"`
	Failed   int64 `json:"failed"`
	Reopened int64 `json:"reopened,omitempty"`
	P50      int64 `json:"p50us,omitempty"`
	P99      int64 `json:"p99us,omitempty"`
	Longest  int64 `json:"maxus,omitempty"`
}

// run loads the address until ctx ends, and fails when a request failed.
func (s *storm) run(ctx context.Context, out io.Writer) error {
	s.began = time.Now()
	var workers sync.WaitGroup
	for kind, count := range []int{s.tcp, s.keep, s.udp, s.hold} {
		work := []func(context.Context){s.runTCP, s.runKeep, s.runUDP, s.runHold}[kind]
		for range count {
			workers.Go(func() { work(ctx) })
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		workers.Wait()
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	encoder := json.NewEncoder(out)
	for {
		select {
		case <-ended:
			last := s.summary(true)
			if err := encoder.Encode(last); err != nil {
				return err
			}
			for name, o := range last.Kinds {
				if o.Failed > 0 {
					return fmt.Errorf("%d %s requests failed", o.Failed, name)
				}
			}
			return nil
		case <-tick.C:
			if err := encoder.Encode(s.summary(false)); err != nil {
				return err
			}
		}
	}
}

func (s *storm) summary(final bool) Summary {
	out := Summary{Seconds: time.Since(s.began).Seconds(), Kinds: map[string]Outcome{}, Final: final}
	for kind := range s.kinds {
		t := &s.kinds[kind]
		o := Outcome{Requests: t.requests.Load(), Failed: t.failed.Load(), Reopened: t.reopened.Load()}
		if final {
			o.P50, o.P99, o.Longest = t.quantile(.5).Microseconds(), t.quantile(.99).Microseconds(), time.Duration(t.longest.Load()).Microseconds()
		}
		if o.Requests > 0 {
			out.Kinds[kindNames[kind]] = o
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if final {
		out.Failures = slices.Clone(s.failures)
	}
	return out
}

func (s *storm) fail(kind int, began time.Time, err error) {
	s.kinds[kind].done(time.Since(began))
	s.kinds[kind].failed.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failures) < mostFailures {
		s.failures = append(
			s.failures,
			fmt.Sprintf("%s %s after %s: %v", began.UTC().Format("15:04:05.000"), kindNames[kind], time.Since(began).Round(time.Microsecond), err),
		)
	}
}

// runTCP calls the kernel directly: nothing else would show what the network can do.
func (s *storm) runTCP(ctx context.Context) {
	request := []byte("GET /name HTTP/1.1\r\nHost: storm\r\nConnection: close\r\n\r\n")
	answer := make([]byte, 4096)
	to := &unix.SockaddrInet4{Port: int(s.address.Port()), Addr: s.address.Addr().As4()}
	limit := unix.NsecToTimeval(int64(s.timeout))
	for ctx.Err() == nil {
		began := time.Now()
		if err := oneConnection(to, &limit, request, answer); err != nil {
			s.fail(kindTCP, began, err)
			continue
		}
		s.kinds[kindTCP].done(time.Since(began))
	}
}

// oneConnection makes a connection for a request, and takes the answer until the server closes. The
// server closes first, so that no port of the client's is kept waiting afterwards.
func oneConnection(to *unix.SockaddrInet4, limit *unix.Timeval, request, answer []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, limit))
	if err != nil {
		return err
	}
	if err := again(func() error { return unix.Connect(fd, to) }); err != nil && !errors.Is(err, unix.EISCONN) {
		return fmt.Errorf("connect: %w", err)
	}
	if err := again(func() error { _, err := unix.Write(fd, request); return err }); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	total := 0
	for total < len(answer) {
		n := 0
		if err := again(func() error { n, err = unix.Read(fd, answer[total:]); return err }); err != nil {
			return fmt.Errorf("receive after %d bytes: %w", total, err)
		}
		if n == 0 {
			break
		}
		total += n
	}
	if got := answer[:total]; !bytes.HasPrefix(got, []byte("HTTP/1.1 200 ")) || !bytes.HasSuffix(got, []byte("\n")) {
		return fmt.Errorf("answer %.60q", got)
	}
	return nil
}

// again repeats a call that a signal of Go's scheduler interrupted.
func again(call func() error) error {
	for {
		err := call()
		if errors.Is(err, unix.EALREADY) || errors.Is(err, unix.EINTR) {
			continue
		}
		return err
	}
}

// session is an HTTP connection.
type session struct {
	conn   net.Conn
	reader *bufio.Reader
	used   bool
}

func (s *storm) open(ctx context.Context) (*session, error) {
	conn, err := (&net.Dialer{Timeout: s.timeout}).DialContext(context.WithoutCancel(ctx), "tcp4", s.address.String())
	if err != nil {
		return nil, err
	}
	return &session{conn: conn, reader: bufio.NewReader(conn)}, nil
}

var (
	// errClosed: the server closed the connection before the first byte of the answer.
	errClosed = errors.New("connection closed before the response")
	// errLast: the request was answered, and the server takes no more on this connection.
	errLast = errors.New("the server's last answer")
)

// ask sends a request and takes the answer.
func (c *session) ask(timeout time.Duration) error {
	if err := c.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := io.WriteString(c.conn, "GET /name HTTP/1.1\r\nHost: storm\r\n\r\n"); err != nil {
		return fmt.Errorf("%w: %w", errClosed, err)
	}
	if _, err := c.reader.Peek(1); err != nil {
		if nerr, ok := errors.AsType[net.Error](err); ok && nerr.Timeout() {
			return err
		}
		return fmt.Errorf("%w: %w", errClosed, err)
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode != http.StatusOK:
		return errors.New(response.Status)
	case response.Close:
		return errLast
	}
	return nil
}

func (s *storm) runKeep(ctx context.Context) {
	var c *session
	for ; ctx.Err() == nil; rest(ctx, restKeep) {
		began := time.Now()
		err := s.keepOne(ctx, &c)
		if err != nil {
			s.fail(kindKeep, began, err)
			continue
		}
		s.kinds[kindKeep].done(time.Since(began))
	}
}

func (s *storm) keepOne(ctx context.Context, c **session) error {
	for {
		if *c == nil {
			var err error
			if *c, err = s.open(ctx); err != nil {
				return err
			}
		}
		used := (*c).used
		(*c).used = true
		err := (*c).ask(s.timeout)
		if err == nil {
			return nil
		}
		_ = (*c).conn.Close()
		*c = nil
		if errors.Is(err, errLast) {
			return nil
		}
		if !used || !errors.Is(err, errClosed) {
			return err
		}
		s.kinds[kindKeep].reopened.Add(1)
	}
}

func (s *storm) runHold(ctx context.Context) {
	var c *session
	for ctx.Err() == nil {
		began := time.Now()
		var err error
		if c == nil {
			c, err = s.open(ctx)
		}
		if err == nil {
			err = c.ask(s.timeout)
		}
		if err != nil {
			s.fail(kindHold, began, err)
			if c != nil {
				_ = c.conn.Close()
				c = nil
			}
		} else {
			s.kinds[kindHold].done(time.Since(began))
		}
		rest(ctx, restHold)
	}
}

func (s *storm) runUDP(ctx context.Context) {
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		s.fail(kindUDP, time.Now(), err)
		return
	}
	defer conn.Close()
	buf := make([]byte, 512)
	for n := 0; ctx.Err() == nil; n++ {
		rest(ctx, restKeep)
		began := time.Now()
		if err := s.oneDatagram(conn, buf, strconv.Itoa(n)); err != nil {
			s.fail(kindUDP, began, err)
			continue
		}
		s.kinds[kindUDP].done(time.Since(began))
	}
}

func (s *storm) oneDatagram(conn *net.UDPConn, buf []byte, text string) error {
	if err := conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	if _, err := conn.WriteToUDPAddrPort([]byte(text), s.address); err != nil {
		return err
	}
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return fmt.Errorf("no response: %w", err)
		}
		if from != s.address {
			return fmt.Errorf("response from unexpected address %s", from)
		}
		// Answers to those that were given up may still come.
		if _, answer, _ := strings.Cut(string(buf[:n]), " "); answer == text {
			return nil
		}
	}
}

// stop ends the program that the container runs, as the node would.
func stop() error {
	init, err := os.FindProcess(1)
	if err != nil {
		return err
	}
	return init.Signal(unix.SIGTERM)
}
