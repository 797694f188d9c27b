// Package supervisor runs a lab: it boots the machines, keeps their processes alive, opens loopback
// ports to the gateways, and does what the lab's commands ask for.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/lab/cgroup"
	"github.com/xebec-project/xebec/lab/control"
	"github.com/xebec-project/xebec/lab/machine"
	"github.com/xebec-project/xebec/lab/topology"
)

// stageLimit bounds how long a host's later processes wait for its earlier ones. Beyond it they are
// started all the same: they retry, and a status that shows them is worth more than silence.
const stageLimit = 15 * time.Second

// killLimit bounds how long a machine's processes may take to be gone after SIGKILL. The kernel
// takes its time to free what they held when many go at once and others want the processors.
const killLimit = 30 * time.Second

// Supervisor owns a running lab. Create it with New.
type Supervisor struct {
	spec topology.Spec
	log  *zap.Logger
	hier cgroup.Hierarchies
	lock *os.File

	// stop ends Run.
	stop context.CancelFunc

	mu     sync.Mutex
	status control.Status
	wire   *machine.Wire
	hosts  []*host
}

// host is a machine and its processes.
type host struct {
	topology.Host
	processes []*process

	// mu serialises what is done to the machine.
	mu      sync.Mutex
	machine *machine.Machine
	cut     bool
	cancel  context.CancelCauseFunc
	running sync.WaitGroup
}

// New makes the supervisor of the lab. It takes the lab's lock, which the kernel frees whenever
// this process ends, and fails when another supervisor has it.
func New(spec topology.Spec, log *zap.Logger) (*Supervisor, error) {
	hier, err := cgroup.Find()
	if err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(spec.LockFile(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock lab: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock lab %s: another supervisor is running: %w", spec.Name, err)
	}
	s := &Supervisor{spec: spec, log: log, hier: hier, lock: lock}
	s.status = control.Status{
		Name: spec.Name, StateDir: spec.StateDir, PID: os.Getpid(), Phase: control.Starting, Since: time.Now(), Endpoints: []string{},
	}
	for _, h := range spec.Hosts() {
		h := &host{Host: h}
		for _, def := range spec.Processes(h.Host) {
			h.processes = append(h.processes, newProcess(def, log.With(zap.String(metrics.KeyHost, h.Name))))
		}
		s.hosts = append(s.hosts, h)
	}
	return s, nil
}

// Run starts the lab and returns when everything has stopped, after ctx ends or a stop request on
// the control socket. If the start fails it waits for either too, so that the error can be read.
func (s *Supervisor) Run(ctx context.Context) error {
	defer s.lock.Close()
	ctx, s.stop = context.WithCancel(ctx)
	defer s.stop()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	server, err := s.listen()
	if err != nil {
		return err
	}
	tasks.Go(func() { s.serve(server) })
	defer os.Remove(s.spec.Socket())
	defer server.shutDown()

	err = s.up(ctx, &tasks)
	s.setPhase(control.Running, err)
	if err != nil {
		s.log.Error("Failed to start lab", zap.Error(err))
	} else {
		s.log.Info("Lab started", zap.Duration(metrics.KeyDuration, time.Since(s.status.Since)))
	}
	s.trimLogs(ctx)
	s.setPhase(control.Stopping, nil)
	return errors.Join(err, s.down())
}

func (s *Supervisor) setPhase(phase control.Phase, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Phase, s.status.Step = phase, ""
	if err != nil {
		s.status.Phase, s.status.Error = control.Failed, err.Error()
	}
}

// step tells those who wait what is being done.
func (s *Supervisor) step(text string) {
	s.log.Info("Starting", zap.String(metrics.KeyStep, text))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Step = text
}

func (s *Supervisor) up(ctx context.Context, tasks *sync.WaitGroup) error {
	s.step("disks, certificates and configuration")
	if err := s.mountDisks(); err != nil {
		return err
	}
	if err := s.spec.WriteFiles(); err != nil {
		return err
	}
	s.step("machines and the wire between them")
	wire, err := machine.CreateWire(s.spec.WireNamespace(), s.spec.WireSegments()...)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.wire = wire
	s.mu.Unlock()
	for _, h := range s.hosts {
		if err := s.boot(h); err != nil {
			return err
		}
	}
	s.step("loopback ports")
	if err := s.openProxies(ctx, tasks); err != nil {
		return err
	}
	s.step("processes")
	// Each master's etcd waits for its peers, so that the hosts must come up side by side.
	var group errgroup.Group
	for _, h := range s.hosts {
		group.Go(func() error { return s.startProcesses(ctx, h) })
	}
	return group.Wait()
}

// mountDisks puts the machines' disks into memory when the lab is ephemeral.
func (s *Supervisor) mountDisks() error {
	dir := s.spec.DisksDir()
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if !s.spec.Ephemeral {
		return nil
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=711,size=50%"); err != nil {
		return fmt.Errorf("mount tmpfs for disks: %w", err)
	}
	return nil
}

// openProxies opens a loopback port for every master's gateway, the same as last time where
// possible.
func (s *Supervisor) openProxies(ctx context.Context, tasks *sync.WaitGroup) error {
	last := s.spec.LoadEndpoints()
	var endpoints []string
	for i, h := range s.spec.MasterHosts() {
		var port uint16
		if i < len(last) {
			port = last[i].Port()
		}
		p, err := listenProxy(s.wire, h.GatewayAddr(), port, s.log.With(zap.String(metrics.KeyGateway, h.Name)))
		if err != nil {
			return fmt.Errorf("open loopback port: %w", err)
		}
		tasks.Go(func() { p.serve(ctx) })
		endpoints = append(endpoints, p.addr())
	}
	s.mu.Lock()
	s.status.Endpoints = endpoints
	s.mu.Unlock()
	return s.spec.SaveEndpoints(endpoints)
}

// boot brings the machine of a host into being. The caller starts its processes.
func (s *Supervisor) boot(h *host) error {
	m, err := machine.Boot(s.hier, s.wire, machine.Config{
		Name: h.Name, Namespace: h.Namespace, Addr: h.Addr, Addr6: h.Addr6, Cgroup: h.Cgroup, Weight: h.Weight(),
		Keep:  []string{s.spec.StateDir, s.spec.DisksDir(), s.spec.BinDir},
		Files: map[string]string{"/etc/hosts": h.HostsFile(), "/etc/resolv.conf": h.ResolverFile()},
	})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.machine, h.cut = m, false
	return nil
}

// startProcesses starts a booted host's processes stage by stage and returns once all are started.
func (s *Supervisor) startProcesses(ctx context.Context, h *host) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.machine == nil {
		return fmt.Errorf("%s is down", h.Name)
	}
	// Not derived from ctx: stopping is done host by host, with a cause.
	running, cancel := context.WithCancelCause(context.Background())
	h.cancel = cancel
	where := h.machine
	stage := 0
	for i, p := range h.processes {
		if p.def.Stage > stage {
			stage = p.def.Stage
			for _, earlier := range h.processes[:i] {
				s.awaitReady(ctx, h, earlier)
			}
		}
		h.running.Go(func() { p.run(running, where) })
	}
	return ctx.Err()
}

