package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/lab/control"
	"github.com/xebec-project/xebec/lab/supervisor"
	"github.com/xebec-project/xebec/lab/topology"
)

// Defaults of Options.
var (
	DefaultClusterCIDR = netip.MustParsePrefix("10.244.0.0/16")
	DefaultServiceCIDR = netip.MustParsePrefix("10.96.0.0/16")
)

// pollEvery is how often Up looks how far things are.
const pollEvery = 100 * time.Millisecond

// Options say what lab to bring up. Fields left zero have the defaults named.
type Options struct {
	// Name tells labs apart; topology.DefaultName.
	Name string
	// StateDir keeps the lab's files; DefaultStateDir.
	StateDir string
	// BinDir holds xebec, xebecd and xebec-agent; the directory of the running program.
	BinDir string
	// Masters and Nodes count the machines. Zero masters are an error, zero nodes are not.
	Masters, Nodes int
	// Segments counts the networks that the nodes are spread over; 0 is 1.
	Segments int
	// DualStack gives machines, pods and services IPv6 addresses beside IPv4.
	DualStack bool
	// ClusterCIDR and ServiceCIDR hold the addresses of pods and services.
	ClusterCIDR, ServiceCIDR netip.Prefix
	// Ephemeral keeps the machines' disks in memory: nothing of them outlives Down.
	Ephemeral bool
	// ContextFile is the command line's configuration that gets a context for the lab, which becomes
	// the current one; empty for none.
	ContextFile string
	// NoWait returns once the processes are started, without waiting for the services and the nodes.
	NoWait bool
	// Progress, when not nil, receives what is being done, in a few words, and again while that goes
	// on.
	Progress func(step string)
}

// spec returns what the options ask for, without an index.
func (o Options) spec() (topology.Spec, error) {
	if o.Name == "" {
		o.Name = topology.DefaultName
	}
	if o.StateDir == "" {
		o.StateDir = DefaultStateDir(o.Name)
	}
	if o.BinDir == "" {
		self, err := os.Executable()
		if err != nil {
			return topology.Spec{}, fmt.Errorf("find programs: %w", err)
		}
		o.BinDir = filepath.Dir(self)
	}
	if !o.ClusterCIDR.IsValid() {
		o.ClusterCIDR = DefaultClusterCIDR
	}
	if !o.ServiceCIDR.IsValid() {
		o.ServiceCIDR = DefaultServiceCIDR
	}
	s := topology.Spec{
		Name: o.Name, Masters: o.Masters, Nodes: o.Nodes, Segments: o.Segments, DualStack: o.DualStack,
		ClusterCIDR: o.ClusterCIDR, ServiceCIDR: o.ServiceCIDR,
		Ephemeral: o.Ephemeral, ContextFile: o.ContextFile,
	}
	for from, to := range map[string]*string{o.StateDir: &s.StateDir, o.BinDir: &s.BinDir} {
		path, err := filepath.Abs(from)
		if err != nil {
			return s, err
		}
		*to = path
	}
	return s, nil
}

// Up brings a lab up and returns when all its services are found and all its nodes are ready, or
// with an error that says what is missing. What failed before any process was started is cleaned
// up; later the lab stays for its logs to be read, and Down removes it.
func Up(ctx context.Context, options Options) (*Lab, error) {
	if options.Progress == nil {
		options.Progress = func(string) {}
	}
	spec, err := options.spec()
	if err != nil {
		return nil, err
	}
	options.Progress("checking this machine")
	trial := spec
	trial.Index = topology.MaxIndex
	if err := errors.Join(trial.Validate(), Check(spec)); err != nil {
		return nil, err
	}
	lab, ended, err := launch(&spec)
	if err != nil {
		return nil, err
	}
	if err := lab.awaitRunning(ctx, ended, options.Progress); err != nil {
		return nil, errors.Join(err, Down(context.WithoutCancel(ctx), DownOptions{Name: spec.Name}))
	}
	if err := lab.writeContext(); err != nil {
		return lab, err
	}
	if options.NoWait {
		return lab, nil
	}
	return lab, lab.awaitReady(ctx, options.Progress)
}

// launch registers the lab and starts its supervisor. It returns a channel that is closed when that
// has ended.
func launch(spec *topology.Spec) (lab *Lab, ended <-chan struct{}, err error) {
	unlock, err := lockRegistry()
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	if dir, err := registered(spec.Name); err == nil {
		old, loadErr := topology.Load(dir)
		if loadErr == nil {
			if alive, err := supervised(old); err == nil && alive {
				return nil, nil, fmt.Errorf("lab %s is already running: stop it by xebec lab down --name %s", spec.Name, spec.Name)
			}
		}
		return nil, nil, fmt.Errorf(
			"lab %s was not stopped and its supervisor is gone: clean up by xebec lab down --name %s",
			spec.Name,
			spec.Name,
		)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if err := resume(spec); err != nil {
		return nil, nil, err
	}
	if err := register(spec); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("register lab: %w", err), unregister(spec.Name))
	}
	if err := errors.Join(spec.Validate(), spec.Save()); err != nil {
		return nil, nil, errors.Join(err, unregister(spec.Name))
	}
	if ended, err = startSupervisor(*spec); err != nil {
		return nil, nil, errors.Join(
			fmt.Errorf("start supervisor: %w", err),
			sweep(context.Background(), spec.Name, spec.StateDir),
			unregister(spec.Name),
		)
	}
	return &Lab{Spec: *spec, client: control.NewClient(spec.Socket())}, ended, nil
}

