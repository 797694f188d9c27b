package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/containerd/api/services/tasks/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
)

// execPrefix begins the ids of the commands that Exec runs.
const execPrefix = "exec-"

// freezeRounds bounds how often endCommand looks for further processes. A process that is stopped
// can't fork, so that each round but the last finds children of processes that were not known yet.
const freezeRounds = 100

// process is one that runs, as /proc tells of it. Started tells it from a later one with the same
// number.
type process struct {
	pid, parent, session int
	started              string
}

// endCommand ends all processes of a command that was executed in the container with this cgroup,
// by the number of the command's first process: those of its session, which the OCI runtime makes
// for each command, and all descendants of those, unless they have both left the session and lost
// their parent. It stops them before it kills, so that none starts others meanwhile. Processes
// outside of the cgroup are never signaled.
func endCommand(cgroup string, first int) error {
	if cgroup == "" {
		return errors.New("listing the processes of a command: its container has no cgroup")
	}
	members := map[int]process{}
	var errs []error
	for range freezeRounds {
		all, err := processesIn(cgroup)
		if err != nil {
			errs = append(errs, fmt.Errorf("listing the processes of a command: %w", err))
			break
		}
		found := false
		for _, p := range descendants(all, first, members) {
			if _, known := members[p.pid]; known {
				continue
			}
			found = true
			members[p.pid] = p
			errs = append(errs, p.signal(unix.SIGSTOP))
		}
		if !found {
			break
		}
	}
	for _, p := range members {
		errs = append(errs, p.signal(unix.SIGKILL))
	}
	return errors.Join(errs...)
}

// descendants returns the processes of first's session, and those that descend from them or from
// members.
func descendants(all []process, first int, members map[int]process) []process {
	in := map[int]bool{}
	for pid := range members {
		in[pid] = true
	}
	var out []process
	for more := true; more; {
		more = false
		for _, p := range all {
			if !in[p.pid] && (p.pid == first || p.session == first || in[p.parent]) {
				in[p.pid], more = true, true
				out = append(out, p)
			}
		}
	}
	return out
}

// signal sends the process a signal. One that has ended is no error.
func (p process) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening process %d: %w", p.pid, err)
	}
	defer unix.Close(fd)
	// Only now is it sure which process has the number.
	if now, ok := readProcess(p.pid); !ok || now.started != p.started {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("sending %v to process %d: %w", sig, p.pid, err)
	}
	return nil
}

// processesIn returns the processes that run in a cgroup and in those below it.
func processesIn(cgroup string) ([]process, error) {
	roots, err := hierarchies()
	if err != nil {
		return nil, err
	}
	seen := map[int]bool{}
	var out []process
	for _, root := range roots {
		err := filepath.WalkDir(filepath.Join(root, cgroup), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return ended(err)
			}
			b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			if err != nil {
				// A threaded cgroup has no list of processes; theirs is above.
				if errors.Is(err, unix.EOPNOTSUPP) {
					return nil
				}
				return ended(err)
			}
			for f := range strings.FieldsSeq(string(b)) {
				pid, err := strconv.Atoi(f)
				if err != nil || pid <= 0 || seen[pid] {
					continue
				}
				seen[pid] = true
				if p, ok := readProcess(pid); ok {
					out = append(out, p)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ended forgets that a cgroup does not exist any more.
func ended(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// readProcess returns false for a process that has ended, whether its parent has waited for it or
// not.
func readProcess(pid int) (process, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	// The name, in brackets, may hold anything.
	_, rest, found := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), ") ")
	f := strings.Fields(rest)
	if !found || len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return process{}, false
	}
	parent, perr := strconv.Atoi(f[1])
	session, serr := strconv.Atoi(f[3])
	return process{pid: pid, parent: parent, session: session, started: f[19]}, perr == nil && serr == nil
}

// EndCommands ends the commands that a previous agent executed in a container: their streams are
// gone with it, and nothing else would end them. It must come before Exec.
func (r *Runtime) EndCommands(ctx context.Context, s Status) error {
	ctx, cancel := context.WithTimeout(r.ctx(ctx), callTimeout)
	defer cancel()
	resp, err := r.client.TaskService().ListPids(ctx, &tasks.ListPidsRequest{ContainerID: s.ID})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing the commands in container %s: %w", s.ID, err)
	}
	var errs []error
	for _, p := range resp.Processes {
		var details runcoptions.ProcessDetails
		if p.Info == nil || p.Info.UnmarshalTo(&details) != nil || !strings.HasPrefix(details.ExecID, execPrefix) {
			continue
		}
		errs = append(errs, endCommand(s.cgroup, int(p.Pid)))
		kill := &tasks.KillRequest{ContainerID: s.ID, ExecID: details.ExecID, Signal: uint32(syscall.SIGKILL)}
		if _, err := r.client.TaskService().Kill(ctx, kill); err == nil {
			_, _ = r.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: s.ID, ExecID: details.ExecID})
		}
		_, err := r.client.TaskService().DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: s.ID, ExecID: details.ExecID})
		if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("stopping a command in container %s: %w", s.ID, err))
		}
	}
	return errors.Join(errs...)
}
