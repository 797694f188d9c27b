// Package streams holds the standard streams of containers that one can attach to: those with stdin
// or a terminal.
//
// A process of its own, the keeper, stands at the other end of such a container's streams, and
// outlives the agent and containerd: stdin stays open while no client is attached, no output is
// lost, and the container does not notice clients that leave. It writes the container's log, and
// serves those who attach at a unix socket. It is the agent's own program under another argument
// and
// ends with the container's output.
package streams

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Subcommand is the argument that makes a program that calls Run the keeper of a container's
// streams.
const Subcommand = "stream-keeper"

// startTimeout is how long a keeper may take to be ready.
const startTimeout = 10 * time.Second

// Files in a container's directory of streams.
const (
	stdinName  = "stdin"
	stdoutName = "stdout"
	stderrName = "stderr"
	socketName = "socket"
	lockName   = "lock"
)

// ErrGone is returned when no keeper serves the streams: the container has ended, or has none.
var ErrGone = errors.New("the container's streams are closed")

// Config says whose streams to keep.
type Config struct {
	// Dir holds the pipes and the socket.
	Dir string
	// LogPath is the file that the output goes to.
	LogPath string
	// Stdin opens a standard input, which with Once ends when the first who attached to it has gone.
	Stdin, Once bool
	// TTY says that the container has a terminal, whose output all comes on stdout.
	TTY bool
	// Program is started as the keeper.
	Program string
	// restored tells that the container has its ends of the pipes already, or has ended.
	restored bool
}

// Paths are those of the pipes, as containerd wants them; empty for streams that are not there.
func (c Config) Paths() (stdin, stdout, stderr string) {
	stdout = filepath.Join(c.Dir, stdoutName)
	if c.Stdin {
		stdin = filepath.Join(c.Dir, stdinName)
	}
	if !c.TTY {
		stderr = filepath.Join(c.Dir, stderrName)
	}
	return stdin, stdout, stderr
}

// mode tells a keeper what streams there are.
func (c Config) mode() string {
	mode := ""
	for _, f := range []struct {
		set  bool
		flag string
	}{{c.Stdin, "i"}, {c.Once, "o"}, {c.TTY, "t"}, {c.restored, "r"}} {
		if f.set {
			mode += f.flag
		}
	}
	return mode + "-"
}

// Keeper is a keeper that was started, and ends with the agent until Stay is called.
type Keeper struct{ link *os.File }

// Start makes the pipes and starts a keeper. What an attempt before this one left is replaced.
func Start(cfg Config) (*Keeper, error) {
	if err := os.RemoveAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("creating the container's streams: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating the container's streams: %w", err)
	}
	stdin, stdout, stderr := cfg.Paths()
	for _, path := range []string{stdin, stdout, stderr} {
		if path == "" {
			continue
		}
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return nil, fmt.Errorf("creating the container's streams: %w", err)
		}
	}
	return start(cfg)
}

func start(cfg Config) (*Keeper, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("starting the keeper of the container's streams: %w", err)
	}
	own, its := os.NewFile(uintptr(ends[0]), "keeper"), os.NewFile(uintptr(ends[1]), "agent")
	defer its.Close()
	k := &Keeper{own}
	cmd := &exec.Cmd{
		Path: cfg.Program, Args: []string{"xebec-agent", Subcommand, cfg.mode(), cfg.Dir, cfg.LogPath}, Dir: "/", Env: []string{},
		ExtraFiles: []*os.File{its}, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		k.Abandon()
		return nil, fmt.Errorf("starting the keeper of the container's streams: %w", err)
	}
	its.Close()
	// Its end is for the agent to collect, as long as there is the agent that started it.
	go func() { _ = cmd.Wait() }()
	said := make([]byte, 256)
	if err := own.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		k.Abandon()
		return nil, err
	}
	n, err := own.Read(said)
	if string(said[:n]) == ended+"\n" {
		k.Abandon()
		return nil, ErrGone
	}
	if n != 1 || err != nil {
		k.Abandon()
		return nil, fmt.Errorf("starting the keeper of the container's streams: it exited during its start: %s (%v)", said[:n], err)
	}
	return k, nil
}

