package elected

import (
	"cmp"
	"context"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	controlv1 "github.com/xebec-project/xebec/proto/xebec/control/v1"
)

// ReasonNotLeader is the reason of a refused call that only the leader can serve.
const ReasonNotLeader = "NOT_LEADER"

// controllerService is the ControllerService of an elected service.
type controllerService struct {
	controlv1.UnimplementedControllerServiceServer
	election *election
}

// ListControllers shows the election, and the controllers when this instance leads.
func (s *controllerService) ListControllers(
	_ context.Context,
	req *controlv1.ListControllersRequest,
) (*controlv1.ListControllersResponse, error) {
	if err := s.check(req.GetService()); err != nil {
		return nil, err
	}
	resp := &controlv1.ListControllersResponse{Instance: s.election.identity, Leader: s.election.leader()}
	if t := s.election.current(); t != nil {
		resp.Controllers = t.Controllers()
	}
	return resp, nil
}

// Resync enqueues every object of one controller, or of all.
func (s *controllerService) Resync(_ context.Context, req *controlv1.ResyncRequest) (*controlv1.ResyncResponse, error) {
	if err := s.check(req.GetService()); err != nil {
		return nil, err
	}
	name := s.election.cfg.Name
	t := s.election.current()
	if t == nil {
		leader := cmp.Or(s.election.leader(), "none")
		return nil, apierr.FailedPrecondition(ReasonNotLeader, name, "%s is not the leader: the leader is %s", s.election.identity, leader)
	}
	keys, found := t.Resync(req.GetController())
	if !found {
		return nil, apierr.New(codes.NotFound, apierr.ReasonNotFound, name+" has no controller "+req.GetController())
	}
	return &controlv1.ResyncResponse{Keys: keys}, nil
}

func (s *controllerService) check(service string) error {
	if name := s.election.cfg.Name; service != "" && service != name {
		return apierr.BadField("service", "this is %s and not %s", name, service)
	}
	return nil
}
