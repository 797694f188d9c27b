package resolver

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/dns"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

// Subcommand is the argument that makes the agent's program the DNS process. Its launch
// configuration follows as JSON.
const Subcommand = "dns"

// Descriptors that the process is started with.
const (
	udpFile = 3 + iota
	tcpFile
	controlFile
	// readyFile is closed once the control socket has its name.
	readyFile
	// predecessorFile is a pidfd of the process that still serves the sockets; only with
	// launch.Replace.
	predecessorFile
)

// abandonedEvery is how often the process looks whether its directory is still there.
const abandonedEvery = 5 * time.Second

// launch is the process's argument.
type launch struct {
	Settings Settings `json:"settings"`
	// Dir is the directory of the control socket: the process ends when it is removed.
	Dir string `json:"dir"`
	// Replace says that another process still serves the sockets. This one does, and ends the other,
	// once it knows the cluster.
	Replace bool `json:"replace"`
}

// hello is what the process says first on a connection.
type hello struct {
	Settings Settings `json:"settings"`
	PID      int      `json:"pid"`
	// Synced says that an agent has sent all that it knows.
	Synced bool `json:"synced"`
}

// Asked reports whether the process was started to be the DNS process.
func Asked() bool { return len(os.Args) == 3 && os.Args[1] == Subcommand }

// Run is the life of the DNS process, which an agent started with its sockets. It returns the exit
// code.
func Run() int {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	debug.SetGCPercent(50)
	log, err := zap.NewProduction()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	log = log.Named(Subcommand)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	var l launch
	if err := json.Unmarshal([]byte(os.Args[2]), &l); err != nil {
		log.Error("Invalid argument", zap.Error(err))
		return 2
	}
	p, err := newProcess(l, os.NewFile(udpFile, "udp"), os.NewFile(tcpFile, "tcp"), os.NewFile(controlFile, "control"), log)
	if err == nil {
		err = p.announce(os.NewFile(readyFile, "ready"))
	}
	if err == nil {
		err = p.run(ctx)
	}
	if err != nil {
		log.Error("Stopping DNS process", zap.Error(err))
		return 1
	}
	log.Info("Stopping DNS process")
	return 0
}

// process is the DNS server with its control socket.
type process struct {
	launch
	log      *zap.Logger
	server   *dns.Server
	metrics  *prometheus.Registry
	udp, tcp *os.File
	control  *net.UnixListener
	// serve is closed when the server is to answer.
	serve       chan struct{}
	once        sync.Once
	predecessor *os.File // nil for none
	synced      atomic.Bool
	end         context.CancelFunc
}

// newProcess takes the files over.
func newProcess(l launch, udp, tcp, control *os.File, log *zap.Logger) (*process, error) {
	p := &process{launch: l, log: log, metrics: prometheus.NewRegistry(), udp: udp, tcp: tcp, serve: make(chan struct{})}
	p.metrics.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{Namespace: metrics.DNSProcessNamespace}))
	cfg := l.Settings.config()
	cfg.Metrics = dns.NewMetrics(p.metrics)
	var err error
	if p.server, err = dns.New(cfg, dns.NewRecords(), log); err != nil {
		return nil, err
	}
	if err := p.server.Adopt(udp, tcp); err != nil {
		return nil, err
	}
	listener, err := net.FileListener(control)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	_ = control.Close()
	p.control = listener.(*net.UnixListener)
	p.control.SetUnlinkOnClose(false) // the next process has one of the same name
	if l.Replace {
		p.predecessor = os.NewFile(predecessorFile, "predecessor")
	} else {
		close(p.serve)
	}
	return p, nil
}

// announce makes the process the one that agents find. An agent that started it may have died by
// now.
func (p *process) announce(ready *os.File) error {
	err := errors.Join(
		os.WriteFile(pidPath(p.Dir), []byte(strconv.Itoa(os.Getpid())), 0o600),
		os.Rename(nextSocketPath(p.Dir), socketPath(p.Dir)),
	)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return ready.Close()
}

// endPredecessor asks the process that served the sockets before to finish what it works on and to
// end.
func (p *process) endPredecessor() {
	if p.predecessor == nil {
		return
	}
	if err := unix.PidfdSendSignal(int(p.predecessor.Fd()), unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		p.log.Error("Failed to stop the previous DNS process", zap.Error(err))
	}
}

