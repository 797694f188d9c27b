package streams

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/logs"
)

const (
	// backlog is how much output is kept for who attaches first.
	backlog = 16 << 10
	// patience is how long one who is attached may take to read what there is, before he is left
	// behind: the container waits for him meanwhile.
	patience = 10 * time.Second
	// ended is the report of a keeper that finds no writer left.
	ended = "the container has terminated"
)

// Asked reports whether the process was started to keep streams.
func Asked() bool { return len(os.Args) == 5 && os.Args[1] == Subcommand }

// Run is the main function of a keeper. It reports on descriptor 3 that it is ready, and ends when
// that descriptor is closed, unless it reads the order to stay there; then it ends with the
// container's output. It returns the process' exit code.
func Run() int {
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(20)
	debug.SetMemoryLimit(12 << 20)
	mode, dir, logPath := os.Args[2], os.Args[3], os.Args[4]
	link := os.NewFile(3, "agent")
	k := &keeper{
		Config: Config{
			Dir:      dir,
			LogPath:  logPath,
			Stdin:    strings.Contains(mode, "i"),
			Once:     strings.Contains(mode, "o"),
			TTY:      strings.Contains(mode, "t"),
			restored: strings.Contains(mode, "r"),
		},
		attached: map[*client]bool{},
	}
	if err := k.run(link); err != nil {
		fmt.Fprintln(link, err)
		return 1
	}
	return 0
}

// keeper is the state of a keeper process.
type keeper struct {
	Config
	input *os.File

	mu       sync.Mutex
	attached map[*client]bool
	// early is the output before the first client attached, in frames; nil afterwards.
	early    []frame
	earlyLen int
	met      bool
	// over tells that the container's output has ended.
	over bool
	// visits are those who are being served.
	visits sync.WaitGroup
}

type frame struct {
	kind byte
	data []byte
}

type client struct {
	conn net.Conn
	mu   sync.Mutex
	gone bool
}

func (k *keeper) run(link *os.File) error {
	lock, err := os.OpenFile(filepath.Join(k.Dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("the streams already have a keeper: %w", err)
	}
	log, err := logs.Open(k.LogPath)
	if err != nil {
		return err
	}
	stdin, stdout, stderr := k.Paths()
	if stdin != "" {
		// Open for reading too, it does not wait for the container; and it ends when this process wants
		// it to.
		if k.input, err = os.OpenFile(stdin, os.O_RDWR, 0); err != nil {
			return err
		}
	}
	// Before the container starts: what one that ends soon wrote is gone with its ends of the pipes,
	// unless this end is open by then.
	var outputs []*source
	for path, kind := range map[string]byte{stdout: frameStdout, stderr: frameStderr} {
		if path == "" {
			continue
		}
		s, err := openSource(path, kind)
		if err != nil {
			return err
		}
		defer s.pipe.Close()
		outputs = append(outputs, s)
	}
	if k.restored && !slices.ContainsFunc(outputs, (*source).written) {
		return errors.New(ended)
	}
	listener, err := k.listen()
	if err != nil {
		return err
	}
	if _, err := link.Write([]byte("\n")); err != nil {
		return err
	}
	go func() {
		if n, _ := link.Read(make([]byte, 1)); n == 0 {
			os.Exit(0)
		}
		link.Close()
	}()
	served := make(chan struct{})
	go func() {
		defer close(served)
		k.serve(listener)
	}()
	var wg sync.WaitGroup
	for _, s := range outputs {
		wg.Go(func() {
			if k.restored || s.awaitWriter() == nil {
				log.Copy(filepath.Base(s.pipe.Name()), io.TeeReader(s, output{k, s.kind}))
			}
		})
	}
	wg.Wait()
	k.end()
	// Attached clients get all of it; later clients find no keeper.
	listener.Close()
	<-served
	k.visits.Wait()
	return nil
}

// source is this process' end of a pipe that the container writes to.
type source struct {
	pipe *os.File
	kind byte
	// first was read to see whether anybody writes.
	first []byte
}

func openSource(path string, kind byte) (*source, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	return &source{pipe: f, kind: kind}, err
}

func (s *source) Read(p []byte) (int, error) {
	if len(s.first) > 0 {
		n := copy(p, s.first)
		s.first = s.first[n:]
		return n, nil
	}
	return s.pipe.Read(p)
}

// written reports whether a process has the other end open: a pipe without a writer is at its end,
// one with a writer is at most empty.
func (s *source) written() bool {
	raw, err := s.pipe.SyscallConn()
	if err != nil {
		return false
	}
	there := false
	_ = raw.Control(func(fd uintptr) {
		b := make([]byte, maxFrame)
		n, err := unix.Read(int(fd), b)
		there = n > 0 || err == unix.EAGAIN
		s.first = append(s.first, b[:max(n, 0)]...)
	})
	return there
}

// awaitWriter returns when a process has, or had, the other end open: before, a read would return
// the end. The kernel reports a hang-up only after there was a writer.
func (s *source) awaitWriter() error {
	raw, err := s.pipe.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0
	})
}

