package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// renewals sends the renewals of all leases over one stream to etcd. etcd's client opens a stream
// for each call, or keeps a goroutine and timers per lease, while here the holders of the leases
// decide when to renew.
//
// etcd answers in the order of the requests.
type renewals struct {
	cli     *clientv3.Client
	timeout *adaptiveTimeout

	mu     sync.Mutex
	stream *renewalStream // nil while there is none
}

// renewalStream is one stream and the renewals that wait for its answers, oldest first.
type renewalStream struct {
	grpc   pb.Lease_LeaseKeepAliveClient
	cancel context.CancelFunc

	mu      sync.Mutex
	waiting []waitingRenewal
	answers int64 // so far
	err     error // once the stream has ended
}

func (s *renewalStream) answered() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers
}

// waitingRenewal is a renewal that was sent.
type waitingRenewal struct {
	answer chan<- renewed
	sent   time.Time
}

// renewed is the answer to one renewal.
type renewed struct {
	ttl int64
	err error
}

// maxRenewals bounds how many renewals wait for etcd on one stream.
const maxRenewals = 10000

var errTooManyRenewals = errors.New("too many renewals wait for etcd")

// errSilent says that a member sent no answer within the timeout. It is transient.
var errSilent = fmt.Errorf("a member of etcd answers no renewals: %w", context.DeadlineExceeded)

// renew sends one renewal and waits for its answer, a time to live of 0 when there is no such
// lease. A caller that gives up does not end the stream of the others. Only a member that sends no
// answer for longer than members usually take is given up, and all renewals that wait for it fail;
// a slow member keeps its stream.
func (r *renewals) renew(ctx context.Context, id int64) (int64, error) {
	answer := make(chan renewed, 1)
	stream, err := r.ask(id, answer)
	if err != nil {
		return 0, err
	}
	limit := r.timeout.limit()
	silence := time.NewTimer(limit)
	defer silence.Stop()
	for before := stream.answered(); ; {
		select {
		case a := <-answer:
			return a.ttl, a.err
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-silence.C:
			now := stream.answered()
			if now == before {
				r.timeout.exceeded(limit)
				r.drop(stream)
				return 0, errSilent
			}
			before, limit = now, r.timeout.limit()
			silence.Reset(limit)
		}
	}
}

// ask sends a renewal on the stream, which it opens if there is none.
func (r *renewals) ask(id int64, answer chan<- renewed) (*renewalStream, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream == nil {
		ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(r.cli.Ctx()))
		grpc, err := pb.NewLeaseClient(r.cli.ActiveConnection()).LeaseKeepAlive(ctx)
		if err != nil {
			cancel()
			return nil, err
		}
		r.stream = &renewalStream{grpc: grpc, cancel: cancel}
		// Ends with the stream: at the latest when the client is closed.
		go r.receive(r.stream)
	}
	s := r.stream
	// Queued before it is sent: the answer may come at once. r.mu keeps both in one order.
	s.mu.Lock()
	err := s.err
	switch {
	case err != nil:
	case len(s.waiting) >= maxRenewals:
		err = errTooManyRenewals
	default:
		s.waiting = append(s.waiting, waitingRenewal{answer, time.Now()})
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := s.grpc.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil && !errors.Is(err, io.EOF) {
		s.cancel() // receive then fails the renewals that wait
	}
	return s, nil
}

// receive passes the answers to the renewals that wait, until the stream ends.
func (r *renewals) receive(s *renewalStream) {
	defer s.cancel()
	for {
		resp, err := s.grpc.Recv()
		s.mu.Lock()
		if err != nil {
			s.err = err
			waiting := s.waiting
			s.waiting = nil
			s.mu.Unlock()
			r.drop(s)
			for _, w := range waiting {
				w.answer <- renewed{err: err}
			}
			return
		}
		var w waitingRenewal
		if len(s.waiting) > 0 {
			w, s.waiting = s.waiting[0], s.waiting[1:]
		}
		s.answers++
		s.mu.Unlock()
		if w.answer != nil {
			r.timeout.answered(time.Since(w.sent))
			w.answer <- renewed{ttl: resp.TTL}
		}
	}
}

// drop ends a stream; the next renewal opens another.
func (r *renewals) drop(s *renewalStream) {
	s.cancel() // first: the goroutine that holds the lock may be blocked in sending
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream == s {
		r.stream = nil
	}
}

// LeaseKeepAlive renews a lease and returns its time to live in seconds; ErrLeaseNotFound when it
// has expired. It costs etcd no disk write.
func (s *Store) LeaseKeepAlive(ctx context.Context, id int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	pauses := newBackoff()
	for {
		// A renewal is idempotent, so it is repeated. A member that hangs must not delay it.
		ttl, err := s.renewals.renew(ctx, id)
		switch {
		case err == nil && ttl <= 0:
			return 0, fmt.Errorf("renew lease: %w", ErrLeaseNotFound)
		case err == nil:
			return ttl, nil
		case ctx.Err() != nil || !transient(err):
			return 0, fmt.Errorf("renew lease: %w", readError(err))
		}
		if pauses.Wait(ctx, err) != nil {
			return 0, fmt.Errorf("renew lease: %w", readError(err))
		}
	}
}
