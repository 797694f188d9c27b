package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// containerNamed finds the pod that a command line names, and of its containers the one named, or the first.
func (s *shell) containerNamed(ctx context.Context, args []string, name string) (*corev1.Pod, string, error) {
	cl := s.client()
	namespace, err := s.defaultNamespace()
	if err != nil {
		return nil, "", err
	}
	pod, err := s.podOf(ctx, cl, args, namespace)
	if err != nil {
		return nil, "", err
	}
	containers, err := s.containersOf(pod, name, false)
	if err != nil {
		return nil, "", err
	}
	return pod, containers[0], nil
}

// end is this end of the streams of a process in a container: what is typed here, in a terminal of this size.
type end struct {
	in    io.Reader // nil when the process is told nothing
	tty   bool
	fd    int
	state *term.State // what the terminal was before it passed everything through; nil when it does not
}

// openEnd prepares this end. A terminal is used if one is wanted and there is one; without, the user is told what it lacks.
// Where input is passed on, the terminal passes everything through until close: the one at the other end makes sense of it.
func (s *shell) openEnd(stdin, tty bool, lacks string) (*end, error) {
	e := &end{}
	if stdin {
		e.in = s.In
	}
	fd, isTerminal := terminal(s.In)
	switch {
	case tty && !isTerminal:
		s.labelf(yellow, "Warning:", "%s", lacks)
	case tty:
		e.tty, e.fd = true, fd
	}
	if e.tty && stdin {
		var err error
		if e.state, err = term.MakeRaw(fd); err != nil {
			return nil, fmt.Errorf("prepare the terminal: %w", err)
		}
	}
	return e, nil
}

// close makes the terminal what it was.
func (e *end) close() {
	if e.state != nil {
		_ = term.Restore(e.fd, e.state)
	}
}

// size is how large the terminal is, nil without one.
func (e *end) size() *nodev1.TerminalSize {
	if !e.tty {
		return nil
	}
	return terminalSize(e.fd)
}

// pass hands what is typed and how large the terminal becomes to send, in the background, until ctx ends or send fails. A
// stream takes one sender at a time: input and resizes meet in one goroutine, which ends with ctx. That which reads is left
// behind in a read of standard input that nothing can interrupt.
func (e *end) pass(ctx context.Context, send func(said) error) {
	input := make(chan []byte)
	if e.in != nil {
		go readInput(ctx, e.in, input)
	}
	go sendInput(ctx, send, input, e.tty, e.fd)
}

// readInput sends what it reads, and a nil slice at the end.
func readInput(ctx context.Context, from io.Reader, to chan<- []byte) {
	for {
		buffer := make([]byte, 32<<10)
		n, err := from.Read(buffer)
		if n > 0 {
			select {
			case to <- buffer[:n]:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			select {
			case to <- nil:
			case <-ctx.Done():
			}
			return
		}
	}
}

// said is one thing to pass on: a new size of the terminal, input, or, with neither, the end of the input.
type said struct {
	data []byte
	size *nodev1.TerminalSize
}

// sendInput passes on what is typed and how large the terminal is until ctx ends, or send fails: the receiving side learns why.
func sendInput(ctx context.Context, send func(said) error, input <-chan []byte, tty bool, fd int) {
	resized := make(chan os.Signal, 1)
	if tty {
		signal.Notify(resized, syscall.SIGWINCH)
		defer signal.Stop(resized)
	}
	for {
		var next said
		select {
		case <-ctx.Done():
			return
		case <-resized:
			if next.size = terminalSize(fd); next.size == nil {
				continue
			}
		case next.data = <-input:
		}
		if send(next) != nil {
			return
		}
	}
}

func terminalSize(fd int) *nodev1.TerminalSize {
	columns, rows, err := term.GetSize(fd)
	if err != nil {
		return nil
	}
	return &nodev1.TerminalSize{Width: uint32(columns), Height: uint32(rows)}
}
