package server

import (
	"net/netip"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/agent/policy"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// Drops implements nodev1.NodeServiceServer.
func (s *Server) Drops(req *nodev1.DropsRequest, stream grpc.ServerStreamingServer[nodev1.DropsResponse]) error {
	t := req.GetTarget()
	if err := s.check(t, t.GetPod() != ""); err != nil {
		return err
	}
	last, next, stop := s.cfg.Network.Drops()
	defer stop()
	send := func(d policy.Drop) error {
		if !wanted(req, d) {
			return nil
		}
		return stream.Send(dropResponse(d))
	}
	for _, d := range last {
		if err := send(d); err != nil {
			return err
		}
	}
	for req.GetFollow() {
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case d := <-next:
			if err := send(d); err != nil {
				return err
			}
		}
	}
	return nil
}

// wanted tells whether a drop was asked for. That of a pod is at either end.
func wanted(req *nodev1.DropsRequest, d policy.Drop) bool {
	if t := req.GetTarget(); t.GetPod() != "" {
		name := t.GetNamespace() + "/" + t.GetPod()
		return d.Pod == name || d.Peer == name
	}
	prefix := req.GetNamespace() + "/"
	return prefix == "/" || strings.HasPrefix(d.Pod, prefix)
}

func dropResponse(d policy.Drop) *nodev1.DropsResponse {
	return &nodev1.DropsResponse{
		Time: timestamppb.New(d.Time), Direction: d.Direction.String(), Pod: d.Pod, Peer: d.Peer, From: end(d.From(), d.Protocol), To: end(d.To(), d.Protocol),
		Protocol: d.Protocol.String(), Reason: d.Reason, Message: d.Rule, Skipped: int64(d.Skipped),
	}
}

// end is an address, with its port where there are ports.
func end(a netip.AddrPort, p policy.Protocol) string {
	if p == policy.TCP || p == policy.UDP {
		return a.String()
	}
	return a.Addr().String()
}
