package server_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/server"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/pki"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

func TestAuthorize(t *testing.T) {
	const exec, reach = nodev1.NodeService_Exec_FullMethodName, nodev1.ReachabilityService_Reach_FullMethodName
	services, masters := []string{pki.GroupServices}, []string{"system:masters"}
	for name, tt := range map[string]struct {
		id     edge.Identity
		method string
		want   codes.Code
	}{
		"administrator through the gateway": {edge.Identity{User: "ann", Groups: masters, Forwarder: "gateway"}, exec, codes.OK},
		"administrator directly":            {edge.Identity{User: "ann", Groups: masters}, exec, codes.PermissionDenied},
		"user through the gateway":          {edge.Identity{User: "bob", Forwarder: "gateway"}, exec, codes.PermissionDenied},
		"nodes service asks for reach":      {edge.Identity{User: pki.ServiceUser("nodes"), Groups: services}, reach, codes.OK},
		"nodes service through the gateway": {edge.Identity{User: pki.ServiceUser("nodes"), Groups: services, Forwarder: "gateway"}, reach, codes.PermissionDenied},
		"administrator asks for reach":      {edge.Identity{User: "ann", Groups: masters, Forwarder: "gateway"}, reach, codes.PermissionDenied},
		"nodes service asks for a shell":    {edge.Identity{User: pki.ServiceUser("nodes"), Groups: services}, exec, codes.PermissionDenied},
	} {
		if err := server.Authorize(t.Context(), tt.id, tt.method); status.Code(err) != tt.want {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func TestListServices(t *testing.T) {
	entries := []*nodev1.ServiceEntry{{Service: "default/web"}}
	fail := errors.New("map is gone")
	read := func(err error) func() ([]*nodev1.ServiceEntry, string, error) {
		return func() ([]*nodev1.ServiceEntry, string, error) { return entries, "12", err }
	}
	for name, tt := range map[string]struct {
		cfg  server.Config
		node string
		want codes.Code
	}{
		"this node":      {server.Config{Node: "n1", Services: read(nil)}, "n1", codes.OK},
		"no node named":  {server.Config{Node: "n1", Services: read(nil)}, "", codes.OK},
		"another node":   {server.Config{Node: "n1", Services: read(nil)}, "n2", codes.InvalidArgument},
		"no maps":        {server.Config{Node: "n1"}, "n1", codes.Unavailable},
		"maps not read":  {server.Config{Node: "n1", Services: read(fail)}, "n1", codes.Unavailable},
		"wrapped errors": {server.Config{Node: "n1", Services: read(fmt.Errorf("read: %w", fail))}, "n1", codes.Unavailable},
	} {
		resp, err := server.New(tt.cfg).ListServices(t.Context(), &nodev1.ListServicesRequest{Target: &nodev1.Target{Node: tt.node}})
		if status.Code(err) != tt.want {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if err == nil && (len(resp.GetServices()) != 1 || resp.GetResourceVersion() != "12") {
			t.Errorf("%s: %v", name, resp)
		}
	}
}

// logStream is the stream of a call of Logs.
type logStream struct {
	nodev1.NodeService_LogsServer
	ctx context.Context
}

func (s logStream) Context() context.Context { return s.ctx }

func TestLogsOfUnknownPod(t *testing.T) {
	s := server.New(server.Config{Node: "n1", Pods: pods.New(pods.Config{NodeName: "n1"})})
	for name, tt := range map[string]struct {
		target *nodev1.Target
		want   codes.Code
	}{
		"a pod that is not on the node": {&nodev1.Target{Namespace: "default", Pod: "web"}, codes.NotFound},
		"no namespace":                  {&nodev1.Target{Pod: "web"}, codes.InvalidArgument},
		"another node's":                {&nodev1.Target{Node: "n2", Namespace: "default", Pod: "web"}, codes.InvalidArgument},
	} {
		if err := s.Logs(&nodev1.LogsRequest{Target: tt.target}, logStream{ctx: t.Context()}); status.Code(err) != tt.want {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}
