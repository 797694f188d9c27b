// Package resolver keeps the node's DNS server running as a process of its own, which answers pods
// from the last state that it was given while the agent restarts, is upgraded or is away.
//
// The process is the agent's program with another argument (Run). It is started with the sockets
// that it answers at and with a control socket, in a directory that only root can enter. Each agent
// connects to it, sends the services and endpoint slices that it knows and then their changes; the
// process answers from the ones before until the new ones are complete. A process of another
// version or with other settings hands its sockets over to its successor and serves them until that
// knows the cluster too, so that no query is lost. A process that died is replaced at once.
package resolver

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/dns"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

const (
	// answerTimeout bounds the wait for the process's answers; a process that does not answer is
	// replaced.
	answerTimeout = 10 * time.Second
	minRetry      = 50 * time.Millisecond
	maxRetry      = 5 * time.Second
)

// Settings is what a DNS process is started with and cannot change.
type Settings struct {
	// Version is the program's; New adds when it was built. An agent of another version replaces the
	// process.
	Version string `json:"version"`
	// Domain, Address, Upstreams and CIDRs are those of dns.Config.
	Domain    string           `json:"domain"`
	Address   netip.AddrPort   `json:"address"`
	Upstreams []netip.AddrPort `json:"upstreams"`
	CIDRs     []netip.Prefix   `json:"cidrs"`
}

func (s Settings) config() dns.Config {
	return dns.Config{Domain: s.Domain, Address: s.Address, Upstreams: s.Upstreams, CIDRs: s.CIDRs}
}

// Config configures the process.
type Config struct {
	Settings Settings
	// Dir is a directory for the control socket, made when it is missing. The process ends when it is
	// removed.
	Dir string
	// Program is started as the process; empty is the running program.
	Program string
	Log     *zap.Logger
}

// Resolver is an agent's hold on the DNS process. Its On functions and Synced are informers'
// handlers, as those of dns.Records; they never block. The objects that they are given are kept and
// must not change.
type Resolver struct {
	cfg  Config
	wake chan struct{}

	mu sync.Mutex
	// restored and synced say that the known objects are those of a file, or all there are.
	restored, synced bool
	known            map[name]scheme.Object
	// changed are the objects to be sent to the process that is connected.
	changed map[name]scheme.Object
}

// name is an object's: services and slices may have equal ones.
type name struct {
	slice           bool
	namespace, name string
}

