package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/lab/control"
)

// maxRequest bounds the body of a control call.
const maxRequest = 64 << 10

// server is the control socket.
type server struct {
	http     http.Server
	listener net.Listener
}

func (s *Supervisor) listen() (*server, error) {
	path := s.spec.Socket()
	if len(path) > control.MaxSocketPath {
		return nil, fmt.Errorf("path of control socket %s is longer than %d bytes: set a shorter --state-dir", path, control.MaxSocketPath)
	}
	// We hold the lock, so a socket found here belongs to a supervisor that was killed.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+control.PathStatus, func(w http.ResponseWriter, _ *http.Request) {
		status := s.Status()
		_ = json.NewEncoder(w).Encode(&status)
	})
	for path, act := range map[string]func(context.Context, control.Request) error{
		control.PathKill:  s.Kill,
		control.PathStart: s.Start,
		control.PathCut:   s.Cut,
		control.PathHeal:  s.Heal,
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			var request control.Request
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&request); err != nil {
				fail(w, http.StatusBadRequest, fmt.Errorf("read request: %w", err))
				return
			}
			if phase := s.Status().Phase; phase != control.Running {
				fail(w, http.StatusConflict, fmt.Errorf("the lab is %s", phase))
				return
			}
			// A caller that gives up must not leave a machine half started.
			if err := act(context.WithoutCancel(r.Context()), request); err != nil {
				fail(w, http.StatusUnprocessableEntity, err)
			}
		})
	}
	mux.HandleFunc("POST "+control.PathStop, func(http.ResponseWriter, *http.Request) { s.stop() })
	return &server{listener: listener, http: http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}, nil
}

func fail(w http.ResponseWriter, code int, err error) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(control.Failure{Error: err.Error()})
}

func (s *Supervisor) serve(server *server) {
	if err := server.http.Serve(server.listener); !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("Control socket failed", zap.Error(err))
	}
}

func (s *server) shutDown() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.http.Shutdown(ctx)
}
