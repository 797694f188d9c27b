// Package probe runs the checks of liveness, readiness and startup probes, and lifecycle hooks.
package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// maxOutput is the number of bytes of a response that an error quotes.
const maxOutput = 1 << 10

// maxAnswer bounds the bytes read of a response. The output of commands is read to its end and
// dropped.
const maxAnswer = 64 << 10

// ErrUnhealthy wraps the response of an unhealthy container, as opposed to a failure of the check.
var ErrUnhealthy = errors.New("unhealthy")

// Target is the container to check.
type Target struct {
	// Host is the pod's address. Network checks are made from the namespaces of the calling process,
	// as the node's.
	Host string
	// Container gives the ports that checks name.
	Container *corev1.Container
	// Exec runs a command in the container and returns its exit code and output.
	Exec func(ctx context.Context, command []string) (code int, output []byte, err error)
}

// Check runs the check of a probe once. It returns nil when the container is healthy, otherwise an
// error with the cause.
func Check(ctx context.Context, h *corev1.ProbeHandler, t Target) error {
	err := check(ctx, h, t)
	if errors.Is(err, unix.ECONNREFUSED) && h.GetHttpGet().GetHost() == "" && h.GetTcpSocket().GetHost() == "" {
		return fmt.Errorf("%w: no process in the pod listens at the port", err)
	}
	return err
}

func check(ctx context.Context, h *corev1.ProbeHandler, t Target) error {
	switch {
	case h.GetExec() != nil:
		code, out, err := t.Exec(ctx, h.GetExec().GetCommand())
		if err != nil {
			return fmt.Errorf("command failed: %w", err)
		}
		if code != 0 {
			return fmt.Errorf("%w: command exited with %d: %s", ErrUnhealthy, code, quote(out))
		}
		return nil
	case h.GetHttpGet() != nil:
		return httpGet(ctx, h.GetHttpGet(), t)
	case h.GetTcpSocket() != nil:
		return tcpSocket(ctx, h.GetTcpSocket(), t)
	case h.GetGrpc() != nil:
		return grpcHealth(ctx, h.GetGrpc(), t)
	}
	return errors.New("missing probe handler")
}

// Lifecycle runs a container's hook; the output of a failed command is in the error.
func Lifecycle(ctx context.Context, h *corev1.LifecycleHandler, t Target) error {
	if s := h.GetSleep(); s != nil {
		timer := time.NewTimer(time.Duration(s.GetSeconds()) * time.Second)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		}
	}
	if h.GetExec() == nil && h.GetHttpGet() == nil && h.GetTcpSocket() == nil {
		return errors.New("missing lifecycle handler")
	}
	return Check(ctx, &corev1.ProbeHandler{Exec: h.GetExec(), HttpGet: h.GetHttpGet(), TcpSocket: h.GetTcpSocket()}, t)
}

func httpGet(ctx context.Context, a *corev1.HTTPGetAction, t Target) error {
	addr, err := address(a.GetHost(), a.GetPort(), t)
	if err != nil {
		return err
	}
	u, err := url.Parse("/" + strings.TrimPrefix(a.GetPath(), "/"))
	if err != nil {
		return fmt.Errorf("path %q: %w", a.GetPath(), err)
	}
	u.Scheme, u.Host = "http", addr
	if strings.EqualFold(a.GetScheme(), "https") {
		u.Scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "xebec-probe")
	for _, h := range a.GetHttpHeaders() {
		if strings.EqualFold(h.GetName(), "host") {
			req.Host = h.GetValue()
			continue
		}
		req.Header.Add(h.GetName(), h.GetValue())
	}
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxAnswer,
			// The certificate is not verified, as in Kubernetes: the connection is to the pod's own address.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		},
		// Redirects are not followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 200 && resp.StatusCode < 400 {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxOutput))
	return fmt.Errorf("%w: HTTP status %d: %s", ErrUnhealthy, resp.StatusCode, quote(body))
}

func tcpSocket(ctx context.Context, a *corev1.TCPSocketAction, t Target) error {
	addr, err := address(a.GetHost(), a.GetPort(), t)
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

func grpcHealth(ctx context.Context, a *corev1.GRPCAction, t Target) error {
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(t.Host, strconv.Itoa(int(a.GetPort()))),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent("xebec-probe"), grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: a.GetService()})
	if err != nil {
		return err
	}
	if s := resp.GetStatus(); s != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("%w: gRPC health is %v", ErrUnhealthy, s)
	}
	return nil
}

func address(host string, port *metav1.IntOrString, t Target) (string, error) {
	if host == "" {
		host = t.Host
	}
	n := int(port.GetIntVal())
	if port.GetType() == 1 {
		n = 0
		for _, p := range t.Container.GetPorts() {
			if p.GetName() == port.GetStrVal() {
				n = int(p.GetContainerPort())
			}
		}
		if n == 0 {
			if v, err := strconv.Atoi(port.GetStrVal()); err == nil {
				n = v
			}
		}
	}
	if n < 1 || n > 65535 {
		return "", fmt.Errorf("container %q has no port %q: want the name of one of its ports, or a number",
			t.Container.GetName(), port.GetStrVal())
	}
	return net.JoinHostPort(host, strconv.Itoa(n)), nil
}

func quote(b []byte) string {
	return strings.ToValidUTF8(string(bytes.TrimSpace(b[:min(len(b), maxOutput)])), "?")
}
