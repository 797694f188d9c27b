package server

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/agent/runtime"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// execCall is the stream of one command. Its senders are several, its receiver is one.
type execCall struct {
	stream grpc.BidiStreamingServer[nodev1.ExecRequest, nodev1.ExecResponse]
	sizes  newestSize

	mu sync.Mutex
}

func (c *execCall) send(r *nodev1.ExecResponse) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stream.Send(r)
}

func (c *execCall) output(wrap func([]byte) *nodev1.ExecResponse) io.Writer {
	return writerFunc(func(p []byte) error { return c.send(wrap(p)) })
}

// receive passes on stdin and sizes until the client has said all. A client that is gone cancels
// the command; one that has only closed its side has no more to say.
func (c *execCall) receive(cancel context.CancelFunc, stdin *io.PipeWriter) {
	if stdin != nil {
		defer stdin.Close()
	}
	for {
		req, err := c.stream.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			cancel()
			return
		}
		switch r := req.GetRequest().(type) {
		case *nodev1.ExecRequest_Stdin:
			if stdin == nil {
				continue
			}
			if _, err := stdin.Write(r.Stdin); err != nil {
				// The command reads no more; what is left to hear are sizes and the end.
				continue
			}
		case *nodev1.ExecRequest_CloseStdin:
			if stdin != nil {
				stdin.Close()
			}
		case *nodev1.ExecRequest_Resize:
			c.sizes.put(runtime.Size{Width: r.Resize.GetWidth(), Height: r.Resize.GetHeight()})
		}
	}
}
