package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/apierr"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// Stats implements nodev1.NodeServiceServer.
func (s *Server) Stats(_ context.Context, req *nodev1.StatsRequest) (*nodev1.StatsResponse, error) {
	t := req.GetTarget()
	if err := s.check(t, t.GetPod() != ""); err != nil {
		return nil, err
	}
	out := &nodev1.StatsResponse{Time: timestamppb.Now()}
	if t.GetPod() == "" {
		u, err := runtime.CgroupUsage(s.cfg.Cgroup)
		if err != nil {
			return nil, apierr.Unavailable("%v", err)
		}
		out.Node = usage(u)
	}
	pods, err := s.cfg.Pods.Stats(t.GetNamespace(), t.GetPod())
	if err != nil {
		return nil, failure(err, t.GetNamespace()+"/"+t.GetPod())
	}
	for _, p := range pods {
		one := &nodev1.PodStats{Namespace: p.Namespace, Name: p.Name, Uid: p.UID, Usage: usage(p.Usage)}
		for _, c := range p.Containers {
			one.Containers = append(one.Containers, &nodev1.ContainerStats{Name: c.Name, Usage: usage(c.Usage)})
		}
		out.Pods = append(out.Pods, one)
	}
	return out, nil
}

func usage(u runtime.Usage) *nodev1.Usage {
	return &nodev1.Usage{CpuNanoseconds: u.CPU.Nanoseconds(), MemoryBytes: u.Memory, Processes: u.Processes}
}