// New checks the settings and returns a Resolver that has not started anything.
func New(cfg Config) (*Resolver, error) {
	if _, err := dns.New(cfg.Settings.config(), dns.NewRecords(), cfg.Log); err != nil {
		return nil, err
	}
	if cfg.Program == "" {
		var err error
		if cfg.Program, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	// A program of the same version may be another build of it.
	program, err := os.Stat(cfg.Program)
	if err != nil {
		return nil, err
	}
	cfg.Settings.Version += " " + program.ModTime().UTC().Format(time.RFC3339Nano)
	return &Resolver{cfg: cfg, wake: make(chan struct{}, 1), known: map[name]scheme.Object{}, changed: map[name]scheme.Object{}}, nil
}

// OnService takes an informer's event: old is nil when the service was created, now is nil when it
// was deleted.
func (r *Resolver) OnService(old, now *corev1.Service) {
	if now == nil {
		r.note(false, old, nil)
		return
	}
	r.note(false, now, now)
}

// OnEndpointSlice takes an informer's event: old is nil when the slice was created, now is nil when
// it was deleted.
func (r *Resolver) OnEndpointSlice(old, now *discoveryv1.EndpointSlice) {
	if now == nil {
		r.note(true, old, nil)
		return
	}
	r.note(true, now, now)
}

func (r *Resolver) note(slice bool, named, now scheme.Object) {
	key := nameOf(slice, named)
	r.mu.Lock()
	if now == nil {
		delete(r.known, key)
		r.changed[key] = deleted{named}
	} else {
		r.known[key] = now
		r.changed[key] = now
	}
	r.mu.Unlock()
	r.nudge()
}

// deleted marks an object among the changes that is there no longer.
type deleted struct{ scheme.Object }

func nameOf(slice bool, o scheme.Object) name {
	return name{slice, o.GetMetadata().GetNamespace(), o.GetMetadata().GetName()}
}

// Restored says that all objects of an earlier moment have been noted. They are for a process that
// knows nothing: one that answers already knows what came later.
func (r *Resolver) Restored() {
	r.mu.Lock()
	r.restored = true
	r.mu.Unlock()
	r.nudge()
}

// Synced says that all objects there are have been noted.
func (r *Resolver) Synced() {
	r.mu.Lock()
	r.synced = true
	r.mu.Unlock()
	r.nudge()
}

func (r *Resolver) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Start sees that a process serves the address, in the network namespace of the calling thread when
// none does yet. It returns an error when the address can't be used.
func (r *Resolver) Start(ctx context.Context) error {
	if err := os.MkdirAll(r.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("DNS: %w", err)
	}
	conn, _, err := r.connect(ctx)
	if err == nil {
		return conn.Close()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := r.startFresh(ctx); err != nil {
		return fmt.Errorf("DNS: %w", err)
	}
	return nil
}

// Run keeps the process up and up to date until ctx ends, and leaves it as it is then.
func (r *Resolver) Run(ctx context.Context) error {
	retry := minRetry
	for {
		began := time.Now()
		err := r.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > time.Minute {
			retry = minRetry
		}
		r.cfg.Log.Warn("DNS process ended unexpectedly", zap.Error(err), zap.Duration(metrics.KeyRetryAfter, retry))
		timer := time.NewTimer(retry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		retry = min(2*retry, maxRetry)
	}
}

// session connects to the process, replaces it if need be, and sends it what there is until either
// fails.
func (r *Resolver) session(ctx context.Context) error {
	conn, first, err := r.connect(ctx)
	if ctx.Err() != nil {
		// An agent that stops must not take the process for a dead one.
		if err == nil {
			_ = conn.Close()
		}
		return ctx.Err()
	}
	if err != nil {
		if err := r.startFresh(ctx); err != nil {
			return err
		}
		if conn, first, err = r.connect(ctx); err != nil {
			return err
		}
	}
	if !reflect.DeepEqual(first.Settings, r.cfg.Settings) {
		if conn, err = r.replace(ctx, conn, first); err != nil {
			return err
		}
	}
	return r.send(ctx, conn, first.Synced)
}

// replace starts a successor with the sockets of the process at a connection, which it closes, and
// returns a connection to the successor. That one ends the process before once it serves.
func (r *Resolver) replace(ctx context.Context, old *net.UnixConn, first hello) (*net.UnixConn, error) {
	defer old.Close()
	if err := r.succeed(old, first); err != nil {
		r.cfg.Log.Warn("DNS process did not hand over its sockets, stopping it before starting another", zap.Error(err))
		if err := r.startFresh(ctx); err != nil {
			return nil, err
		}
	}
	conn, _, err := r.connect(ctx)
	return conn, err
}

func (r *Resolver) succeed(old *net.UnixConn, first hello) error {
	// It is the process at the connection if that still answers afterwards.
	fd, err := unix.PidfdOpen(first.PID, 0)
	if err != nil {
		return fmt.Errorf("process %d: %w", first.PID, err)
	}
	predecessor := os.NewFile(uintptr(fd), "predecessor")
	defer predecessor.Close()
	files, err := handOver(old)
	if err != nil {
		return err
	}
	r.cfg.Log.Info("Replacing the DNS process",
		zap.String(metrics.KeyPreviousVersion, first.Settings.Version), zap.String(metrics.KeyVersion, r.cfg.Settings.Version))
	return errors.Join(r.start(files[0], files[1], predecessor), closeAll(files))
}

func handOver(conn *net.UnixConn) ([]*os.File, error) {
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, err
	}
	if err := writeFrame(conn, opHandOver, nil); err != nil {
		return nil, err
	}
	files, err := receiveFiles(conn, 2)
	if err != nil {
		return nil, err
	}
	return files, conn.SetDeadline(time.Time{})
}

// send sends all objects once they are known, and changes from then on. Answering says that the
// process, or the one before it, answers from objects already. It closes the connection.
func (r *Resolver) send(ctx context.Context, conn *net.UnixConn, answering bool) error {
	ended := make(chan error, 1)
	go func() {
		for reader := bufio.NewReader(conn); ; {
			if _, _, err := readFrame(reader); err != nil {
				ended <- err
				return
			}
		}
	}()
	defer func() {
		_ = conn.Close()
		<-ended
	}()
	w := bufio.NewWriter(conn)
	for whole := false; ; {
		r.mu.Lock()
		changes, synced := r.changed, false
		switch {
		case !whole && !r.synced && (answering || !r.restored):
			changes = nil
		case !whole:
			changes, synced = make(map[name]scheme.Object, len(r.known)), true
			for key, o := range r.known {
				changes[key] = o
			}
			whole = true
			clear(r.changed)
		default:
			r.changed = map[name]scheme.Object{}
		}
		r.mu.Unlock()
		if err := conn.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
			return err
		}
		for key, o := range changes {
			if err := writeObject(w, key, o); err != nil {
				return err
			}
		}
		if synced {
			if err := writeFrame(w, opSynced, nil); err != nil {
				return err
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			ended <- err
			return fmt.Errorf("connection to the DNS process: %w", err)
		case <-r.wake:
		}
	}
}

func writeObject(w *bufio.Writer, key name, o scheme.Object) error {
	what := opService
	gone, isGone := o.(deleted)
	switch {
	case key.slice && isGone:
		what, o = opSliceDeleted, gone.Object
	case key.slice:
		what = opSlice
	case isGone:
		what, o = opServiceDeleted, gone.Object
	}
	return writeMessage(w, what, o)
}

// connect returns a connection to the process that there is, and what that said first.
func (r *Resolver) connect(ctx context.Context) (*net.UnixConn, hello, error) {
	var first hello
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	dialed, err := new(net.Dialer).DialContext(ctx, "unix", socketPath(r.cfg.Dir))
	if err != nil {
		return nil, first, err
	}
	conn := dialed.(*net.UnixConn)
	fail := func(err error) (*net.UnixConn, hello, error) {
		_ = conn.Close()
		return nil, first, fmt.Errorf("DNS process does not answer: %w", err)
	}
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return fail(err)
	}
	// Not read ahead of: descriptors may come next.
	what, content, err := readFrame(bufio.NewReaderSize(oneByOne{conn}, 16))
	if err != nil {
		return fail(err)
	}
	if what != opHello {
		return fail(fmt.Errorf("unexpected first frame %q", what))
	}
	if err := json.Unmarshal(content, &first); err != nil {
		return fail(err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return fail(err)
	}
	return conn, first, nil
}

// startFresh ends what a process before this agent may have left, binds the address and starts a
// process.
func (r *Resolver) startFresh(ctx context.Context) error {
	if err := r.endStuck(); err != nil {
		return err
	}
	udp, tcp, err := dns.Bind(ctx, r.cfg.Settings.Address)
	if err != nil {
		return err
	}
	defer udp.Close()
	defer tcp.Close()
	return r.start(udp, tcp, nil)
}

// start starts a process with the sockets and returns once agents find it. Predecessor, when not
// nil, is a pidfd of the process that serves them until then.
func (r *Resolver) start(udp, tcp, predecessor *os.File) error {
	argument, err := json.Marshal(launch{Settings: r.cfg.Settings, Dir: r.cfg.Dir, Replace: predecessor != nil})
	if err != nil {
		return err
	}
	next := nextSocketPath(r.cfg.Dir)
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	control, err := net.ListenUnix("unix", &net.UnixAddr{Name: next, Net: "unix"})
	if err != nil {
		return err
	}
	control.SetUnlinkOnClose(false)
	defer control.Close()
	controlFile, err := control.File()
	if err != nil {
		return err
	}
	defer controlFile.Close()
	ready, its, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := &exec.Cmd{
		Path: r.cfg.Program, Args: []string{"xebec-agent", Subcommand, string(argument)}, Dir: "/",
		Env: []string{"GOMAXPROCS=2"}, Stdout: os.Stderr, Stderr: os.Stderr,
		ExtraFiles: []*os.File{udp, tcp, controlFile, its}, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if predecessor != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, predecessor)
	}
	err = cmd.Start()
	_ = its.Close()
	if err != nil {
		return fmt.Errorf("start the DNS process: %w", err)
	}
	// Its end is for the agent to collect, as long as there is the agent that started it.
	go func() { _ = cmd.Wait() }()
	// The process closes its end when agents find it, and also when it ends; then nothing answers at
	// the control socket.
	if err := ready.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := ready.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return errors.Join(fmt.Errorf("the DNS process is not ready after %s: %w", answerTimeout, err), cmd.Process.Kill())
	}
	return nil
}

