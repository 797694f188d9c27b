// Package portforward holds the command port-forward.
package portforward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// Command returns the command port-forward.
func Command(s *session.Session) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:   "port-forward POD | KIND/NAME [LOCAL:]REMOTE...",
		Short: "Forward local ports to a pod",
		Long: "Forward local ports to a pod until interrupted. REMOTE is a port number, or the name of a container port; for a service it\n" +
			"is a service port. LOCAL defaults to the same number; 0 or an empty value selects any free port.",
		Example: "  xebec port-forward web-0 8080\n" +
			"  xebec port-forward service/web 8080:80\n" +
			"  xebec port-forward deployment/web :http",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: resolve.CompleteOf(s, "pods"),
		RunE:              func(cmd *cobra.Command, args []string) error { return portForward(cmd.Context(), s, args, address) },
	}
	cmd.Flags().StringVar(&address, "address", "127.0.0.1", "local address to listen on")
	return cmd
}

func portForward(ctx context.Context, s *session.Session, args []string, address string) error {
	cl := s.Client()
	r, err := resolve.One(s, args[:1], kinds.Of(&corev1.Pod{}))
	if err != nil {
		return err
	}
	pod, err := resolve.Pod(ctx, s, cl, args[:1])
	if err != nil {
		return err
	}
	var service *corev1.Service
	if r.Kind == kinds.Of(&corev1.Service{}) {
		if service, err = client.Get[*corev1.Service](ctx, cl, r.Namespace, r.Name); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, text := range args[1:] {
		local, remote, err := forwardedPort(text, pod, service)
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(int(local))))
		if err != nil {
			return fmt.Errorf("accept connections: %w", err)
		}
		// It is never stopped: the goroutine below ends when the listener is closed.
		context.AfterFunc(ctx, func() { l.Close() })
		fmt.Fprintf(s.Out, "Forwarding from %s -> %d\n", l.Addr(), remote)
		f := &forwarder{
			service: nodev1.NewNodeServiceClient(s), port: remote,
			target: &nodev1.Target{Namespace: r.Namespace, Pod: pod.GetMetadata().GetName()},
			failed: func(err error) { s.Labelf(terminal.Red, "Error:", "%v", err) },
		}
		wg.Go(func() { f.serve(ctx, l) })
	}
	<-ctx.Done()
	return nil
}

// forwardedPort reads [LOCAL:]REMOTE. Of a service, REMOTE is its port, and what it stands for in
// the pod is returned.
func forwardedPort(text string, pod *corev1.Pod, service *corev1.Service) (local, remote uint32, err error) {
	localText, name, given := strings.Cut(text, ":")
	if !given {
		name = localText
	}
	asked := name
	if service != nil {
		if name, err = servicePort(service, name); err != nil {
			return 0, 0, err
		}
	}
	if remote, err = podPort(pod, name); err != nil {
		return 0, 0, err
	}
	if !given {
		localText = asked
	}
	if n, err := strconv.ParseUint(localText, 10, 16); err == nil {
		return uint32(n), remote, nil
	} else if localText != "" && given {
		return 0, 0, exit.Usagef("invalid local port %q: want a number from 0 to 65535", localText)
	}
	if !given {
		return remote, remote, nil
	}
	return 0, remote, nil
}

// servicePort returns the pods' port, a number or a name, behind a service's.
func servicePort(service *corev1.Service, name string) (string, error) {
	for _, p := range service.GetSpec().GetPorts() {
		if p.GetName() != name && strconv.Itoa(int(p.GetPort())) != name {
			continue
		}
		switch target := p.GetTargetPort(); {
		case target.GetStrVal() != "":
			return target.GetStrVal(), nil
		case target.GetIntVal() != 0:
			return strconv.Itoa(int(target.GetIntVal())), nil
		}
		return strconv.Itoa(int(p.GetPort())), nil
	}
	return "", fmt.Errorf("service %q has no port %s", service.GetMetadata().GetName(), name)
}

func podPort(pod *corev1.Pod, name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 16); err == nil && n > 0 {
		return uint32(n), nil
	}
	for _, c := range pod.GetSpec().GetContainers() {
		for _, p := range c.GetPorts() {
			if p.GetName() == name && name != "" {
				return uint32(p.GetContainerPort()), nil
			}
		}
	}
	return 0, exit.Usagef(
		"invalid remote port %q: want a port number or the name of a container port of pod %s",
		name,
		pod.GetMetadata().GetName(),
	)
}

// forwarder carries connections to one port of a pod.
type forwarder struct {
	service nodev1.NodeServiceClient
	target  *nodev1.Target
	port    uint32
	failed  func(error)
}

// serve carries every connection that is made until ctx ends.
func (f *forwarder) serve(ctx context.Context, l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil {
				f.failed(fmt.Errorf("accept connections: %w", err))
			}
			return
		}
		wg.Go(func() {
			defer conn.Close()
			if err := f.carry(ctx, conn.(*net.TCPConn)); err != nil && ctx.Err() == nil {
				f.failed(fmt.Errorf("connection to port %d of pod %s: %w", f.port, f.target.GetPod(), err))
			}
		})
	}
}

func (f *forwarder) carry(ctx context.Context, conn *net.TCPConn) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	// Whatever ends the call ends the reading from the connection as well. That is never called off.
	context.AfterFunc(ctx, func() { conn.Close() })
	stream, err := f.service.PortForward(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&nodev1.PortForwardRequest{Target: f.target, Port: f.port}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	// The first answer says that the connection stands.
	if _, err := stream.Recv(); err != nil {
		return err
	}
	wg.Go(func() { upload(stream, conn) })
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(resp.GetData()) > 0 {
			if _, err := conn.Write(resp.GetData()); err != nil {
				return nil // The program at this end went away: that is its right.
			}
		}
		if resp.GetEof() {
			_ = conn.CloseWrite()
		}
	}
}

func upload(stream grpc.BidiStreamingClient[nodev1.PortForwardRequest, nodev1.PortForwardResponse], conn net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := conn.Read(buffer)
		if n > 0 && stream.Send(&nodev1.PortForwardRequest{Data: buffer[:n]}) != nil {
			return // The receiving side learns why.
		}
		if err != nil {
			_ = stream.CloseSend()
			return
		}
	}
}