// awaitReady waits until the process listens, ctx ends or stageLimit is over.
func (s *Supervisor) awaitReady(ctx context.Context, h *host, p *process) {
	if p.def.Ready == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stageLimit)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		pid := p.snapshot().PID
		if strings.HasPrefix(p.def.Ready, "/") {
			if _, err := os.Stat(filepath.Join("/proc", fmt.Sprint(pid), "root", p.def.Ready)); pid != 0 && err == nil {
				return
			}
		} else if pid != 0 && slices.Contains(listeners(pid), p.def.Ready) {
			return
		}
		select {
		case <-ctx.Done():
			s.log.Warn("Process not started in time", zap.String(metrics.KeyHost, h.Name), zap.String(metrics.KeyProcess, p.def.Name))
			return
		case <-ticker.C:
		}
	}
}

// trimLogs keeps the logs from filling the disk until ctx ends.
func (s *Supervisor) trimLogs(ctx context.Context) {
	ticker := time.NewTicker(30 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			for _, h := range s.hosts {
				for _, p := range h.processes {
					if err := trimLog(p.def.Log, maxLog); err != nil {
						s.log.Warn("Failed to trim log", zap.String(metrics.KeyFile, p.def.Log), zap.Error(err))
					}
				}
			}
		}
	}
}

// down ends every process, in order where possible, and takes the machines and the wire away.
func (s *Supervisor) down() error {
	s.log.Info("Stopping")
	var group errgroup.Group
	for _, h := range s.hosts {
		group.Go(func() error {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.halt(nil)
		})
	}
	err := group.Wait()
	if s.wire != nil {
		err = errors.Join(err, s.wire.Delete())
	}
	return err
}

// halt ends the machine: with errKilled as cause all at once, otherwise after asking its processes
// to end. A machine that is down already is no error. The caller holds the lock.
func (h *host) halt(cause error) error {
	if h.machine == nil {
		return nil
	}
	if h.cancel != nil {
		h.cancel(cause)
	}
	if cause != nil {
		// At once, before a process's end can be noticed by the others.
		if err := h.kill(); err != nil {
			return err
		}
	}
	h.running.Wait()
	// What outlives its daemon: containers, their shims, shells.
	err := h.kill()
	err = errors.Join(err, h.machine.Close())
	h.machine, h.cancel, h.cut = nil, nil, false
	return err
}

// kill ends what still runs in the machine.
func (h *host) kill() error {
	ctx, cancel := context.WithTimeout(context.Background(), killLimit)
	defer cancel()
	return h.machine.Kill(ctx)
}

