// Package lab runs whole clusters on one Linux host: every simulated machine is a set of namespaces
// and cgroups, and nothing of a lab exists in the host's own network. See package machine for how a
// machine is made and package supervisor for the process that owns a running lab.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/lab/cgroup"
	"github.com/xebec-project/xebec/lab/control"
	"github.com/xebec-project/xebec/lab/topology"
)

// DefaultStateDir is where the lab of that name keeps its files when nothing else is said.
func DefaultStateDir(name string) string { return filepath.Join("/var/lib/xebec/lab", name) }

// Lab is a lab that was brought up. Its methods may be called concurrently.
type Lab struct {
	// Spec says what the lab consists of.
	Spec   topology.Spec
	client *control.Client
}

// Open finds the lab of that name, whether or not it still runs. The error says how to get a lab
// when there is none.
func Open(name string) (*Lab, error) {
	dir, err := registered(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no lab %q on this machine: start it by xebec lab up --name %s", name, name)
	}
	if err != nil {
		return nil, err
	}
	spec, err := topology.Load(dir)
	if err != nil {
		return nil, err
	}
	return &Lab{Spec: spec, client: control.NewClient(spec.Socket())}, nil
}

// Status returns the state of every machine and process. When the supervisor is gone it is
// control.ErrNotRunning.
func (l *Lab) Status(ctx context.Context) (*control.Status, error) {
	status, err := l.client.Status(ctx)
	return status, l.explain(err)
}

// KillOptions say how to kill.
type KillOptions struct {
	// Hold keeps a process down until Start.
	Hold bool
	// PowerOff unplugs a host first: its peers see silence, as after a power cut, not closed
	// connections.
	PowerOff bool
}

// Kill sends SIGKILL to a process ("master-2/scheduler"), which is started again unless held, or to
// everything on a host ("node-1"), containers included, which then stays down until Start.
func (l *Lab) Kill(ctx context.Context, target string, options KillOptions) error {
	return l.do(ctx, control.PathKill, control.Request{Target: target, Hold: options.Hold, PowerOff: options.PowerOff})
}

// Start brings up a host that is down or a process that is held. What runs is left alone.
func (l *Lab) Start(ctx context.Context, target string) error {
	return l.do(ctx, control.PathStart, control.Request{Target: target})
}

// Cut unplugs a host from the wire.
func (l *Lab) Cut(ctx context.Context, host string) error {
	return l.do(ctx, control.PathCut, control.Request{Target: host})
}

// Heal plugs a host in again; every host when the name is empty.
func (l *Lab) Heal(ctx context.Context, host string) error {
	return l.do(ctx, control.PathHeal, control.Request{Target: host})
}

func (l *Lab) do(ctx context.Context, path string, request control.Request) error {
	return l.explain(l.client.Do(ctx, path, request))
}

// explain adds what to do to the error of a call that found no supervisor or was refused entry.
func (l *Lab) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("lab %s is owned by root: run the command with sudo", l.Spec.Name)
	case errors.Is(err, control.ErrNotRunning):
		return fmt.Errorf(
			"lab %s: %w, its supervisor has terminated: clean up by xebec lab down --name %s",
			l.Spec.Name,
			control.ErrNotRunning,
			l.Spec.Name,
		)
	}
	return err
}

// StartIn starts cmd on a host of the lab: in its namespaces, with its cgroup. The caller waits for
// it. It ends with the host or the lab at the latest.
func (l *Lab) StartIn(ctx context.Context, host string, cmd *exec.Cmd) error {
	status, err := l.Status(ctx)
	if err != nil {
		return err
	}
	for _, h := range status.Hosts {
		if h.Name != host {
			continue
		}
		if h.References == nil {
			return fmt.Errorf("%s is %s", host, h.State)
		}
		hier, err := cgroup.Find()
		if err != nil {
			return err
		}
		return h.References.Start(hier, cmd, "shell")
	}
	return fmt.Errorf("lab %s has no host %q", l.Spec.Name, host)
}

// LogFile returns the log of "supervisor" or of a process such as "master-1/etcd".
func (l *Lab) LogFile(target string) (string, error) {
	if target == "supervisor" {
		return l.Spec.SupervisorLog(), nil
	}
	hostName, processName, err := topology.ParseTarget(target)
	if err != nil {
		return "", err
	}
	for _, h := range l.Spec.Hosts() {
		if h.Name != hostName {
			continue
		}
		var names []string
		for _, p := range l.Spec.Processes(h) {
			if p.Name == processName {
				return p.Log, nil
			}
			names = append(names, h.Name+"/"+p.Name)
		}
		return "", fmt.Errorf("no log %q: want one of %s", target, strings.Join(names, ", "))
	}
	return "", fmt.Errorf("lab %s has no host %q", l.Spec.Name, hostName)
}

// Dial connects to the lab's gateways as its administrator. The caller closes the connection.
func (l *Lab) Dial() (*grpc.ClientConn, error) {
	return l.dial(l.Spec.LoadEndpoints())
}

// dial connects to some of the lab's gateways.
func (l *Lab) dial(gateways []netip.AddrPort) (*grpc.ClientConn, error) {
	if len(gateways) == 0 {
		return nil, fmt.Errorf("lab %s has no endpoints", l.Spec.Name)
	}
	var addrs []string
	for _, e := range gateways {
		addrs = append(addrs, e.String())
	}
	source, err := pki.NewSource(l.Spec.AdminFiles())
	if err != nil {
		return nil, err
	}
	return rpc.Dial(rpc.SchemeStatic+":///"+strings.Join(addrs, ","), rpc.ClientConfig{TLS: source})
}

// supervised says whether a supervisor of the lab lives, by the lock that it holds.
func supervised(spec topology.Spec) (bool, error) {
	lock, err := os.Open(spec.LockFile())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer lock.Close()
	err = unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}
