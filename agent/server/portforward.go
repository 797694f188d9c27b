package server

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/agent/sandbox"
	"github.com/xebec-project/xebec/internal/apierr"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// PortForward implements nodev1.NodeServiceServer.
func (s *Server) PortForward(stream grpc.BidiStreamingServer[nodev1.PortForwardRequest, nodev1.PortForwardResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return apierr.BadRequest("the first message must have target and port")
	}
	t := first.GetTarget()
	if err := s.check(t, true); err != nil {
		return err
	}
	if first.GetPort() < 1 || first.GetPort() > 65535 {
		return apierr.BadField("port", "invalid port %d: want 1 to 65535", first.GetPort())
	}
	subject := t.GetNamespace() + "/" + t.GetPod()
	netns, err := s.cfg.Pods.Netns(t.GetNamespace(), t.GetPod())
	if err != nil {
		return failure(err, subject)
	}
	conn, err := sandbox.Dial(stream.Context(), netns, uint16(first.GetPort()))
	if err != nil {
		return apierr.FailedPrecondition(ReasonPortClosed, subject, "connecting to port %d of the pod: %v", first.GetPort(), err)
	}
	defer conn.Close()
	// A client that goes away, or an agent that stops, ends the reads.
	defer context.AfterFunc(stream.Context(), func() { conn.Close() })()
	if err := stream.Send(&nodev1.PortForwardResponse{}); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		err := receive(stream, conn)
		if err != nil {
			// The client is gone: the response has no reader either.
			conn.Close()
		}
		sent <- err
	}()
	_, err = io.Copy(writerFunc(func(p []byte) error { return stream.Send(&nodev1.PortForwardResponse{Data: p}) }), conn)
	if err == nil {
		err = stream.Send(&nodev1.PortForwardResponse{Eof: true})
	}
	if err != nil {
		return apierr.Unavailable("connection to port %d of the pod: %v", first.GetPort(), err)
	}
	// The client may go on sending after the port has said all.
	if err := <-sent; err != nil {
		return apierr.Unavailable("connection to port %d of the pod: %v", first.GetPort(), err)
	}
	return nil
}

// closeWriter is a connection whose sending side ends by itself.
type closeWriter interface {
	io.Writer
	CloseWrite() error
}

// receive passes on what the client sends, and that it has said all.
func receive(stream grpc.BidiStreamingServer[nodev1.PortForwardRequest, nodev1.PortForwardResponse], to closeWriter) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return to.CloseWrite()
		}
		if err != nil {
			return err
		}
		if _, err := to.Write(req.GetData()); err != nil {
			return err
		}
	}
}
