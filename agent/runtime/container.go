package runtime

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"path"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/xebec-project/xebec/agent/logs"
	"github.com/xebec-project/xebec/agent/streams"
	"github.com/xebec-project/xebec/internal/failpoint"
)

// Labels by which a container is known as ours, and whose it is.
const (
	labelPodUID       = "xebec.io/pod.uid"
	labelPodNamespace = "xebec.io/pod.namespace"
	labelPodName      = "xebec.io/pod.name"
	labelContainer    = "xebec.io/container.name"
	labelAttempt      = "xebec.io/container.attempt"
	labelStopSignal   = "xebec.io/container.stop-signal"
	labelCgroup       = "xebec.io/container.cgroup"
)

var (
	// ErrNotFound is returned for a container that containerd does not know.
	ErrNotFound = errors.New("container not found")
	// ErrCreate wraps what keeps a container from being made: its image, its user, its mounts.
	ErrCreate = errors.New("creating container")
	// ErrStart wraps what keeps a container's process from being started, such as a command that does
	// not exist.
	ErrStart = errors.New("starting container")
)

// State is how far a container has come.
type State int

// The states of a container.
const (
	// Created: known to containerd, without a process. It was never started, or its shim was lost (a
	// reboot).
	Created State = iota
	// Running: its process runs.
	Running
	// Exited: its process has ended; the exit code is known until Remove.
	Exited
)

// Status is what containerd knows about a container.
type Status struct {
	ID           string
	PodUID       string
	PodNamespace string
	PodName      string
	// Name is the container's in its pod.
	Name string
	// Attempt counts the container's restarts, from 0.
	Attempt int
	// Image is the full name of its image.
	Image     string
	State     State
	CreatedAt time.Time
	// ExitCode and ExitedAt are set when State is Exited.
	ExitCode uint32
	ExitedAt time.Time
	// Pid is that of the container's first process while State is Running.
	Pid uint32
	// StopSignal is what the image wants to be stopped with.
	StopSignal syscall.Signal

	cgroup string
}

// Exit is how a container ended.
type Exit struct {
	Code uint32
	At   time.Time
}

