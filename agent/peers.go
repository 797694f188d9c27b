package agent

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/version"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

const (
	// reachLimit bounds the asking of another agent.
	reachLimit = 10 * time.Second
	// reachReserve is how long before the end of a call its answer is on its way.
	reachReserve = 500 * time.Millisecond
)

// peers is the ReachabilityService: it reports whether this node reaches another.
type peers struct {
	nodev1.UnimplementedReachabilityServiceServer
	tls   *pki.Source
	nodes *client.Informer[*corev1.Node]
}

// Reach implements nodev1.ReachabilityServiceServer.
func (p *peers) Reach(ctx context.Context, req *nodev1.ReachRequest) (*nodev1.ReachResponse, error) {
	node, ok := p.nodes.Get("", req.GetNode())
	if !ok {
		return nil, apierr.New(codes.NotFound, apierr.ReasonNotFound, "unknown node "+req.GetNode())
	}
	address, ok := core.AgentAddress(node)
	if !ok {
		return nil, apierr.New(codes.NotFound, apierr.ReasonNotFound, "node "+req.GetNode()+" has no internal address")
	}
	limit := reachLimit
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)-reachReserve)
	}
	asking, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := rpc.Reach(
		asking,
		address,
		rpc.ClientConfig{TLS: p.tls, ServerUser: pki.NodeUser(req.GetNode()), UserAgent: "xebec-agent/" + version.Version()},
	)
	if err != nil {
		return &nodev1.ReachResponse{Problem: err.Error()}, nil
	}
	return &nodev1.ReachResponse{Answers: true}, nil
}
