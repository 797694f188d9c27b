// Package control is how the lab's commands talk to its supervisor: JSON over HTTP on a unix socket
// in the lab's state directory that only root may open.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/xebec-project/xebec/lab/machine"
)

// Paths of the supervisor's calls. PathStatus is read with GET, the others take a Request by POST.
const (
	PathStatus = "/status"
	PathKill   = "/kill"
	PathStart  = "/start"
	PathCut    = "/cut"
	PathHeal   = "/heal"
	PathStop   = "/stop"
)

// MaxSocketPath is the longest path of a unix socket that Linux takes.
const MaxSocketPath = 107

// ErrNotRunning is returned when no supervisor answers.
var ErrNotRunning = errors.New("the lab is not running")

// Request is the body of a call.
type Request struct {
	// Target is a host, or a host and a process: "master-2/scheduler".
	Target string `json:"target"`
	// Hold keeps a killed process down until it is started by hand.
	Hold bool `json:"hold,omitempty"`
	// PowerOff takes a host off the wire before it is killed, so that its peers see silence instead of
	// closed connections.
	PowerOff bool `json:"powerOff,omitempty"`
}

// Failure is the body of an answer that is not 200.
type Failure struct {
	Error string `json:"error"`
}

// Phase is where a lab is in its life.
type Phase string

// The phases.
const (
	Starting Phase = "starting"
	Running  Phase = "running"
	Stopping Phase = "stopping"
	Failed   Phase = "failed"
)

// Status is the state of a lab.
type Status struct {
	Name     string `json:"name"`
	StateDir string `json:"stateDir"`
	// PID is the supervisor.
	PID   int   `json:"pid"`
	Phase Phase `json:"phase"`
	// Step is what is being done while starting, Error what went wrong when failed.
	Step  string    `json:"step,omitempty"`
	Error string    `json:"error,omitempty"`
	Since time.Time `json:"since"`
	// Endpoints are the loopback addresses that lead to the masters' gateways, in the masters' order.
	Endpoints []string `json:"endpoints"`
	Hosts     []Host   `json:"hosts"`
}

// HostState is the state of a machine.
type HostState string

// The states of machines.
const (
	Up   HostState = "up"
	Cut  HostState = "cut"
	Down HostState = "down"
	// Changing machines are being started or killed.
	Changing HostState = "changing"
)

// Host is the state of one machine.
type Host struct {
	Name  string    `json:"name"`
	Role  string    `json:"role"`
	Addr  string    `json:"addr"`
	State HostState `json:"state"`
	// References lead into the machine's namespaces; absent while it is down.
	References *machine.References `json:"references,omitempty"`
	Processes  []Process           `json:"processes"`
}

// ProcessState is the state of a process.
type ProcessState string

// The states of processes.
const (
	// Waiting processes have not been started yet.
	Waiting ProcessState = "waiting"
	// Alive processes run.
	Alive ProcessState = "running"
	// Backoff processes ended and will be started again.
	Backoff ProcessState = "backoff"
	// Held processes were killed and stay down until started by hand.
	Held ProcessState = "held"
	// Off processes belong to a machine that is down.
	Off ProcessState = "off"
)

// Process is the state of one process.
type Process struct {
	Name  string       `json:"name"`
	State ProcessState `json:"state"`
	PID   int          `json:"pid,omitempty"`
	// Restarts counts the starts after the first since the machine came up.
	Restarts int `json:"restarts"`
	// Since is when the state began.
	Since time.Time `json:"since"`
	// LastExit says how the process ended last, empty when it never did.
	LastExit string `json:"lastExit,omitempty"`
	// Listening are the TCP addresses it listens on.
	Listening []string `json:"listening,omitempty"`
}

// Client calls a supervisor. It is safe for concurrent use.
type Client struct {
	http http.Client
}

// NewClient returns a client of the supervisor at the socket.
func NewClient(socket string) *Client {
	return &Client{http: http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Status returns the lab's state, or ErrNotRunning.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var status Status
	if err := c.call(ctx, http.MethodGet, PathStatus, nil, &status); err != nil {
		return nil, err
	}
	return &status, nil
}

// Do makes one of the calls that change something and returns once that is done.
func (c *Client) Do(ctx context.Context, path string, request Request) error {
	return c.call(ctx, http.MethodPost, path, request, nil)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, body)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" && ctx.Err() == nil {
			return fmt.Errorf("%w: %w", ErrNotRunning, op.Err)
		}
		return fmt.Errorf("call supervisor of the lab: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		var failure Failure
		if err := json.NewDecoder(response.Body).Decode(&failure); err != nil || failure.Error == "" {
			return fmt.Errorf("supervisor of the lab responded %s", response.Status)
		}
		return errors.New(failure.Error)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return fmt.Errorf("read response of the supervisor: %w", err)
	}
	return nil
}
