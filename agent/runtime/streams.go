package runtime

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/xebec-project/xebec/agent/streams"
)

// streams says where the streams of a container are that one can attach to.
func (r *Runtime) streams(cfg ContainerConfig) streams.Config {
	return streams.Config{
		Dir:     cfg.StreamDir,
		LogPath: cfg.LogPath,
		Stdin:   cfg.Stdin,
		Once:    cfg.StdinOnce,
		TTY:     cfg.TTY,
		Program: r.cfg.LogWriter,
	}
}

// attachable reports whether the container's streams have a keeper; the others' output goes to
// their log alone.
func (c ContainerConfig) attachable() bool { return c.Stdin || c.TTY }

// pipes are streams for containerd that another process keeps.
type pipes struct{ config cio.Config }

func (p pipes) Config() cio.Config { return p.config }
func (p pipes) Cancel()            {}
func (p pipes) Wait()              {}
func (p pipes) Close() error       { return nil }

func (r *Runtime) pipesTo(cfg streams.Config) cio.Creator {
	stdin, stdout, stderr := cfg.Paths()
	return func(string) (cio.IO, error) {
		return pipes{cio.Config{Terminal: cfg.TTY, Stdin: stdin, Stdout: stdout, Stderr: stderr}}, nil
	}
}

// RestoreStreams restores the streams of a running container after an interrupted Start, a restart
// of the agent, or the loss of their keeper. It does nothing for containers without attachable
// streams, and for one that has terminated.
func (r *Runtime) RestoreStreams(ctx context.Context, id string, cfg ContainerConfig) error {
	if !cfg.attachable() {
		return nil
	}
	if cfg.Stdin && cfg.StdinOnce {
		// The shim holds stdin open as well, which the others need when their keeper is lost: this one is
		// to see the end.
		ctx, cancel := context.WithTimeout(r.ctx(ctx), callTimeout)
		defer cancel()
		_, err := r.client.TaskService().CloseIO(ctx, &tasks.CloseIORequest{ContainerID: id, Stdin: true})
		if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsUnknown(err) {
			return fmt.Errorf("closing stdin of container %s: %w", id, err)
		}
	}
	if err := streams.Restore(r.streams(cfg)); !errors.Is(err, streams.ErrGone) {
		return err
	}
	return nil
}

// Resize changes the size of the terminal of a container's first process. One that has just ended
// is no error.
func (r *Runtime) Resize(ctx context.Context, id string, s Size) error {
	ctx, cancel := context.WithTimeout(r.ctx(ctx), callTimeout)
	defer cancel()
	_, err := r.client.TaskService().ResizePty(ctx, &tasks.ResizePtyRequest{ContainerID: id, Width: s.Width, Height: s.Height})
	if err = errgrpc.ToNative(err); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("resizing the terminal of container %s: %w", id, err)
	}
	return nil
}
