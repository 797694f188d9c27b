package clienttest

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// lease is a granted lease with the objects that live as long as it.
type lease struct {
	ttl     time.Duration
	lapse   *time.Timer
	objects map[objectKey]struct{}
}

func leaseNotFound(id int64) error {
	return apierr.New(codes.NotFound, apierr.ReasonNotFound, "lease "+format(id)+" not found")
}

// Grant implements apiv1.LeaseServiceServer.
func (s *Server) Grant(_ context.Context, req *apiv1.GrantRequest) (*apiv1.GrantResponse, error) {
	if err := s.enter("Grant", req); err != nil {
		return nil, err
	}
	if ttl := req.GetTtlSeconds(); ttl < 2 || ttl > 3600 {
		return nil, apierr.BadField("ttl_seconds", "must be from 2 to 3600, and is %d", ttl)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ttl := req.GetLeaseId(), max(time.Duration(req.GetTtlSeconds())*time.Second, s.advised)
	switch l := s.leases[id]; {
	case l != nil:
		l.lapse.Reset(l.ttl)
		return &apiv1.GrantResponse{LeaseId: id, TtlSeconds: int64(l.ttl / time.Second)}, nil
	case id == 0:
		s.nextLease++
		id = s.nextLease
	}
	s.leases[id] = &lease{ttl: ttl, lapse: time.AfterFunc(ttl, func() { s.EndLease(id) }), objects: map[objectKey]struct{}{}}
	return &apiv1.GrantResponse{LeaseId: id, TtlSeconds: int64(ttl / time.Second)}, nil
}

// KeepAlive implements apiv1.LeaseServiceServer.
func (s *Server) KeepAlive(stream grpc.BidiStreamingServer[apiv1.KeepAliveRequest, apiv1.KeepAliveResponse]) error {
	if err := s.enter("KeepAlive", nil); err != nil {
		return err
	}
	s.mu.Lock()
	cut := s.cut
	s.mu.Unlock()
	ended := make(chan error, 1)
	go func() {
		for {
			req, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				err = nil
			} else if err == nil {
				if err = s.renew(req.GetLeaseId(), stream); err == nil {
					continue
				}
			}
			ended <- err
			return
		}
	}()
	select {
	case err := <-ended:
		return err
	case <-cut:
		return apierr.Unavailable("the server cut the stream")
	}
}

func (s *Server) renew(id int64, stream grpc.BidiStreamingServer[apiv1.KeepAliveRequest, apiv1.KeepAliveResponse]) error {
	if err := s.enter("Renew", &apiv1.KeepAliveRequest{LeaseId: id}); err != nil {
		return err
	}
	s.mu.Lock()
	l, advised := s.leases[id], s.advised
	if l != nil {
		l.lapse.Reset(l.ttl)
	}
	s.mu.Unlock()
	if l == nil {
		return leaseNotFound(id)
	}
	resp := &apiv1.KeepAliveResponse{LeaseId: id, TtlSeconds: int64(l.ttl / time.Second)}
	if advised > l.ttl {
		resp.AdvisedTtlSeconds = int64(advised / time.Second)
	}
	return stream.Send(resp)
}

// AdviseTTL makes the server grant leases of at least ttl from now on, and advise that to those
// that renew shorter ones.
func (s *Server) AdviseTTL(ttl time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advised = ttl
}

// Revoke implements apiv1.LeaseServiceServer.
func (s *Server) Revoke(_ context.Context, req *apiv1.RevokeRequest) (*apiv1.RevokeResponse, error) {
	if err := s.enter("Revoke", req); err != nil {
		return nil, err
	}
	if !s.EndLease(req.GetLeaseId()) {
		return nil, leaseNotFound(req.GetLeaseId())
	}
	return &apiv1.RevokeResponse{}, nil
}

// EndLease makes a lease lapse now, with the objects under it, and reports whether there was one.
func (s *Server) EndLease(id int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[id]
	if l == nil {
		return false
	}
	l.lapse.Stop()
	delete(s.leases, id)
	t := s.begin()
	for k := range l.objects {
		t.remove(k)
	}
	t.commit()
	return true
}

// attach moves an object from the lease it was under to the one it is under now.
func (s *Server) attach(k objectKey, old, now *record) {
	if old != nil {
		if l := s.leases[old.lease]; l != nil {
			delete(l.objects, k)
		}
	}
	if now != nil {
		if l := s.leases[now.lease]; l != nil {
			l.objects[k] = struct{}{}
		}
	}
}
