package pods

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/xebec-project/xebec/agent/logs"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/streams"
)

// unknownExit stands for a code that is not known (yet).
const unknownExit = -1

// streamConfig selects the streams of a container to attach to.
func (w *worker) streamConfig(c *container) runtime.ContainerConfig {
	return runtime.ContainerConfig{
		TTY: c.spec.GetTty(), Stdin: c.spec.GetStdin(), StdinOnce: c.spec.GetStdinOnce(), StreamDir: w.dir.Streams(c.spec.GetName()),
		LogPath: w.dir.Log(c.spec.GetName(), c.rec.Attempt),
	}
}

// Attachment is what to join to a container's own streams.
type Attachment struct {
	// Stdin is passed on until its end when not nil.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize brings sizes of the terminal, which a container without one does not have.
	Resize <-chan runtime.Size
	// Joined is called once, when the streams are joined.
	Joined func() error
}

// ErrNoStdin is returned for a container that has no standard input to attach to.
var ErrNoStdin = errors.New("container has no stdin: set stdin: true in its spec")

// Attach joins streams to those of a container's own process until that ends or ctx does, and
// returns its exit code, or -1 where that is not known. The error wraps ErrNotRunning when the
// container has ended before that, or while the streams were being joined. An empty container name
// stands for the pod's first.
func (s *Set) Attach(ctx context.Context, namespace, pod, container string, a Attachment) (int32, error) {
	w, err := s.find(namespace, pod)
	if err != nil {
		return unknownExit, err
	}
	in, err := w.instance(container, true, false)
	if err != nil {
		return unknownExit, err
	}
	if !in.Running {
		return unknownExit, fmt.Errorf("container %s: %w", in.name, ErrNotRunning)
	}
	if a.Stdin != nil && !in.stdin {
		return unknownExit, fmt.Errorf("container %s: %w", in.name, ErrNoStdin)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if in.tty {
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case size := <-a.Resize:
					_ = s.cfg.Runtime.Resize(ctx, in.ID, size)
				}
			}
		}()
	}
	missed := false
	if in.stdin || in.tty {
		seen := &passed{}
		err = streams.Attach(w.dir.Streams(in.name), streams.Attachment{
			Stdin: a.Stdin, Stdout: seen.by(a.Stdout), Stderr: seen.by(a.Stderr), Done: ctx.Done(), Joined: a.Joined,
		})
		missed = errors.Is(err, streams.ErrGone) && !seen.any
	} else {
		// What it writes from now on is what comes into its log.
		err = a.Joined()
		if err == nil {
			err = logs.Read(ctx, in.LogPath, logs.Options{Follow: true, Stderr: a.Stderr}, in.Ended, a.Stdout)
		}
	}
	if ctx.Err() != nil {
		return unknownExit, ctx.Err()
	}
	if err != nil && !errors.Is(err, streams.ErrGone) {
		return unknownExit, err
	}
	select {
	case <-ctx.Done():
		return unknownExit, ctx.Err()
	case <-in.Ended:
	}
	if missed {
		// It ended just before the streams could be joined: what it wrote is in its log.
		return unknownExit, fmt.Errorf("container %s: %w", in.name, ErrNotRunning)
	}
	return in.exitCode.Load(), nil
}

// passed notes whether anything was written.
type passed struct{ any bool }

// by returns a writer that passes on to another one.
func (p *passed) by(to io.Writer) io.Writer { return notedWriter{p, to} }

type notedWriter struct {
	*passed
	to io.Writer
}

func (n notedWriter) Write(b []byte) (int, error) {
	n.any = true
	return n.to.Write(b)
}
