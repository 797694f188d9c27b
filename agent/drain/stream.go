package drain

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/metrics"
	endpointsv1 "github.com/xebec-project/xebec/proto/xebec/endpoints/v1"
)

// minRetry and maxRetry are the limits of the back-off before the endpoints service is called
// again, which is longer when the service asks for it. A call reaches any instance of the service,
// of which one leads. While none leads, all nodes retry.
const (
	minRetry = 10 * time.Millisecond
	maxRetry = time.Second
	// triesAtOnce is the number of calls in a row without growing back-off: most calls that fail were
	// answered by an instance that does not lead.
	triesAtOnce = 10
)

// Run keeps the node joined to the endpoints service until ctx ends, and returns ctx's error.
func (c *Coordinator) Run(ctx context.Context) error {
	pace := backoff.Backoff{Min: minRetry, Max: maxRetry}
	for failures := 0; ; failures++ {
		joined, err := c.join(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if joined {
			failures = 0
		}
		if failures < triesAtOnce {
			pace.Reset()
		}
		pause := pace.Next(err)
		c.cfg.Log.Debug("Failed to connect to the endpoints service", zap.Error(err), zap.Duration(metrics.KeyRetryAfter, pause))
		if err := backoff.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// end is how a stream ended.
type end struct {
	joined bool // the leader had answered
	err    error
}

// join runs one stream until it ends, and reports whether the leader answered on it.
func (c *Coordinator) join(ctx context.Context) (joined bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.cfg.Endpoints.Acknowledge(ctx, grpc.WaitForReady(true))
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	// The leader may be another instance now, and the revisions that other nodes wait for differ.
	c.asked, c.wanted = 0, 0
	c.mu.Unlock()
	sent := c.request(nil)
	sent.Node = c.cfg.Node
	if err := stream.Send(sent); err != nil {
		_, err = stream.Recv()
		return false, err
	}
	received, first := make(chan end, 1), sent
	// It ends with ctx.
	go func() {
		for joined := false; ; joined = true {
			news, err := stream.Recv()
			if err != nil {
				received <- end{joined, err}
				return
			}
			if !joined {
				c.cfg.Log.Info("Connected to the endpoints service", zap.Int64(metrics.KeyRevision, first.GetProgrammed()))
			}
			c.take(news)
		}
	}()
	for {
		select {
		case e := <-received:
			return e.joined, e.err
		case <-c.wake:
			if next := c.request(sent); next != nil {
				if err := stream.Send(next); err != nil {
					e := <-received
					return e.joined, e.err
				}
				sent = next
			}
		}
	}
}

// request returns the next message after the last one sent, nil for none.
func (c *Coordinator) request(last *endpointsv1.AcknowledgeRequest) *endpointsv1.AcknowledgeRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked <= c.everywhere {
		c.asked = 0
		if c.pending > c.everywhere {
			c.asked = c.pending
		}
	}
	next := &endpointsv1.AcknowledgeRequest{Programmed: c.programmed, Await: c.asked}
	if last == nil || next.Await != last.GetAwait() || next.Programmed != last.GetProgrammed() && last.GetProgrammed() < c.wanted {
		return next
	}
	return nil
}

// take records a response of the endpoints service.
func (c *Coordinator) take(news *endpointsv1.AcknowledgeResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = news.GetWanted()
	if news.GetEverywhere() > c.everywhere || !slices.Equal(news.GetBehind(), c.behind) {
		c.everywhere, c.behind = max(c.everywhere, news.GetEverywhere()), news.GetBehind()
		close(c.changed)
		c.changed = make(chan struct{})
	}
	signal(c.wake)
}