// find returns the host and, when the target names one, the process.
func (s *Supervisor) find(target string) (*host, *process, error) {
	hostName, processName, err := topology.ParseTarget(target)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(s.hosts, func(h *host) bool { return h.Name == hostName })
	if i < 0 {
		var names []string
		for _, h := range s.hosts {
			names = append(names, h.Name)
		}
		return nil, nil, fmt.Errorf("no host %q: want one of %s", hostName, strings.Join(names, ", "))
	}
	h := s.hosts[i]
	if processName == "" {
		return h, nil, nil
	}
	i = slices.IndexFunc(h.processes, func(p *process) bool { return p.def.Name == processName })
	if i < 0 {
		var names []string
		for _, p := range h.processes {
			names = append(names, p.def.Name)
		}
		return nil, nil, fmt.Errorf("no process %q on %s: want one of %s", processName, h.Name, strings.Join(names, ", "))
	}
	return h, h.processes[i], nil
}

// Kill kills a process, or a whole host as a power cut would.
func (s *Supervisor) Kill(_ context.Context, r control.Request) error {
	h, p, err := s.find(r.Target)
	if err != nil {
		return err
	}
	if p != nil {
		return p.kill(r.Hold)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.machine == nil {
		return fmt.Errorf("%s is already down", h.Name)
	}
	if r.PowerOff {
		if err := s.wire.Cut(h.Name); err != nil {
			return err
		}
	}
	s.log.Info("Killing host", zap.String(metrics.KeyHost, h.Name), zap.Bool(metrics.KeyPowerOff, r.PowerOff))
	return h.halt(errKilled)
}

// Start boots a host that is down, or starts a process that is held or waits for its restart. What
// runs is left alone.
func (s *Supervisor) Start(ctx context.Context, r control.Request) error {
	h, p, err := s.find(r.Target)
	if err != nil {
		return err
	}
	h.mu.Lock()
	down := h.machine == nil
	h.mu.Unlock()
	switch {
	case down && p != nil:
		return fmt.Errorf("%s is down: start it by xebec lab start %s", h.Name, h.Name)
	case p != nil:
		p.start()
		return nil
	case !down:
		for _, p := range h.processes {
			p.start()
		}
		return nil
	}
	s.log.Info("Starting host", zap.String(metrics.KeyHost, h.Name))
	if err := s.boot(h); err != nil {
		return err
	}
	return s.startProcesses(ctx, h)
}

// Cut unplugs a host from the wire.
func (s *Supervisor) Cut(_ context.Context, r control.Request) error {
	return s.plug(r, true)
}

// Heal plugs a host in again, or every host when none is named.
func (s *Supervisor) Heal(_ context.Context, r control.Request) error {
	if r.Target != "" {
		return s.plug(r, false)
	}
	var errs []error
	for _, h := range s.hosts {
		h.mu.Lock()
		cut := h.cut
		h.mu.Unlock()
		if cut {
			errs = append(errs, s.plug(control.Request{Target: h.Name}, false))
		}
	}
	return errors.Join(errs...)
}

func (s *Supervisor) plug(r control.Request, cut bool) error {
	h, p, err := s.find(r.Target)
	if err != nil {
		return err
	}
	if p != nil {
		return fmt.Errorf("cannot disconnect a process: want its host %s", h.Name)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.machine == nil {
		return fmt.Errorf("%s is down", h.Name)
	}
	act := s.wire.Heal
	if cut {
		act = s.wire.Cut
	}
	if err := act(h.Name); err != nil {
		return err
	}
	h.cut = cut
	s.log.Info("Wire changed", zap.String(metrics.KeyHost, h.Name), zap.Bool(metrics.KeyCut, cut))
	return nil
}

// Status tells how everything is.
func (s *Supervisor) Status() control.Status {
	s.mu.Lock()
	status := s.status
	s.mu.Unlock()
	status.Hosts = nil
	for _, h := range s.hosts {
		status.Hosts = append(status.Hosts, h.snapshot())
	}
	return status
}

func (h *host) snapshot() control.Host {
	out := control.Host{Name: h.Name, Role: string(h.Role), Addr: h.Addr.String(), State: control.Down}
	// While the machine is being started or killed its processes tell how far that is.
	if h.mu.TryLock() {
		if h.machine != nil {
			refs := h.machine.References()
			out.References, out.State = &refs, control.Up
		}
		if h.cut {
			out.State = control.Cut
		}
		h.mu.Unlock()
	} else {
		out.State = control.Changing
	}
	for _, p := range h.processes {
		process := p.snapshot()
		if process.PID != 0 {
			process.Listening = listeners(process.PID)
		}
		out.Processes = append(out.Processes, process)
	}
	return out
}

// Launch starts a supervisor's process, cmd, in the lab's own cgroup, so that it is found and ended
// with the lab.
func Launch(lab string, cmd *exec.Cmd) error {
	hier, err := cgroup.Find()
	if err != nil {
		return err
	}
	path := topology.Cgroup(lab) + "/supervisor"
	if err := hier.Create(topology.Cgroup(lab), true); err != nil {
		return err
	}
	if err := hier.Weigh(topology.Cgroup(lab), topology.LabWeight); err != nil {
		return err
	}
	if err := hier.Create(path, false); err != nil {
		return err
	}
	return machine.StartOutside(hier, path, cmd)
}
