package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/apierr"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFailure(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		code   codes.Code
		reason string
	}{
		"several containers":    {pods.ErrAmbiguous, codes.InvalidArgument, apierr.ReasonBadRequest},
		"unknown pod":           {pods.ErrNotFound, codes.NotFound, apierr.ReasonNotFound},
		"a pod that has ended":  {pods.ErrNotRunning, codes.FailedPrecondition, ReasonNotRunning},
		"no container":          {runtime.ErrNotFound, codes.FailedPrecondition, ReasonNotRunning},
		"no such command":       {runtime.ErrStart, codes.FailedPrecondition, ReasonExecFailed},
		"an invalid image name": {images.ErrInvalidName, codes.InvalidArgument, apierr.ReasonBadRequest},
	} {
		err := failure(fmt.Errorf("wrapped: %w", tt.err), "default/web")
		if status.Code(err) != tt.code || apierr.Reason(err) != tt.reason {
			t.Errorf("%s: %v with reason %q, want %v and %q", name, err, apierr.Reason(err), tt.code, tt.reason)
		}
	}
}

func TestWriterBoundsMessages(t *testing.T) {
	var sizes []int
	w := writerFunc(func(p []byte) error { sizes = append(sizes, len(p)); return nil })
	if n, err := w.Write(make([]byte, 2*chunk+1)); n != 2*chunk+1 || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	if len(sizes) != 3 || sizes[0] != chunk || sizes[1] != chunk || sizes[2] != 1 {
		t.Errorf("messages of %d bytes", sizes)
	}
	full := errors.New("the client is gone")
	failing := writerFunc(func(p []byte) error {
		if len(p) < chunk {
			return full
		}
		return nil
	})
	if n, err := failing.Write(make([]byte, chunk+1)); n != chunk || !errors.Is(err, full) {
		t.Errorf("wrote %d, %v, want %d and %v", n, err, chunk, full)
	}
}

// uploads is the stream of an image import with these messages, which ends with err.
type uploads struct {
	grpc.ClientStreamingServer[nodev1.ImportImageRequest, nodev1.ImportImageResponse]
	data []string
	err  error
}

func (u *uploads) Recv() (*nodev1.ImportImageRequest, error) {
	if len(u.data) == 0 {
		return nil, u.err
	}
	first := u.data[0]
	u.data = u.data[1:]
	return &nodev1.ImportImageRequest{Data: []byte(first)}, nil
}

func TestArchiveReader(t *testing.T) {
	whole := &archiveReader{stream: &uploads{data: []string{"", "b", "cd"}, err: io.EOF}, rest: []byte("a")}
	if got, err := io.ReadAll(whole); string(got) != "abcd" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	lost := errors.New("connection lost")
	broken := &archiveReader{stream: &uploads{data: []string{"b"}, err: lost}, rest: []byte("a")}
	if got, err := io.ReadAll(broken); string(got) != "ab" || !errors.Is(err, lost) || !errors.Is(broken.broken, lost) {
		t.Errorf("read %q, %v, and the stream's error is %v", got, err, broken.broken)
	}
}

func TestNewestSize(t *testing.T) {
	sizes := newestSize{make(chan runtime.Size, 1)}
	for width := range uint32(5) {
		sizes.put(runtime.Size{Width: width, Height: 1})
	}
	if got := <-sizes.c; got.Width != 4 {
		t.Errorf("the terminal gets width %d, want the newest, 4", got.Width)
	}
}

func TestWantedDrops(t *testing.T) {
	ofPod := &nodev1.DropsResponse{Pod: "default/web", Peer: "shop/cart"}
	ofService := &nodev1.DropsResponse{Service: "shop/cart:http"}
	target := func(namespace, pod string) *nodev1.DropsRequest {
		return &nodev1.DropsRequest{Target: &nodev1.Target{Namespace: namespace, Pod: pod}}
	}
	for name, tt := range map[string]struct {
		req              *nodev1.DropsRequest
		ofPod, ofService bool
	}{
		"all":               {&nodev1.DropsRequest{}, true, true},
		"the pod":           {target("default", "web"), true, false},
		"its peer":          {target("shop", "cart"), true, false},
		"another pod":       {target("default", "db"), false, false},
		"its namespace":     {&nodev1.DropsRequest{Namespace: "default"}, true, false},
		"the service's":     {&nodev1.DropsRequest{Namespace: "shop"}, false, true},
		"another namespace": {&nodev1.DropsRequest{Namespace: "sho"}, false, false},
	} {
		if got := wanted(tt.req, ofPod); got != tt.ofPod {
			t.Errorf("%s: the drop of a pod: %v, want %v", name, got, tt.ofPod)
		}
		if got := wanted(tt.req, ofService); got != tt.ofService {
			t.Errorf("%s: the drop of a service: %v, want %v", name, got, tt.ofService)
		}
	}
}

// requests is the stream of a port forward with these messages, which ends with err.
type requests struct {
	grpc.BidiStreamingServer[nodev1.PortForwardRequest, nodev1.PortForwardResponse]
	data []string
	err  error
}

func (r *requests) Recv() (*nodev1.PortForwardRequest, error) {
	if len(r.data) == 0 {
		return nil, r.err
	}
	first := r.data[0]
	r.data = r.data[1:]
	return &nodev1.PortForwardRequest{Data: []byte(first)}, nil
}

// port is a connection that records what it gets.
type port struct {
	bytes.Buffer
	closed bool
}

func (p *port) CloseWrite() error { p.closed = true; return nil }

func TestPortForwardReceives(t *testing.T) {
	lost := errors.New("connection lost")
	for name, tt := range map[string]struct {
		end, want error
		closed    bool
	}{
		"the client closes its side": {io.EOF, nil, true},
		"the client is gone":         {lost, lost, false},
	} {
		p := &port{}
		err := receive(&requests{data: []string{"GET ", "/"}, err: tt.end}, p)
		if !errors.Is(err, tt.want) || p.String() != "GET /" || p.closed != tt.closed {
			t.Errorf("%s: %v, %q, closed %v", name, err, p.String(), p.closed)
		}
	}
}
