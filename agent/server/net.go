package server

import (
	"context"

	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// ListConnections implements nodev1.NodeServiceServer.
func (s *Server) ListConnections(_ context.Context, req *nodev1.ListConnectionsRequest) (*nodev1.ListConnectionsResponse, error) {
	if err := s.check(req.GetTarget(), false); err != nil {
		return nil, err
	}
	resp, err := s.cfg.Network.Connections(req)
	return resp, failure(err, s.cfg.Node)
}

// TraceConnection implements nodev1.NodeServiceServer.
func (s *Server) TraceConnection(_ context.Context, req *nodev1.TraceConnectionRequest) (*nodev1.TraceConnectionResponse, error) {
	if err := s.check(req.GetTarget(), false); err != nil {
		return nil, err
	}
	resp, err := s.cfg.Network.Trace(req)
	return resp, failure(err, s.cfg.Node)
}