func (k *keeper) listen() (net.Listener, error) {
	var l net.Listener
	err := within(k.Dir, func(path string) (err error) {
		_ = os.Remove(path)
		l, err = net.Listen("unix", path)
		return err
	})
	if u, ok := l.(*net.UnixListener); ok {
		// Its name is of a descriptor that is closed by now.
		u.SetUnlinkOnClose(false)
	}
	return l, err
}

func (k *keeper) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		k.visits.Go(func() { k.attend(&client{conn: conn}) })
	}
}

// attend serves one who attaches until he leaves.
func (k *keeper) attend(c *client) {
	defer c.conn.Close()
	in := bufio.NewReaderSize(c.conn, maxFrame)
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return
	}
	kind, data, err := readFrame(in)
	if err != nil || kind != frameHello || len(data) != 1 || c.conn.SetReadDeadline(time.Time{}) != nil {
		return
	}
	speaks := data[0] == 1 && k.input != nil
	k.join(c)
	defer k.leave(c)
	for {
		kind, data, err := readFrame(in)
		switch {
		case err == nil && kind == frameStdin && speaks:
			if _, err := k.input.Write(data); err != nil {
				speaks = false
			}
			continue
		case err == nil && kind == frameStdin:
			continue
		}
		// He has said all, or is gone.
		if speaks && k.Once {
			// What was written is read before the end is seen.
			_ = k.input.Close()
		}
		if err != nil {
			return
		}
		speaks = false
	}
}

func (k *keeper) join(c *client) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.early {
		c.send(f.kind, f.data)
	}
	k.early, k.met = nil, true
	k.attached[c] = true
	if k.over {
		c.last()
	}
}

func (k *keeper) leave(c *client) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.attached, c)
}

// send gives a client what the container wrote, and leaves him behind when he does not take it.
func (c *client) send(kind byte, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return
	}
	err := errors.Join(c.conn.SetWriteDeadline(time.Now().Add(patience)), writeFrame(c.conn, kind, data))
	if err != nil {
		c.gone = true
		c.conn.Close()
	}
}

// output passes one of the container's streams to all who are attached.
type output struct {
	k    *keeper
	kind byte
}

func (o output) Write(p []byte) (int, error) {
	k := o.k
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.attached {
		c.send(o.kind, p)
	}
	if !k.met {
		k.early = append(k.early, frame{o.kind, append([]byte(nil), p...)})
		for k.earlyLen += len(p); k.earlyLen > backlog && len(k.early) > 1; k.early = k.early[1:] {
			k.earlyLen -= len(k.early[0].data)
		}
	}
	return len(p), nil
}

// end tells all who are attached that there is no more.
func (k *keeper) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = true
	for c := range k.attached {
		c.last()
	}
}

// last tells a client that there is no more, and waits only a while for him to leave.
func (c *client) last() {
	c.send(frameEnd, nil)
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
}
