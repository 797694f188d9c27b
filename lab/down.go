package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/lab/cgroup"
	"github.com/xebec-project/xebec/lab/control"
	"github.com/xebec-project/xebec/lab/machine"
	"github.com/xebec-project/xebec/lab/topology"
)

// Limits of taking a lab down: for its supervisor to stop everything in order, and for the kernel
// to remove what is left.
const (
	orderlyLimit = 30 * time.Second
	sweepLimit   = 30 * time.Second
)

// DownOptions say which lab to take down.
type DownOptions struct {
	// Name is the lab's; topology.DefaultName when empty.
	Name string
	// StateDir is needed only for a lab that is not registered and was not kept in DefaultStateDir.
	StateDir string
	// Purge removes the state directory too.
	Purge bool
}

// Down takes a lab down: processes, containers, namespaces, mounts, cgroups and the command line's
// context. Only the state directory stays, unless it is purged. It works from the lab's name alone,
// so that a lab whose supervisor was killed is removed as well, and taking down what is down is no
// error.
func Down(ctx context.Context, options DownOptions) error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	name := options.Name
	if name == "" {
		name = topology.DefaultName
	}
	unlock, err := lockRegistry()
	if err != nil {
		return err
	}
	defer unlock()
	dir, err := registered(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && options.StateDir != "":
		if dir, err = filepath.Abs(options.StateDir); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrNotExist):
		dir, err = DefaultStateDir(name), nil
	case err != nil:
		return err
	}
	spec, specErr := topology.Load(dir)
	if specErr == nil && spec.Name != name {
		return fmt.Errorf("%s belongs to lab %s: add --name %s", dir, spec.Name, spec.Name)
	}
	if specErr == nil {
		if err := stopSupervisor(ctx, spec); err != nil {
			return err
		}
	}
	if err := sweep(ctx, name, dir); err != nil {
		return fmt.Errorf("stop lab %s: %w", name, err)
	}
	if specErr == nil {
		err = removeContext(spec)
	}
	if options.Purge {
		err = errors.Join(err, purge(dir))
	}
	return errors.Join(err, unregister(name))
}

// stopSupervisor asks the supervisor to stop everything in order and waits until it has ended. None
// is no error.
func stopSupervisor(ctx context.Context, spec topology.Spec) error {
	ctx, cancel := context.WithTimeout(ctx, orderlyLimit)
	defer cancel()
	if err := control.NewClient(spec.Socket()).Do(ctx, control.PathStop, control.Request{}); err != nil {
		// Killed, hung or never started: the sweep ends whatever is there.
		return nil
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if alive, err := supervised(spec); err != nil || !alive {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// sweep removes everything that bears the lab's name, or is mounted in its state directory.
func sweep(ctx context.Context, name, stateDir string) error {
	ctx, cancel := context.WithTimeout(ctx, sweepLimit)
	defer cancel()
	hier, err := cgroup.Find()
	if err != nil {
		return err
	}
	group := topology.Cgroup(name)
	if err := hier.Kill(ctx, group); err != nil {
		return err
	}
	names, err := machine.Namespaces(topology.NamespacePrefix(name))
	if err != nil {
		return err
	}
	var errs []error
	for _, ns := range names {
		errs = append(errs, machine.DeleteNamespace(ns))
	}
	errs = append(errs, unmountBelow(stateDir), hier.Remove(ctx, group))
	for _, file := range []string{"control.sock", "lock"} {
		if err := os.Remove(filepath.Join(stateDir, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// unmountBelow unmounts everything below the directory.
func unmountBelow(dir string) error {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	var errs []error
	for _, m := range slices.Backward(mounts) {
		if !strings.HasPrefix(m.Mountpoint, dir+"/") {
			continue
		}
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}

// removeContext takes the lab's context out of the command line's configuration. A configuration
// that became empty and that only the lab made is removed.
func removeContext(spec topology.Spec) error {
	if spec.ContextFile == "" {
		return nil
	}
	config, err := cliconfig.Load(spec.ContextFile)
	if err != nil {
		return fmt.Errorf("remove context of the lab: %w", err)
	}
	if !config.Delete(spec.ContextName()) {
		return nil
	}
	if len(config.Contexts) == 0 {
		if err := os.Remove(spec.ContextFile); err != nil {
			return err
		}
		// Only when empty.
		_ = unix.Rmdir(filepath.Dir(spec.ContextFile))
		return nil
	}
	return saveConfig(config, spec.ContextFile)
}

// purge removes a state directory, if it is one.
func purge(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	isLab := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "lab.json" })
	if !isLab && len(entries) > 0 {
		return fmt.Errorf("%s is not the state directory of a lab: nothing was removed", dir)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("purge lab: %w", err)
	}
	return nil
}