func (p *process) run(ctx context.Context) error {
	ctx, p.end = context.WithCancel(ctx)
	defer p.end()
	p.log.Info("Starting DNS process", zap.String(metrics.KeyVersion, p.Settings.Version), zap.Bool(metrics.KeyReplaces, p.Replace))
	var group errgroup.Group
	group.Go(func() error {
		select {
		case <-ctx.Done():
			p.endPredecessor() // which a process after this one does not know
			return nil
		case <-p.serve:
		}
		defer p.end()
		if err := p.server.Serve(ctx); !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
	group.Go(func() error { return p.listen(ctx) })
	group.Go(func() error { return p.watchDir(ctx) })
	return group.Wait()
}

// watchDir ends the process once its directory is gone: the node was removed from the cluster.
func (p *process) watchDir(ctx context.Context) error {
	tick := time.NewTicker(abandonedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, err := os.Stat(p.Dir); errors.Is(err, os.ErrNotExist) {
			p.log.Info("Directory was removed", zap.String(metrics.KeyDirectory, p.Dir))
			p.end()
			return nil
		}
	}
}

// listen serves the control socket until ctx ends. Agents are root, as the socket's directory has
// it.
func (p *process) listen(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = p.control.Close() })()
	var group errgroup.Group
	defer func() { _ = group.Wait() }()
	for {
		conn, err := p.control.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("control socket: %w", err)
		}
		group.Go(func() error {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			if err := p.converse(conn); ctx.Err() == nil && !errors.Is(err, io.EOF) {
				p.log.Warn("Control connection ended", zap.Error(err))
			}
			return nil
		})
	}
}

// converse follows one agent. What the server answers from stays as it is until a new agent has
// sent all that it knows.
func (p *process) converse(conn *net.UnixConn) error {
	first, err := json.Marshal(hello{p.Settings, os.Getpid(), p.synced.Load()})
	if err != nil {
		return err
	}
	if err := writeFrame(conn, opHello, first); err != nil {
		return err
	}
	state := state{records: dns.NewRecords(), slices: map[name]*discoveryv1.EndpointSlice{}}
	r := bufio.NewReader(conn)
	for {
		what, content, err := readFrame(r)
		if err != nil {
			return err
		}
		switch what {
		case opHandOver:
			err = sendFiles(conn, p.udp, p.tcp)
		case opSynced:
			state.records.Synced()
			p.server.SetRecords(state.records)
			p.synced.Store(true)
			if p.predecessor != nil {
				p.once.Do(func() {
					close(p.serve)
					p.endPredecessor()
				})
			}
			err = writeFrame(conn, opSynced, nil)
		case opMetrics:
			err = p.sendMetrics(conn)
		default:
			err = state.change(what, content)
		}
		if err != nil {
			return err
		}
	}
}

// state is what one agent has sent.
type state struct {
	records *dns.Records
	slices  map[name]*discoveryv1.EndpointSlice
}

// change takes a frame's object.
func (s *state) change(what op, content []byte) error {
	switch what {
	case opService, opServiceDeleted:
		service := new(corev1.Service)
		if err := proto.Unmarshal(content, service); err != nil {
			return err
		}
		if what == opServiceDeleted {
			s.records.OnService(service, nil)
		} else {
			s.records.OnService(nil, service)
		}
	case opSlice, opSliceDeleted:
		slice := new(discoveryv1.EndpointSlice)
		if err := proto.Unmarshal(content, slice); err != nil {
			return err
		}
		key := nameOf(true, slice)
		was := s.slices[key] // may have belonged to another service
		if what == opSlice {
			s.records.OnEndpointSlice(was, slice)
			s.slices[key] = slice
		} else if was != nil {
			s.records.OnEndpointSlice(was, nil)
			delete(s.slices, key)
		}
	default:
		return fmt.Errorf("unknown frame %q", what)
	}
	return nil
}

func (p *process) sendMetrics(conn net.Conn) error {
	families, err := p.metrics.Gather()
	if err != nil {
		return err
	}
	for _, family := range families {
		if err := writeMessage(conn, opMetrics, family); err != nil {
			return err
		}
	}
	return writeFrame(conn, opMetrics, nil)
}

// The control socket of a directory, the one of a process that has just been started, and the
// number of the last process.
func socketPath(dir string) string     { return filepath.Join(dir, "control.sock") }
func nextSocketPath(dir string) string { return filepath.Join(dir, "control.sock.next") }
func pidPath(dir string) string        { return filepath.Join(dir, "pid") }
