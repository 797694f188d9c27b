package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/google/uuid"
)

// drainTimeout is how long an ended command's output is waited for when a child of it keeps the
// streams open.
const drainTimeout = time.Second

// Size is a terminal's size in characters.
type Size struct{ Width, Height uint32 }

// ExecConfig says what to run in a container.
type ExecConfig struct {
	// Command is not run by a shell.
	Command []string
	// Stdin is read until its end when not nil.
	Stdin io.Reader
	// Stdout and Stderr may be nil. With TTY all output goes to Stdout.
	Stdout, Stderr io.Writer
	TTY            bool
	// Resize brings the terminal's sizes; it may be nil.
	Resize <-chan Size
	// Alone ends what the command leaves running when it ends by itself.
	Alone bool
}

// Exec runs a command in a running container and returns its exit code. The command is killed when
// ctx is done, with all that it has started, but for what has left both its session and its parent.
// Processes that it leaves running when it ends by itself go on, unless Alone is set. The error
// wraps ErrNotFound when the container does not run, and ErrStart when the command can't be
// started.
func (r *Runtime) Exec(ctx context.Context, id string, cfg ExecConfig) (uint32, error) {
	ctx = r.ctx(ctx)
	c, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return 0, execError(id, err)
	}
	spec, err := c.Spec(ctx)
	if err != nil {
		return 0, execError(id, err)
	}
	t, err := c.Task(ctx, nil)
	if err != nil {
		return 0, execError(id, err)
	}
	info, err := c.Info(ctx, containerd.WithoutRefreshedMetadata)
	if err != nil {
		return 0, execError(id, err)
	}
	cgroup := info.Labels[labelCgroup]
	process := *spec.Process
	process.Args, process.Terminal = cfg.Command, cfg.TTY
	// The container's score was set when it started; it can't be lowered to it again.
	process.OOMScoreAdj = nil

	stdin := &endReader{Reader: cfg.Stdin, ended: make(chan struct{})}
	streams := []cio.Opt{cio.WithFIFODir(r.cfg.ScratchDir)}
	if cfg.TTY {
		streams = append(streams, cio.WithTerminal)
	}
	var in io.Reader
	if cfg.Stdin != nil {
		in = stdin
	}
	streams = append(streams, cio.WithStreams(in, orDiscard(cfg.Stdout), orDiscard(cfg.Stderr)))
	execID := execPrefix + uuid.NewString()
	// What is begun is finished before the end of ctx counts: a command that is just being started
	// can't be killed, and would go on without anybody who knows of it.
	begin, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	p, err := t.Exec(begin, execID, &process, cio.NewCreator(streams...))
	if err != nil {
		return 0, execError(id, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		// Deleting by the service does not wait for the streams once more, as Process.Delete does.
		_, _ = r.client.TaskService().DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: id, ExecID: execID})
		p.IO().Cancel()
		p.IO().Close()
	}()
	exited, err := p.Wait(context.WithoutCancel(ctx))
	if err != nil {
		return 0, execError(id, err)
	}
	if err := p.Start(begin); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrStart, err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	over := make(chan struct{})
	defer close(over)
	wg.Go(func() { r.attend(ctx, p, stdin, cfg.Resize, over) })

	select {
	case status := <-exited:
		code, _, err := status.Result()
		if err != nil {
			return 0, execError(id, err)
		}
		if cfg.Alone {
			if err := endCommand(cgroup, int(p.Pid())); err != nil {
				return 0, execError(id, err)
			}
		}
		drain(p.IO())
		return code, nil
	case <-ctx.Done():
		kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		left := endCommand(cgroup, int(p.Pid()))
		if err := p.Kill(kill, syscall.SIGKILL); err == nil {
			select {
			case <-exited:
			case <-kill.Done():
			}
		}
		return 0, errors.Join(fmt.Errorf("command in container %s: %w", id, ctx.Err()), left)
	}
}

// attend passes on the end of stdin and the terminal's sizes until the command is over.
func (r *Runtime) attend(ctx context.Context, p containerd.Process, stdin *endReader, sizes <-chan Size, over <-chan struct{}) {
	ended := stdin.ended
	for {
		select {
		case <-over:
			return
		case <-ended:
			ended = nil
			_ = p.CloseIO(ctx, containerd.WithStdinCloser)
		case s, ok := <-sizes:
			if !ok {
				sizes = nil
				continue
			}
			// A command that has just ended has no terminal to resize.
			_ = p.Resize(ctx, s.Width, s.Height)
		}
	}
}

func drain(streams cio.IO) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		streams.Wait()
	}()
	timeout := time.NewTimer(drainTimeout)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	}
}

func execError(id string, err error) error {
	if errdefs.IsNotFound(err) {
		err = errors.Join(ErrNotFound, err)
	}
	return fmt.Errorf("executing in container %s: %w", id, err)
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// endReader closes ended when its reader has ended.
type endReader struct {
	io.Reader
	once  sync.Once
	ended chan struct{}
}

func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err != nil {
		e.once.Do(func() { close(e.ended) })
	}
	return n, err
}