// resume takes over the index of a lab that ran in the state directory before, and refuses a lab
// that its data do not fit.
func resume(spec *topology.Spec) error {
	old, err := topology.Load(spec.StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: remove the lab by xebec lab down --purge --name %s", err, spec.Name)
	}
	spec.Index = old.Index
	if old.Ephemeral || spec.Ephemeral {
		return nil
	}
	same := old.Name == spec.Name && old.Masters == spec.Masters && max(old.Segments, 1) == max(spec.Segments, 1) &&
		old.DualStack == spec.DualStack &&
		old.ClusterCIDR == spec.ClusterCIDR &&
		old.ServiceCIDR == spec.ServiceCIDR
	if !same {
		return fmt.Errorf(
			"%s contains the data of lab %s with %d masters, %d segments, dual stack %t, pods in %s and services in %s: "+
				"use the same options, or remove the data by xebec lab down --purge --name %s --state-dir %s",
			spec.StateDir,
			old.Name,
			old.Masters,
			max(old.Segments, 1),
			old.DualStack,
			old.ClusterCIDR,
			old.ServiceCIDR,
			old.Name,
			spec.StateDir,
		)
	}
	return nil
}

func startSupervisor(spec topology.Spec) (ended <-chan struct{}, err error) {
	if err := os.MkdirAll(filepath.Dir(spec.SupervisorLog()), 0o755); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(spec.SupervisorLog(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(spec.BinDir, "xebec"), "lab", "supervise", spec.StateDir)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := supervisor.Launch(spec.Name, cmd); err != nil {
		return nil, err
	}
	over := make(chan struct{})
	// Reaped while we live; the system's init reaps it afterwards.
	go func() {
		defer close(over)
		_ = cmd.Wait()
	}()
	return over, nil
}

// awaitRunning returns once the supervisor has started everything, or has ended.
func (l *Lab) awaitRunning(ctx context.Context, ended <-chan struct{}, progress func(string)) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		status, err := l.client.Status(ctx)
		switch {
		case err == nil && status.Phase == control.Running:
			return nil
		case err == nil && status.Phase == control.Failed:
			return fmt.Errorf("start lab %s: %s", l.Spec.Name, status.Error)
		case err == nil:
			progress(status.Step)
		case !errors.Is(err, control.ErrNotRunning):
			return err
		}
		select {
		case <-ended:
			return fmt.Errorf("supervisor of the lab terminated: %s", tail(l.Spec.SupervisorLog()))
		case <-ctx.Done():
			return fmt.Errorf("start lab %s: %w", l.Spec.Name, ctx.Err())
		case <-ticker.C:
		}
	}
}

// tail returns the last lines of a file, for an error message.
func tail(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	const most = 1 << 10
	if info, err := file.Stat(); err == nil && info.Size() > most {
		_, _ = file.Seek(-most, io.SeekEnd)
	}
	data, _ := io.ReadAll(file)
	if text := strings.TrimSpace(string(data)); text != "" {
		return text
	}
	return "no output in " + path
}

// writeContext adds the lab's context to the command line's configuration and makes it the current
// one.
func (l *Lab) writeContext() error {
	path := l.Spec.ContextFile
	if path == "" {
		return nil
	}
	config, err := cliconfig.Load(path)
	if err != nil {
		return fmt.Errorf("add context of the lab: %w", err)
	}
	context := cliconfig.Context{Name: l.Spec.ContextName()}
	for _, e := range l.Spec.LoadEndpoints() {
		context.Endpoints = append(context.Endpoints, e.String())
	}
	// The data themselves: the file may belong to a person who can't read the lab's state directory.
	files := l.Spec.AdminFiles()
	for _, p := range []struct {
		from string
		to   *cliconfig.PEM
	}{{files.CA, &context.CA}, {files.Cert, &context.Cert}, {files.Key, &context.Key}} {
		if p.to.Data, err = os.ReadFile(p.from); err != nil {
			return err
		}
	}
	config.Set(context)
	config.CurrentContext = context.Name
	return saveConfig(config, path)
}

// saveConfig saves a configuration and gives it to the owner of the directory that it is in, so
// that one written under sudo can be used without.
func saveConfig(config *cliconfig.Config, path string) error {
	made := []string{path}
	dir := filepath.Dir(path)
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		made = append(made, dir)
	}
	if err := config.Save(path); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	for _, path := range made {
		if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return nil
}
