package controller

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	controlv1 "github.com/xebec-project/xebec/proto/xebec/control/v1"
)

// ReasonNotLeader is the reason of a call that only the leader can serve.
const ReasonNotLeader = "NOT_LEADER"

// Register adds the group's ControllerService to a server.
func (g *Group) Register(r grpc.ServiceRegistrar) {
	controlv1.RegisterControllerServiceServer(r, &service{group: g})
}

// service is the ControllerService of a group.
type service struct {
	controlv1.UnimplementedControllerServiceServer
	group *Group
}

// ListControllers shows the election, and the controllers when this instance leads.
func (s *service) ListControllers(_ context.Context, req *controlv1.ListControllersRequest) (*controlv1.ListControllersResponse, error) {
	if err := s.check(req.GetService()); err != nil {
		return nil, err
	}
	resp := &controlv1.ListControllersResponse{Instance: s.group.identity, Leader: s.group.Leader()}
	if t := s.group.current(); t != nil {
		for _, c := range t.controllers {
			resp.Controllers = append(resp.Controllers, c.state())
		}
		slices.SortFunc(resp.Controllers, func(a, b *controlv1.Controller) int {
			return strings.Compare(a.GetName(), b.GetName())
		})
	}
	return resp, nil
}

// Resync queues every object of one controller, or of all.
func (s *service) Resync(_ context.Context, req *controlv1.ResyncRequest) (*controlv1.ResyncResponse, error) {
	if err := s.check(req.GetService()); err != nil {
		return nil, err
	}
	t := s.group.current()
	if t == nil {
		leader := s.group.Leader()
		if leader == "" {
			leader = "nobody"
		}
		return nil, apierr.FailedPrecondition(ReasonNotLeader, s.group.cfg.Service,
			"%s does not lead: %s does", s.group.identity, leader)
	}
	resp := &controlv1.ResyncResponse{}
	found := req.GetController() == ""
	for _, c := range t.controllers {
		if req.GetController() == "" || req.GetController() == c.name {
			found = true
			resp.Keys += c.resync()
		}
	}
	if !found {
		return nil, apierr.New(codes.NotFound, apierr.ReasonNotFound,
			s.group.cfg.Service+" has no controller "+req.GetController())
	}
	return resp, nil
}

func (s *service) check(service string) error {
	if service != "" && service != s.group.cfg.Service {
		return apierr.BadField("service", "this is %s and not %s", s.group.cfg.Service, service)
	}
	return nil
}
