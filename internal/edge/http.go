package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
)

// Listener returns a listener whose connections have passed Handshake, for http.Server.Serve. Each
// handshake has a goroutine of its own, so that slow clients delay only themselves. The server's
// ConnContext must be that of the entry. Close closes the inner listener.
func (e *Entry) Listener(inner net.Listener, config *tls.Config) net.Listener {
	l := &tlsListener{Listener: inner, entry: e, config: withHTTP(config),
		accepted: make(chan net.Conn), failed: make(chan error), closed: make(chan struct{})}
	go l.run()
	return l
}

// withHTTP returns a TLS configuration that also negotiates HTTP/1.1.
func withHTTP(config *tls.Config) *tls.Config {
	protocols := []string{"h2", "http/1.1"}
	config = config.Clone()
	config.NextProtos = protocols
	if forClient := config.GetConfigForClient; forClient != nil {
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			own, err := forClient(hello)
			if own != nil {
				own = own.Clone()
				own.NextProtos = protocols
			}
			return own, err
		}
	}
	return config
}

type tlsListener struct {
	net.Listener
	entry    *Entry
	config   *tls.Config
	accepted chan net.Conn
	failed   chan error

	closing sync.Once
	closed  chan struct{}
}

// run accepts raw connections until the listener is closed.
func (l *tlsListener) run() {
	for {
		raw, err := l.Listener.Accept()
		if err == nil {
			go l.handshake(raw)
			continue
		}
		select {
		case l.failed <- err: // Accept's caller decides whether to go on
		case <-l.closed:
			return
		}
	}
}

// handshake hands a connection to Accept once its handshake is complete.
func (l *tlsListener) handshake(raw net.Conn) {
	var secure *tls.Conn
	_, err := l.entry.Handshake(raw, func(conn net.Conn) (*x509.Certificate, error) {
		secure = tls.Server(conn, l.config)
		if err := secure.HandshakeContext(l.entry.draining); err != nil {
			return nil, err
		}
		return clientCertificate(secure.ConnectionState()), nil
	})
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		if secure != nil {
			_ = secure.Close()
		}
		_ = raw.Close()
		return
	}
	select {
	case l.accepted <- secure:
	case <-l.closed:
		_ = secure.Close()
	}
}

// Accept returns the next connection whose handshake is complete.
func (l *tlsListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case err := <-l.failed:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close closes the listener. Connections that it has returned stay open.
func (l *tlsListener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// clientCertificate returns the verified certificate of the client, nil when it presented none.
func clientCertificate(state tls.ConnectionState) *x509.Certificate {
	if len(state.VerifiedChains) == 0 {
		return nil
	}
	return state.VerifiedChains[0][0]
}

type connectionKey struct{}

// ConnContext puts the connection into the context of its requests, for http.Server.ConnContext.
func (e *Entry) ConnContext(ctx context.Context, conn net.Conn) context.Context {
	if secure, ok := conn.(*tls.Conn); ok {
		if counted, ok := secure.NetConn().(*countedConn); ok {
			return context.WithValue(ctx, connectionKey{}, counted.connection)
		}
	}
	return ctx
}

// HTTPConfig configures Handler.
type HTTPConfig struct {
	// IsLongRunning reports whether a request is long-running, such as a watch or an exec: it holds no
	// seat. Nil: none is.
	IsLongRunning func(*http.Request) bool
	// IsAboutLeases reports whether a request is about a Lease object. Nil: none is.
	IsAboutLeases func(*http.Request) bool
	// IsHealthCheck reports whether a request asks for the server's health: it needs a known caller,
	// but holds no seat and is not limited. Nil: none is.
	IsHealthCheck func(*http.Request) bool
	// MaxBodyBytes bounds the body of a request; 0 is 4 MiB.
	MaxBodyBytes int64
}

// defaultMaxBodyBytes is HTTPConfig.MaxBodyBytes when that is 0.
const defaultMaxBodyBytes = 4 << 20

// Handler returns a handler that lets next handle the requests that pass the entry. CallFromContext
// returns the call of a request's context, with its caller and its request id, which the response
// has as header X-Request-Id. A refused request gets a Kubernetes Status object.
func (e *Entry) Handler(cfg HTTPConfig, next http.Handler) http.Handler {
	if cfg.MaxBodyBytes == 0 {
		cfg.MaxBodyBytes = defaultMaxBodyBytes
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connection, _ := r.Context().Value(connectionKey{}).(*Connection)
		var leaf *x509.Certificate
		if r.TLS != nil {
			leaf = clientCertificate(*r.TLS)
		}
		c, err := e.Authenticate(connection, leaf, httpHeaders(r.Header))
		w.Header().Set(HeaderRequestID, c.RequestID)
		if err == nil {
			err = e.serve(&c, cfg, w, r, next)
		}
		if err != nil {
			WriteError(w, err)
		}
	})
}

// httpHeaders returns the headers that an entry reads, with names in lower case.
func httpHeaders(from http.Header) Headers {
	headers := make(Headers)
	for name, values := range from {
		switch name = strings.ToLower(name); {
		case name == HeaderAuthorization, name == HeaderRequestID, strings.HasPrefix(name, HeaderPrefix):
			headers[name] = values
		}
	}
	return headers
}

// serve serves an authenticated request, or returns an error when next has not been called.
func (e *Entry) serve(c *Call, cfg HTTPConfig, w http.ResponseWriter, r *http.Request, next http.Handler) error {
	holds := func(f func(*http.Request) bool) bool { return f != nil && f(r) }
	health, leases := holds(cfg.IsHealthCheck), holds(cfg.IsAboutLeases)
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	c.End = end
	ctx = ContextWithCall(ctx, c)
	if err := e.Admit(ctx, c, health); err != nil {
		return err
	}
	defer e.Hold(c, end)()
	var seat *Seat
	if !health && !holds(cfg.IsLongRunning) {
		seat = e.Seat(c, leases)
		if err := seat.Take(ctx); err != nil {
			return err
		}
		defer seat.Release()
	}
	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		body := &body{ReadCloser: http.MaxBytesReader(w, r.Body, cfg.MaxBodyBytes), entry: e, call: c, seat: seat, health: health, ctx: ctx}
		body.deadline = http.NewResponseController(w).SetReadDeadline
		defer body.leave()
		r.Body = body
	}
	next.ServeHTTP(w, r)
	return nil
}