// Stay makes the keeper outlive the agent. From then on it ends when both ends of the container's
// output are closed.
func (k *Keeper) Stay() error {
	_, err := k.link.Write([]byte("\n"))
	return errors.Join(err, k.link.Close())
}

// Abandon ends a keeper that is not to stay.
func (k *Keeper) Abandon() { _ = k.link.Close() }

// Restore starts a keeper for a running container whose own was lost. The error wraps ErrGone when
// the container has ended.
func Restore(cfg Config) error {
	conn, err := dial(cfg.Dir)
	if err == nil {
		return conn.Close()
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, stdoutName)); err != nil {
		return fmt.Errorf("restoring the container's streams: %w", err)
	}
	cfg.restored = true
	k, err := start(cfg)
	if err != nil {
		return err
	}
	return k.Stay()
}

// Attachment says what to join to a container's streams.
type Attachment struct {
	// Stdin is passed on until its end when not nil. A read of it may still be going on when Attach
	// has returned.
	Stdin io.Reader
	// Stdout and Stderr get what the container writes from now on; who is the first to attach also
	// gets what it wrote just before.
	Stdout, Stderr io.Writer
	// Done, when closed, ends the attachment.
	Done <-chan struct{}
	// Joined is called once, when the streams are joined.
	Joined func() error
}

// Attach joins streams until the container's output ends or the attachment is done. The error wraps
// ErrGone when there is nothing to attach to.
func Attach(dir string, a Attachment) error {
	conn, err := dial(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	defer conn.Close()
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-a.Done:
		case <-over:
		}
		conn.Close()
	}()
	hello := []byte{0}
	if a.Stdin != nil {
		hello[0] = 1
	}
	if err := writeFrame(conn, frameHello, hello); err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	if err := a.Joined(); err != nil {
		return err
	}
	if a.Stdin != nil {
		go func() {
			_, err := io.Copy(frameWriter{conn, frameStdin}, a.Stdin)
			if err == nil {
				_ = writeFrame(conn, frameEnd, nil)
			}
		}()
	}
	in := bufio.NewReaderSize(conn, maxFrame)
	for {
		kind, data, err := readFrame(in)
		switch {
		case err != nil:
			select {
			case <-a.Done:
				return nil
			default:
			}
			return fmt.Errorf("%w: %w", ErrGone, err)
		case kind == frameStdout:
			_, err = a.Stdout.Write(data)
		case kind == frameStderr:
			_, err = a.Stderr.Write(data)
		case kind == frameEnd:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// dial connects to the keeper. Paths of sockets are short, so that it goes by a descriptor of the
// directory.
func dial(dir string) (net.Conn, error) {
	var conn net.Conn
	err := within(dir, func(path string) (err error) {
		conn, err = net.DialTimeout("unix", path, startTimeout)
		return err
	})
	return conn, err
}

// within calls f with a short path of the socket in a directory.
func within(dir string, f func(path string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName))
}

// Kinds of frames between who attaches and the keeper: a byte, four of length, and data.
const (
	frameHello = iota
	frameStdin
	frameStdout
	frameStderr
	frameEnd
)

// maxFrame is the most data of a frame.
const maxFrame = 32 << 10

func writeFrame(w io.Writer, kind byte, data []byte) error {
	b := make([]byte, 5, 5+len(data))
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(len(data)))
	_, err := w.Write(append(b, data...))
	return err
}

func readFrame(r *bufio.Reader) (kind byte, data []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("invalid frame of %d bytes", n)
	}
	data = make([]byte, n)
	_, err = io.ReadFull(r, data)
	return head[0], data, err
}

// frameWriter writes frames of one kind.
type frameWriter struct {
	w    io.Writer
	kind byte
}

func (f frameWriter) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		n := min(maxFrame, len(p)-sent)
		if err := writeFrame(f.w, f.kind, p[sent:sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(p), nil
}

// Remove removes what Start made; what is not there is no error.
func Remove(dir string) error {
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the container's streams: %w", err)
	}
	return nil
}