var validID = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$`)

// ID returns the id of a container's attempt: "<pod uid>-<name>-<attempt>". A name that is too long
// for containerd, which takes 76 characters, or that it would refuse is replaced by its beginning
// and hash.
func ID(podUID, name string, attempt int) string {
	if len(name) > 32 || !validID.MatchString(name) {
		h := fnv.New32a()
		h.Write([]byte(name))
		short := regexp.MustCompile(`-+`).ReplaceAllString(name[:min(len(name), 23)], "-")
		for len(short) > 0 && short[len(short)-1] == '-' {
			short = short[:len(short)-1]
		}
		name = fmt.Sprintf("%s-%08x", short, h.Sum32())
	}
	return podUID + "-" + name + "-" + strconv.Itoa(attempt)
}

// Start makes and starts a container. It is idempotent: a container of the same pod, name and
// attempt that runs already is left as it is, and one that was created but never started is created
// again. The error wraps ErrCreate or ErrStart, after which nothing of the container is left, or is
// containerd's when that is away.
func (r *Runtime) Start(ctx context.Context, cfg ContainerConfig) (Status, error) {
	ctx, cancel := context.WithTimeout(r.ctx(ctx), startTimeout)
	defer cancel()
	id := ID(cfg.PodUID, cfg.Name, cfg.Attempt)
	have, err := r.Status(ctx, id)
	switch {
	case err == nil && have.State != Created:
		return have, nil
	case err == nil:
		if err := r.Remove(ctx, id); err != nil {
			return Status{}, err
		}
	case !errors.Is(err, ErrNotFound):
		return Status{}, err
	}
	var release func() error
	if cfg.Mounts, release, err = r.attach(id, cfg.Mounts); err != nil {
		return Status{}, classify(ErrCreate, cfg.Name, err)
	}
	have, err = r.make(ctx, id, cfg)
	if left := release(); left != nil {
		err = errors.Join(err, left, r.Remove(ctx, id))
	}
	return have, err
}

func (r *Runtime) make(ctx context.Context, id string, cfg ContainerConfig) (Status, error) {
	c, err := r.create(ctx, id, cfg)
	if err != nil {
		return Status{}, r.discard(ctx, id, classify(ErrCreate, cfg.Name, err))
	}
	failpoint.Hit("container-created")
	t, err := r.newTask(ctx, c, cfg)
	if err != nil {
		return Status{}, r.discard(ctx, id, classify(ErrStart, cfg.Name, err))
	}
	failpoint.Hit("task-created")
	// An agent that is stopped meanwhile still learns that the process was started, and can record it.
	// Otherwise the next agent would start this attempt a second time if the machine restarted too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	if err := t.Start(ctx); err != nil {
		return Status{}, r.discard(ctx, id, classify(ErrStart, cfg.Name, err))
	}
	failpoint.Hit("task-started")
	return r.Status(ctx, id)
}

// classify wraps err in class, unless it says that containerd is away: that is no fault of the
// container.
func classify(class error, name string, err error) error {
	if errdefs.IsUnavailable(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("container %s: %w", name, err)
	}
	return fmt.Errorf("%w %s: %w", class, name, err)
}

// discard removes what a failed start left. What can't be removed now goes with the next Start or
// Remove.
func (r *Runtime) discard(ctx context.Context, id string, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if err := r.Remove(ctx, id); err != nil {
		return errors.Join(cause, err)
	}
	return cause
}

func (r *Runtime) create(ctx context.Context, id string, cfg ContainerConfig) (containerd.Container, error) {
	img, err := r.client.GetImage(ctx, cfg.Image)
	if err != nil {
		return nil, err
	}
	image, err := img.Spec(ctx)
	if err != nil {
		return nil, err
	}
	handler, err := r.runtimeOpt(cfg.Handler)
	if err != nil {
		return nil, err
	}
	cgroup := path.Join(r.podCgroup(cfg.PodUID), id)
	// The label keeps the garbage collector away until the container refers to the snapshot; a
	// containerd lease would do the same for two more synchronous writes.
	snapshot := snapshots.WithLabels(map[string]string{
		"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339),
		labelPodUID:             cfg.PodUID,
	})
	labels := map[string]string{
		labelPodUID:       cfg.PodUID,
		labelPodNamespace: cfg.PodNamespace,
		labelPodName:      cfg.PodName,
		labelContainer:    cfg.Name,
		labelAttempt:      strconv.Itoa(cfg.Attempt),
		labelStopSignal:   image.Config.StopSignal,
		labelCgroup:       cgroup,
	}
	opts := []containerd.NewContainerOpts{
		containerd.WithSnapshotter(r.cfg.Snapshotter),
		containerd.WithImageName(img.Name()),
		containerd.WithNewSnapshot(id, img, snapshot),
		func(context.Context, *containerd.Client, *containers.Container) error {
			failpoint.Hit("snapshot-made")
			return nil
		},
		containerd.WithNewSpec(specOpts(cfg, image, cgroup)),
		containerd.WithContainerLabels(labels),
		handler,
	}
	c, err := r.client.NewContainer(ctx, id, opts...)
	if errdefs.IsAlreadyExists(err) {
		// A crash between the snapshot and the container left the former.
		if err := r.removeSnapshot(ctx, id); err != nil {
			return nil, err
		}
		c, err = r.client.NewContainer(ctx, id, opts...)
	}
	return c, err
}

// newTask makes the container's process, which waits to be started.
func (r *Runtime) newTask(ctx context.Context, c containerd.Container, cfg ContainerConfig) (containerd.Task, error) {
	if !cfg.attachable() {
		return c.NewTask(ctx, cio.BinaryIO(r.cfg.LogWriter, map[string]string{logs.Subcommand: cfg.LogPath}))
	}
	keeper, err := streams.Start(r.streams(cfg))
	if err != nil {
		return nil, err
	}
	t, err := c.NewTask(ctx, r.pipesTo(r.streams(cfg)))
	if err != nil {
		keeper.Abandon()
		return nil, err
	}
	// It has the ends of the task's streams by now, and so ends with the task.
	return t, keeper.Stay()
}

// Status returns what is known about a container; the error wraps ErrNotFound when nothing is.
func (r *Runtime) Status(ctx context.Context, id string) (Status, error) {
	ctx, cancel := context.WithTimeout(r.ctx(ctx), callTimeout)
	defer cancel()
	c, err := r.client.ContainerService().Get(ctx, id)
	if errdefs.IsNotFound(err) {
		return Status{}, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	if err != nil {
		return Status{}, fmt.Errorf("inspecting container %s: %w", id, err)
	}
	return r.withTask(ctx, c)
}

// List returns the containers of one pod, or of all pods for an empty uid.
func (r *Runtime) List(ctx context.Context, podUID string) ([]Status, error) {
	ctx, cancel := context.WithTimeout(r.ctx(ctx), callTimeout)
	defer cancel()
	filter := fmt.Sprintf("labels.%q", labelPodUID)
	if podUID != "" {
		filter = fmt.Sprintf("labels.%q==%q", labelPodUID, podUID)
	}
	all, err := r.client.ContainerService().List(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	out := make([]Status, 0, len(all))
	for _, c := range all {
		s, err := r.withTask(ctx, c)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func (r *Runtime) withTask(ctx context.Context, c containers.Container) (Status, error) {
	attempt, _ := strconv.Atoi(c.Labels[labelAttempt])
	s := Status{
		ID:           c.ID,
		PodUID:       c.Labels[labelPodUID],
		PodNamespace: c.Labels[labelPodNamespace],
		PodName:      c.Labels[labelPodName],
		Name:         c.Labels[labelContainer],
		Attempt:      attempt,
		Image:        c.Image,
		CreatedAt:    c.CreatedAt,
		StopSignal:   ParseSignal(c.Labels[labelStopSignal]),
		cgroup:       c.Labels[labelCgroup],
	}
	resp, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: c.ID})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return s, nil
	}
	if err != nil {
		return Status{}, fmt.Errorf("inspecting container %s: %w", c.ID, err)
	}
	switch p := resp.Process; p.Status {
	case task.Status_RUNNING, task.Status_PAUSED, task.Status_PAUSING:
		s.State, s.Pid = Running, p.Pid
	case task.Status_STOPPED:
		s.State, s.ExitCode, s.ExitedAt = Exited, p.ExitStatus, p.ExitedAt.AsTime()
	case task.Status_UNKNOWN:
		return Status{}, fmt.Errorf("inspecting container %s: its shim does not respond", c.ID)
	}
	return s, nil
}

// Wait returns when the container's process has ended. An error that does not wrap ErrNotFound says
// nothing about the container: containerd is unavailable, and the caller must repeat the wait.
func (r *Runtime) Wait(ctx context.Context, id string) (Exit, error) {
	resp, err := r.client.TaskService().Wait(r.ctx(ctx), &tasks.WaitRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return Exit{}, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	if err != nil {
		return Exit{}, fmt.Errorf("waiting for container %s: %w", id, err)
	}
	return Exit{Code: resp.ExitStatus, At: resp.ExitedAt.AsTime()}, nil
}

// Kill sends a signal to the container's first process; SIGKILL goes to all of them. A container
// that does not run is no error.
func (r *Runtime) Kill(ctx context.Context, id string, sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(r.ctx(ctx), callTimeout)
	defer cancel()
	_, err := r.client.TaskService().Kill(ctx, &tasks.KillRequest{
		ContainerID: id, Signal: uint32(sig), All: sig == syscall.SIGKILL,
	})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		return fmt.Errorf("sending %v to container %s: %w", sig, id, err)
	}
	return nil
}

// Remove ends and removes a container with its root file system. One that does not exist is no
// error.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(r.ctx(ctx), callTimeout)
	defer cancel()
	if err := r.removeTask(ctx, id); err != nil {
		return fmt.Errorf("removing container %s: %w", id, err)
	}
	failpoint.Hit("task-removed")
	// The container is removed last: without it the file system would not be found again.
	if err := r.removeSnapshot(ctx, id); err != nil {
		return fmt.Errorf("removing container %s: %w", id, err)
	}
	failpoint.Hit("snapshot-removed")
	if err := r.client.ContainerService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("removing container %s: %w", id, err)
	}
	failpoint.Hit("container-removed")
	return nil
}

// RemovePod removes what is left of a pod once its containers are removed: its cgroup, the file
// systems of its image volumes, and those of containers that were never made because the agent died
// in between.
func (r *Runtime) RemovePod(ctx context.Context, uid string) error {
	ctx, cancel := context.WithTimeout(r.ctx(ctx), callTimeout)
	defer cancel()
	left, err := r.Snapshots(ctx, uid)
	if err != nil {
		return err
	}
	for _, id := range left {
		if err := r.removeSnapshot(ctx, id); err != nil {
			return fmt.Errorf("removing file system %s: %w", id, err)
		}
	}
	return r.removePodCgroup(uid)
}

// Snapshots returns the ids of the file systems that a pod has.
func (r *Runtime) Snapshots(ctx context.Context, podUID string) ([]string, error) {
	var out []string
	err := r.client.SnapshotService(r.cfg.Snapshotter).Walk(r.ctx(ctx), func(_ context.Context, info snapshots.Info) error {
		out = append(out, info.Name)
		return nil
	}, fmt.Sprintf("labels.%q==%q", labelPodUID, podUID))
	if err != nil {
		return nil, fmt.Errorf("listing the file systems of pod %s: %w", podUID, err)
	}
	return out, nil
}

func (r *Runtime) removeTask(ctx context.Context, id string) error {
	svc := r.client.TaskService()
	_, err := svc.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	err = errgrpc.ToNative(err)
	if err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	// It may still run, or have been made without being started.
	if err := r.Kill(ctx, id, syscall.SIGKILL); err != nil {
		return err
	}
	if _, err := r.Wait(ctx, id); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	_, err = svc.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

func (r *Runtime) removeSnapshot(ctx context.Context, id string) error {
	err := r.client.SnapshotService(r.cfg.Snapshotter).Remove(ctx, id)
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}
