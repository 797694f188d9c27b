package session

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/xebec-project/xebec/cli/terminal"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// Chunk is how much of an archive travels in one message.
const Chunk = 512 << 10

// Console is this end of the streams of a process in a container: what is typed here, in a terminal
// of this size.
type Console struct {
	in    io.Reader // nil without standard input
	TTY   bool
	fd    int
	state *term.State // what the terminal was before it passed everything through; nil when it does not
}

// OpenConsole prepares standard input and the terminal, if tty is set and standard input is one;
// otherwise it prints the warning lacks. With stdin the terminal is in raw mode until Close: the
// terminal in the container interprets the input.
func (s *Session) OpenConsole(stdin, tty bool, lacks string) (*Console, error) {
	e := &Console{}
	if stdin {
		e.in = s.In
	}
	fd, isTerminal := terminal.Descriptor(s.In)
	switch {
	case tty && !isTerminal:
		s.Labelf(terminal.Yellow, "Warning:", "%s", lacks)
	case tty:
		e.TTY, e.fd = true, fd
	}
	if e.TTY && stdin {
		var err error
		if e.state, err = term.MakeRaw(fd); err != nil {
			return nil, fmt.Errorf("prepare the terminal: %w", err)
		}
	}
	return e, nil
}

// Close makes the terminal what it was.
func (e *Console) Close() {
	if e.state != nil {
		_ = term.Restore(e.fd, e.state)
	}
}

// Size is how large the terminal is, nil without one.
func (e *Console) Size() *nodev1.TerminalSize {
	if !e.TTY {
		return nil
	}
	return terminalSize(e.fd)
}

// Pass hands what is typed and how large the terminal becomes to send, in the background, until ctx
// ends or send fails. A stream takes one sender at a time: input and resizes meet in one goroutine,
// which ends with ctx. That which reads is left behind in a read of standard input that nothing can
// interrupt.
func (e *Console) Pass(ctx context.Context, send func(Input) error) {
	input := make(chan []byte)
	if e.in != nil {
		go readInput(ctx, e.in, input)
	}
	go sendInput(ctx, send, input, e.TTY, e.fd)
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

// Input is one thing to pass on: a new size of the terminal, input, or, with neither, the end of
// the input.
type Input struct {
	Data []byte
	Size *nodev1.TerminalSize
}

// sendInput passes on what is typed and how large the terminal is until ctx ends, or send fails:
// the receiving side learns why.
func sendInput(ctx context.Context, send func(Input) error, input <-chan []byte, tty bool, fd int) {
	resized := make(chan os.Signal, 1)
	if tty {
		signal.Notify(resized, syscall.SIGWINCH)
		defer signal.Stop(resized)
	}
	for {
		var next Input
		select {
		case <-ctx.Done():
			return
		case <-resized:
			if next.Size = terminalSize(fd); next.Size == nil {
				continue
			}
		case next.Data = <-input:
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
