package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/lab/control"
	"github.com/xebec-project/xebec/lab/topology"
)

// Restarts wait from minBackoff to maxBackoff, doubling each time, and start over after a run of
// stableAfter.
const (
	minBackoff  = 250 * time.Millisecond
	maxBackoff  = 10 * time.Second
	stableAfter = 20 * time.Second
)

// stopGrace is how long a process may take to end after SIGTERM.
const stopGrace = 5 * time.Second

// errKilled is the cause of a context that ends because the machine is killed: nothing may shut
// down in order.
var errKilled = errors.New("machine killed")

// starter starts a command in the right place; machine.Machine is one.
type starter interface {
	Start(cmd *exec.Cmd, group string, weight int) error
}

// process keeps one program running.
type process struct {
	def topology.Process
	log *zap.Logger
	// wake ends a wait for a restart early; it holds one signal.
	wake chan struct{}

	mu     sync.Mutex
	status control.Process
	cmd    *exec.Cmd
}

func newProcess(def topology.Process, log *zap.Logger) *process {
	p := &process{def: def, log: log.With(zap.String(metrics.KeyProcess, def.Name)), wake: make(chan struct{}, 1)}
	p.status = control.Process{Name: def.Name, State: control.Off, Since: time.Now()}
	return p
}

// run starts the program again and again until ctx ends. Then it asks the program to end, or kills
// it when the cause is errKilled.
func (p *process) run(ctx context.Context, where starter) {
	p.mu.Lock()
	p.status = control.Process{Name: p.def.Name, State: control.Waiting, Since: time.Now()}
	p.mu.Unlock()
	backoff := minBackoff
	for first := true; ctx.Err() == nil; first = false {
		p.mu.Lock()
		held := p.status.State == control.Held
		p.mu.Unlock()
		if held {
			p.wait(ctx, nil)
			continue
		}
		began := time.Now()
		err := p.once(ctx, where, !first)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > stableAfter {
			backoff = minBackoff
		}
		delay := backoff + rand.N(backoff/4)
		backoff = min(2*backoff, maxBackoff)
		p.mu.Lock()
		p.status.PID, p.cmd = 0, nil
		p.status.LastExit = describe(err)
		if p.status.State != control.Held {
			p.status.State = control.Backoff
		}
		p.status.Since = time.Now()
		held = p.status.State == control.Held
		p.mu.Unlock()
		if held {
			continue
		}
		p.log.Warn("Process terminated", zap.String(metrics.KeyExit, describe(err)), zap.Duration(metrics.KeyRestartIn, delay))
		p.wait(ctx, time.After(delay))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.State, p.status.PID, p.status.Since, p.cmd = control.Off, 0, time.Now(), nil
}

// wait returns when ctx ends, the process is woken or the timer fires.
func (p *process) wait(ctx context.Context, timer <-chan time.Time) {
	select {
	case <-ctx.Done():
	case <-p.wake:
	case <-timer:
	}
}

// once runs the program to its end.
func (p *process) once(ctx context.Context, where starter, again bool) error {
	out, err := openLog(p.def.Log)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, p.def.Args[0], p.def.Args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = stopGrace
	cmd.Cancel = func() error {
		if errors.Is(context.Cause(ctx), errKilled) {
			return cmd.Process.Kill()
		}
		return cmd.Process.Signal(syscall.SIGTERM)
	}

	// The lock is held over the start so that a kill finds either no process or all of it.
	p.mu.Lock()
	if p.status.State == control.Held {
		p.mu.Unlock()
		return errors.New("held")
	}
	if err := where.Start(cmd, p.def.Name, max(p.def.Weight, 1)); err != nil {
		p.mu.Unlock()
		return fmt.Errorf("start %s: %w", p.def.Args[0], err)
	}
	p.cmd = cmd
	p.status.State, p.status.PID, p.status.Since = control.Alive, cmd.Process.Pid, time.Now()
	if again {
		p.status.Restarts++
	}
	p.mu.Unlock()
	return cmd.Wait()
}

// kill ends the program at once. With hold it stays down until start.
func (p *process) kill(hold bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil && !hold {
		return fmt.Errorf("%s is not running: it is %s", p.def.Name, p.status.State)
	}
	if hold {
		p.status.State, p.status.Since = control.Held, time.Now()
	}
	if p.cmd == nil {
		p.poke()
		return nil
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.def.Name, err)
	}
	return nil
}

// start lets a held process run again and cuts a backoff short. A running one is left alone.
func (p *process) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.State == control.Held {
		p.status.State, p.status.Since = control.Waiting, time.Now()
	}
	p.poke()
}

func (p *process) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *process) snapshot() control.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

func describe(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// openLog opens a log for appending and makes its folder.
func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}

// maxLog is the size beyond which a log is moved aside, replacing what was moved before.
const maxLog = 64 << 20

// trimLog empties a log that has grown beyond limit and keeps its content in a second file. Its
// writer appends, so it goes on at the beginning.
func trimLog(path string, limit int64) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() <= limit {
		return nil
	}
	if err != nil {
		return err
	}
	data, err := os.Open(path)
	if err != nil {
		return err
	}
	defer data.Close()
	old, err := os.Create(path + ".1")
	if err != nil {
		return err
	}
	_, err = old.ReadFrom(data)
	return errors.Join(err, old.Close(), os.Truncate(path, 0))
}
