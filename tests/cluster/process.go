package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/xebec-project/xebec/internal/pki"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

// Process is one service on one master, whether it runs at the moment or not. Its methods may be
// called by several goroutines.
type Process struct {
	// Service is its name.
	Service string
	// Master is where it runs.
	Master *Master

	program []string // and its arguments before the configuration
	dir     string
	port    int
	cluster *Cluster

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	past time.Duration // CPU time of the runs before this one
}

// Usage is what a process has used.
type Usage struct {
	// CPU is the processor time, user and system, of all its runs so far.
	CPU time.Duration
	// RSS is its resident memory in bytes. PSS counts pages that several processes have, such as those
	// of the binary that all services share, in equal parts: the sum of it is what the machine holds.
	RSS, PSS int64
}

// Address is where the process serves gRPC.
func (p *Process) Address() string { return net.JoinHostPort(p.Master.Address, strconv.Itoa(p.port)) }

// Diagnostics is where it serves metrics, and profiles if its settings say so, to
// Cluster.HTTPClient.
func (p *Process) Diagnostics() string {
	return net.JoinHostPort(p.Master.Address, strconv.Itoa(p.port+1000))
}

// Name is the service and its master, such as "scheduler@master-1".
func (p *Process) Name() string { return p.Service + "@" + p.Master.Name }

// Log is the file with all that the process wrote.
func (p *Process) Log() string { return filepath.Join(p.dir, p.Service+".log") }

func (p *Process) configFile() string { return filepath.Join(p.dir, p.Service+".yaml") }

func (p *Process) configure(settings map[string]any) error {
	data, err := yaml.Marshal(settings)
	if err != nil {
		return err
	}
	return pki.WriteFile(p.configFile(), data)
}

// Start starts the process when it does not run. It does not wait until it serves.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil
	}
	log, err := os.OpenFile(p.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.program[0], append(p.program[1:len(p.program):len(p.program)], "--config", p.configFile())...)
	cmd.Stderr = log
	// It ends with the test, however that ends. A group of its own keeps an interrupt from the
	// terminal to the test alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The kernel takes the end of the thread that started a process for its parent's. Threads end
		// where a test enters namespaces by them: this one is kept for as long as the process runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait()
		p.mu.Lock()
		p.past += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		p.cmd = nil
		p.mu.Unlock()
		close(done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.Name(), err)
	}
	p.cmd, p.done = cmd, done
	return nil
}

// Running tells whether the process runs.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// Kill ends the process by SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	if done := p.signal(syscall.SIGKILL); done != nil {
		<-done
	}
}

// Pause stops the process as it is, which to others looks like a host that hangs; Resume lets it go
// on.
func (p *Process) Pause() { p.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (p *Process) Resume() { p.signal(syscall.SIGCONT) }

// signal returns a channel that closes when the process ends, nil when there is none.
func (p *Process) signal(s syscall.Signal) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(s)
	return p.done
}

// WaitServing waits until the process takes calls. It fails at once when the process has ended.
func (p *Process) WaitServing(ctx context.Context) error {
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("it did not within a minute"))
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		select {
		case <-done:
			end(errors.New("it has ended"))
		case <-ctx.Done():
		}
	}()
	ask := p.askHealth
	if p.Service == "etcd" {
		ask = p.askEtcd
	}
	if err := ask(ctx); err != nil {
		return fmt.Errorf("wait for %s to serve: %w (%w)\n%s", p.Name(), err, context.Cause(ctx), p.tail())
	}
	return nil
}

// askHealth returns when the server says that it serves: the connection is used only once its
// health is good.
func (p *Process) askHealth(ctx context.Context) error {
	conn, err := p.cluster.Dial(p.Service, p.Master)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	return err
}

// askEtcd returns when the member answers a read that needs a quorum.
func (p *Process) askEtcd(ctx context.Context) error {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + p.Address()}, TLS: p.cluster.etcd.ClientConfig(pki.AnyServer), Logger: zap.NewNop(),
	})
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		call, cancel := context.WithTimeout(ctx, time.Second)
		_, err = client.Get(call, "/xebec/none")
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// waitKnows waits until the process, a gateway, finds others well. To ask it for the cluster's
// status makes it read who is there, and use what it reads.
func (p *Process) waitKnows(ctx context.Context, others []*Process) error {
	conn, err := p.cluster.Dial(p.Service, p.Master)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not within a minute"))
	defer cancel()
	gateway := clusterv1.NewClusterServiceClient(conn)
	for {
		began := time.Now()
		status, err := gateway.Status(ctx, &clusterv1.StatusRequest{}, grpc.WaitForReady(true))
		if err != nil && ctx.Err() != nil {
			return fmt.Errorf("ask %s for the cluster's status: %w (%w)\n%s", p.Name(), err, context.Cause(ctx), p.tail())
		}
		well := make(map[string]bool)
		for _, s := range status.GetServices() {
			well[s.GetService()+"@"+s.GetHost()] = s.GetHealthy()
		}
		missing := slices.IndexFunc(others, func(o *Process) bool { return o.Service != "etcd" && !well[o.Name()] })
		if missing < 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not find %s: %w\n%s", p.Name(), others[missing].Name(), ctx.Err(), others[missing].tail())
		case <-time.After(max(10*time.Millisecond, time.Since(began))):
		}
	}
}

// tail returns the end of the process's log.
func (p *Process) tail() string {
	data, err := os.ReadFile(p.Log())
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-2000):])
}

// Usage returns what the process has used; the memory is 0 while it does not run.
func (p *Process) Usage() (Usage, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := Usage{CPU: p.past}
	if p.cmd == nil {
		return u, nil
	}
	now, err := UsageOf(p.cmd.Process.Pid)
	now.CPU += p.past
	return now, err
}

// UsageOf returns what a process of this machine has used.
func UsageOf(pid int) (Usage, error) {
	var u Usage
	root := fmt.Sprintf("/proc/%d/", pid)
	ticks, err := cpuTicks(root + "stat")
	if err != nil {
		return u, err
	}
	u.CPU = ticks
	memory, err := os.ReadFile(root + "smaps_rollup")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(memory)) {
		for prefix, field := range map[string]*int64{"Rss:": &u.RSS, "Pss:": &u.PSS} {
			if value, ok := strings.CutPrefix(line, prefix); ok {
				kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), " kB")), 10, 64)
				if err != nil {
					return u, fmt.Errorf("%ssmaps_rollup: %w", root, err)
				}
				*field = kib << 10
			}
		}
	}
	return u, nil
}

// tick is the unit of /proc/PID/stat: USER_HZ, 100 per second on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// cpuTicks reads fields 14 and 15, user and system time, of a stat file; field 2 may hold spaces,
// within parentheses.
func cpuTicks(file string) (time.Duration, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s: not as expected: %q", file, data)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return time.Duration(user+system) * tick, nil
}
