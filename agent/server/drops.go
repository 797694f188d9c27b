package server

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/agent/datapath"
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
	lastUnrouted, nextUnrouted, stopUnrouted := s.cfg.Network.Unrouted()
	defer stopUnrouted()
	send := func(d *nodev1.DropsResponse) error {
		if !wanted(req, d) {
			return nil
		}
		return stream.Send(d)
	}
	var all []*nodev1.DropsResponse
	for _, d := range last {
		all = append(all, dropResponse(d))
	}
	for _, d := range lastUnrouted {
		all = append(all, unroutedResponse(d))
	}
	slices.SortStableFunc(all, func(a, b *nodev1.DropsResponse) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
	for _, d := range all {
		if err := send(d); err != nil {
			return err
		}
	}
	for req.GetFollow() {
		var d *nodev1.DropsResponse
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case p := <-next:
			d = dropResponse(p)
		case u := <-nextUnrouted:
			d = unroutedResponse(u)
		}
		if err := send(d); err != nil {
			return err
		}
	}
	return nil
}

// wanted reports whether a drop was asked for. That of a pod is at either end; what was not routed
// is no pod's, and of the namespace of the service that it was for.
func wanted(req *nodev1.DropsRequest, d *nodev1.DropsResponse) bool {
	if t := req.GetTarget(); t.GetPod() != "" {
		name := t.GetNamespace() + "/" + t.GetPod()
		return d.GetPod() == name || d.GetPeer() == name
	}
	prefix := req.GetNamespace() + "/"
	return prefix == "/" || strings.HasPrefix(cmp.Or(d.GetPod(), strings.TrimPrefix(d.GetService(), "pod ")), prefix)
}

func dropResponse(d policy.Drop) *nodev1.DropsResponse {
	return &nodev1.DropsResponse{
		Time: timestamppb.New(d.Time), Direction: d.Direction.String(), Pod: d.Pod, Peer: d.Peer, From: end(d.From(), d.Protocol),
		To:       end(d.To(), d.Protocol),
		Protocol: d.Protocol.String(), Reason: d.Reason, Message: d.Rule, Skipped: int64(d.Skipped),
	}
}

func unroutedResponse(d datapath.Drop) *nodev1.DropsResponse {
	out := &nodev1.DropsResponse{
		Time: timestamppb.New(d.Time), From: "a socket", To: end(d.Destination, policy.Protocol(d.Protocol)),
		Protocol: policy.Protocol(d.Protocol).String(),
		Reason:   d.Reason, Message: d.Message, Skipped: int64(d.Skipped), Service: d.Service,
	}
	if d.Source.IsValid() {
		out.From = end(d.Source, policy.Protocol(d.Protocol))
	}
	return out
}

// end is an address, with its port where there are ports.
func end(a netip.AddrPort, p policy.Protocol) string {
	if p == policy.TCP || p == policy.UDP {
		return a.String()
	}
	return a.Addr().String()
}
