package server

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/apierr"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// Attach implements nodev1.NodeServiceServer.
func (s *Server) Attach(stream grpc.BidiStreamingServer[nodev1.AttachRequest, nodev1.AttachResponse]) error {
	first, err := stream.Recv()
	if err != nil || first.GetStart() == nil {
		return apierr.BadRequest("the first message must have start")
	}
	start := first.GetStart()
	t := start.GetTarget()
	if err := s.check(t, true); err != nil {
		return err
	}
	subject := t.GetNamespace() + "/" + t.GetPod()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	var mu sync.Mutex
	send := func(r *nodev1.AttachResponse) error {
		mu.Lock()
		defer mu.Unlock()
		return stream.Send(r)
	}
	stdout := func(p []byte) error {
		return send(&nodev1.AttachResponse{Response: &nodev1.AttachResponse_Stdout{Stdout: p}})
	}
	sizes := newestSize{make(chan runtime.Size, 1)}
	if size := start.GetSize(); size != nil {
		sizes.put(runtime.Size{Width: size.GetWidth(), Height: size.GetHeight()})
	}
	a := pods.Attachment{
		Stdout: writerFunc(stdout),
		Stderr: writerFunc(func(p []byte) error {
			return send(&nodev1.AttachResponse{Response: &nodev1.AttachResponse_Stderr{Stderr: p}})
		}),
		Resize: sizes.c, Joined: func() error { return stdout(nil) },
	}
	var stdin *io.PipeWriter
	if start.GetStdin() {
		r, w := io.Pipe()
		// What is still written once the attachment is over has nowhere to go.
		defer r.Close()
		a.Stdin, stdin = r, w
	}
	// The receiver ends with the stream, which ends when this returns.
	go receiveAttached(stream, cancel, stdin, sizes)
	code, err := s.cfg.Pods.Attach(ctx, t.GetNamespace(), t.GetPod(), start.GetContainer(), a)
	if errors.Is(err, pods.ErrNoStdin) {
		return apierr.FailedPrecondition(ReasonNoStdin, subject, "%v", err)
	}
	if err != nil {
		return failure(err, subject)
	}
	if code < 0 {
		return nil
	}
	return send(&nodev1.AttachResponse{Response: &nodev1.AttachResponse_ExitCode{ExitCode: code}})
}

// receiveAttached passes on stdin and sizes until the client has said all. A client that is gone
// cancels the attachment.
func receiveAttached(
	stream grpc.BidiStreamingServer[nodev1.AttachRequest, nodev1.AttachResponse],
	cancel context.CancelFunc,
	stdin *io.PipeWriter,
	sizes newestSize,
) {
	if stdin != nil {
		// A client that vanished has not said that it has said all; for the container it comes to the
		// same.
		defer stdin.Close()
	}
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			cancel()
			return
		}
		switch r := req.GetRequest().(type) {
		case *nodev1.AttachRequest_Stdin:
			if stdin != nil {
				// One that reads no more is left to its output.
				_, _ = stdin.Write(r.Stdin)
			}
		case *nodev1.AttachRequest_CloseStdin:
			if stdin != nil {
				stdin.Close()
			}
		case *nodev1.AttachRequest_Resize:
			sizes.put(runtime.Size{Width: r.Resize.GetWidth(), Height: r.Resize.GetHeight()})
		}
	}
}

// newestSize holds only the newest of the sizes that a terminal has not taken yet.
type newestSize struct{ c chan runtime.Size }

func (n newestSize) put(s runtime.Size) {
	for {
		select {
		case n.c <- s:
			return
		default:
		}
		select {
		case <-n.c:
		default:
		}
	}
}
