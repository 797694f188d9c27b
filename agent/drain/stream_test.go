package drain

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	endpointsv1 "github.com/xebec-project/xebec/proto/xebec/endpoints/v1"
)

// service is the endpoints service: each call of Acknowledge is answered by the next stream.
type service struct {
	endpointsv1.EndpointsServiceClient
	streams chan *stream
	// calls are the times of the calls.
	calls []time.Time
}

func (s *service) Acknowledge(ctx context.Context, _ ...grpc.CallOption) (acknowledgeClient, error) {
	s.calls = append(s.calls, time.Now())
	select {
	case st := <-s.streams:
		st.ctx = ctx
		return st, nil
	default:
		return nil, status.Error(codes.Unavailable, "this instance does not lead")
	}
}

type acknowledgeClient = grpc.BidiStreamingClient[endpointsv1.AcknowledgeRequest, endpointsv1.AcknowledgeResponse]

// stream is one call of Acknowledge. It ends with its context, or when broken is closed.
type stream struct {
	acknowledgeClient
	ctx       context.Context
	requests  chan *endpointsv1.AcknowledgeRequest
	responses chan *endpointsv1.AcknowledgeResponse
	broken    chan struct{}
}

func newStream() *stream {
	return &stream{
		requests: make(chan *endpointsv1.AcknowledgeRequest), responses: make(chan *endpointsv1.AcknowledgeResponse),
		broken: make(chan struct{}),
	}
}

func (s *stream) Send(req *endpointsv1.AcknowledgeRequest) error {
	select {
	case s.requests <- req:
		return nil
	case <-s.broken:
		return errors.New("the stream is broken")
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s *stream) Recv() (*endpointsv1.AcknowledgeResponse, error) {
	select {
	case resp := <-s.responses:
		return resp, nil
	case <-s.broken:
		return nil, status.Error(codes.Unavailable, "the leader stopped")
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// run runs the coordinator until the test's function returns.
func run(t *testing.T, c *Coordinator, during func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	during()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v, want the context's error", err)
	}
}

func TestRunReportsRevisionsThatOthersWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStream()
		s := &service{streams: make(chan *stream, 1)}
		s.streams <- st
		c := New(Config{Node: "n1", Endpoints: s})
		c.Programmed(3)
		run(t, c, func() {
			if req := <-st.requests; req.GetNode() != "n1" || req.GetProgrammed() != 3 || req.GetAwait() != 0 {
				t.Errorf("the first request is %v, want node n1 at revision 3", req)
			}
			c.Programmed(4)
			synctest.Wait()
			select {
			case req := <-st.requests:
				t.Errorf("sent %v, which no node waits for", req)
			default:
			}
			st.responses <- &endpointsv1.AcknowledgeResponse{Wanted: 5}
			if req := <-st.requests; req.GetProgrammed() != 4 {
				t.Errorf("the request is %v, want revision 4", req)
			}
			c.Programmed(5)
			if req := <-st.requests; req.GetProgrammed() != 5 {
				t.Errorf("the request is %v, want revision 5", req)
			}
		})
	})
}

// TestRunAsksTheNextLeader loses the leader while a pod waits, and has calls refused until the next
// one leads.
func TestRunAsksTheNextLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newStream(), newStream()
		s := &service{streams: make(chan *stream, 1)}
		s.streams <- first
		c := New(Config{Node: "n1", Endpoints: s})
		run(t, c, func() {
			<-first.requests
			waited := make(chan error, 1)
			go func() { waited <- c.await(t.Context(), 7) }()
			if req := <-first.requests; req.GetAwait() != 7 {
				t.Errorf("the request is %v, want await 7", req)
			}
			first.responses <- &endpointsv1.AcknowledgeResponse{Everywhere: 6, Wanted: 7}
			close(first.broken)
			synctest.Wait()
			s.streams <- second
			if req := <-second.requests; req.GetNode() != "n1" || req.GetAwait() != 7 {
				t.Errorf("the request to the next leader is %v, want node n1 and await 7", req)
			}
			second.responses <- &endpointsv1.AcknowledgeResponse{Everywhere: 7}
			if err := <-waited; err != nil {
				t.Error(err)
			}
		})
	})
}

func TestRunBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{streams: make(chan *stream)}
		run(t, New(Config{Node: "n1", Endpoints: s}), func() { <-time.After(30 * time.Second) })
		// The first calls follow each other at once, later ones about once a second.
		if n := len(s.calls); n < triesAtOnce+20 || n > triesAtOnce+120 {
			t.Errorf("%d calls in 30 s", n)
		}
		if pause := s.calls[triesAtOnce-1].Sub(s.calls[0]); pause > triesAtOnce*2*minRetry {
			t.Errorf("the first %d calls took %s", triesAtOnce, pause)
		}
	})
}