// body is that of a request, which is received when it is the caller's turn. One goroutine at a
// time reads it.
type body struct {
	io.ReadCloser
	entry    *Entry
	call     *Call
	seat     *Seat
	health   bool
	ctx      context.Context
	deadline func(time.Time) error
	end      func() // ends the caller's turn; nil before the first read
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.end == nil {
		end, err := b.entry.Receive(b.ctx, b.call, b.seat, b.health)
		if err != nil {
			return 0, err
		}
		b.end = end
		_ = b.deadline(time.Now().Add(b.entry.ReceiveTimeout()))
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.leave()
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			err = refuse(codes.DeadlineExceeded, ReasonSlowRequest, "the request did not arrive within %s", b.entry.ReceiveTimeout())
		}
	}
	return n, err
}

// leave ends the caller's turn.
func (b *body) leave() {
	if b.end != nil {
		b.end()
		b.end = func() {}
		_ = b.deadline(time.Time{})
	}
}

// WriteError answers a request with an error as a Kubernetes Status object. A RetryInfo becomes the
// header Retry-After and details.retryAfterSeconds.
func WriteError(w http.ResponseWriter, err error) {
	code, reason := httpStatus(apierr.Code(err))
	status := map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure",
		"message": apierr.Message(err), "reason": reason, "code": code,
	}
	if wait, ok := apierr.RetryAfter(err); ok {
		seconds := int(math.Ceil(wait.Seconds()))
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		status["details"] = map[string]any{"retryAfterSeconds": seconds}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(status)
}

// httpStatus returns the HTTP status and the reason of a Status object for a code.
func httpStatus(code codes.Code) (int, string) {
	switch code {
	case codes.InvalidArgument:
		return http.StatusBadRequest, "BadRequest"
	case codes.Unauthenticated:
		return http.StatusUnauthorized, "Unauthorized"
	case codes.PermissionDenied:
		return http.StatusForbidden, "Forbidden"
	case codes.NotFound:
		return http.StatusNotFound, "NotFound"
	case codes.AlreadyExists:
		return http.StatusConflict, "AlreadyExists"
	case codes.Aborted:
		return http.StatusConflict, "Conflict"
	case codes.OutOfRange:
		return http.StatusGone, "Expired"
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests, "TooManyRequests"
	case codes.Unavailable:
		return http.StatusServiceUnavailable, "ServiceUnavailable"
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout, "Timeout"
	case codes.Unimplemented:
		return http.StatusMethodNotAllowed, "MethodNotAllowed"
	}
	return http.StatusInternalServerError, "InternalError"
}