// endStuck kills the last process that was started, which does not answer, if it is still there.
func (r *Resolver) endStuck() error {
	content, err := os.ReadFile(pidPath(r.cfg.Dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(content))
	if err != nil {
		return fmt.Errorf("%s: %w", pidPath(r.cfg.Dir), err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("DNS process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	// The number may be another's by now; while the descriptor is held it stays what it is.
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || !strings.Contains(string(line), "\x00"+Subcommand+"\x00") || !strings.Contains(string(line), strconv.Quote(r.cfg.Dir)) {
		return nil // not ours, or gone
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stop DNS process %d: %w", pid, err)
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(answerTimeout.Milliseconds()))
	if err == nil && n == 0 {
		err = errors.New("process does not exit")
	}
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("stop DNS process %d: %w", pid, err)
	}
	return nil
}

// Gather returns the process's metrics; it implements prometheus.Gatherer. Without a process there
// are none, which xebec_dns_up says.
func (r *Resolver) Gather() ([]*dto.MetricFamily, error) {
	families, err := r.gather()
	up := prometheus.NewGauge(prometheus.GaugeOpts{Name: metrics.DNSUp, Help: "1 while the node's DNS process answers its agent, else 0."})
	if err == nil {
		up.Set(1)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(up)
	own, err := registry.Gather()
	return append(families, own...), err
}

func (r *Resolver) gather() ([]*dto.MetricFamily, error) {
	conn, _, err := r.connect(context.Background())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, err
	}
	if err := writeFrame(conn, opMetrics, nil); err != nil {
		return nil, err
	}
	var families []*dto.MetricFamily
	for reader := bufio.NewReader(conn); ; {
		_, content, err := readFrame(reader)
		if err != nil {
			return nil, err
		}
		if len(content) == 0 {
			return families, nil
		}
		family := new(dto.MetricFamily)
		if err := proto.Unmarshal(content, family); err != nil {
			return nil, err
		}
		families = append(families, family)
	}
}

// oneByOne reads no more than is asked for at a time.
type oneByOne struct{ conn net.Conn }

func (o oneByOne) Read(b []byte) (int, error) { return o.conn.Read(b[:1]) }
