package gateway

import (
	"context"
	"strings"

	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/method"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/wire"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	controlv1 "github.com/xebec-project/xebec/proto/xebec/control/v1"
	endpointsv1 "github.com/xebec-project/xebec/proto/xebec/endpoints/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
)

// route says where the calls of one gRPC service go.
type route struct {
	desc *grpc.ServiceDesc
	// target returns the connection for a call, given its first message, and a function to call when
	// the call is over.
	target func(ctx context.Context, fullMethod string, first *rpc.Frame) (*grpc.ClientConn, func(), error)
}

// routes is the table of all services behind the gateway.
func (s *Service) routes() []route {
	return []route{
		{&apiv1.ResourceService_ServiceDesc, s.service("apiserver")},
		{&apiv1.LeaseService_ServiceDesc, s.service("apiserver")},
		{&apiv1.DiscoveryService_ServiceDesc, s.service("apiserver")},
		{&schedulerv1.SchedulerService_ServiceDesc, s.service("scheduler")},
		{&endpointsv1.EndpointsService_ServiceDesc, s.service("endpoints")},
		{&controlv1.ControllerService_ServiceDesc, s.namedService},
		{&nodev1.NodeService_ServiceDesc, s.node},
		{&authv1.TokenService_ServiceDesc, s.service("auth")},
		{&authv1.AccessService_ServiceDesc, s.service("apiserver")},
	}
}

func nothing() {}

// service sends calls to one service.
func (s *Service) service(name string) func(context.Context, string, *rpc.Frame) (*grpc.ClientConn, func(), error) {
	return func(context.Context, string, *rpc.Frame) (*grpc.ClientConn, func(), error) {
		conn, err := s.backends.connection(name)
		return conn, nothing, err
	}
}

// namedService sends a call to the service that field 1 of its request names, as
// ControllerService's requests do.
func (s *Service) namedService(ctx context.Context, _ string, first *rpc.Frame) (*grpc.ClientConn, func(), error) {
	name, err := wire.String(first.Bytes(), 1)
	if err != nil {
		return nil, nil, apierr.BadRequest("the request does not decode: %v", err)
	}
	if name == "" {
		return nil, nil, apierr.BadField("service", "required: the gateway serves many")
	}
	conn, err := s.backends.registered(ctx, name)
	return conn, nothing, err
}

// node sends a call to the agent of the node that its request's target names.
func (s *Service) node(ctx context.Context, fullMethod string, first *rpc.Frame) (*grpc.ClientConn, func(), error) {
	target, message := targetPath(fullMethod), first.Bytes()
	var fields [3]string // node, namespace and name of a pod
	for i := range fields {
		var err error
		if fields[i], err = wire.String(message, append(target, protowire.Number(i+1))...); err != nil {
			return nil, nil, apierr.BadRequest("the request does not decode: %v", err)
		}
	}
	return s.nodes.agent(ctx, fields[0], fields[1], fields[2])
}

// nodeMethods precedes the full names of the methods of node agents.
const nodeMethods = "/xebec.node.v1.NodeService/"

func isNodeCall(fullMethod string) bool { return strings.HasPrefix(fullMethod, nodeMethods) }

// targetPath leads to the target in the first message of a call to a node: field 1 or, for an exec
// or an attachment, field 1 of the start in field 1.
func targetPath(fullMethod string) []protowire.Number {
	if fullMethod == nodev1.NodeService_Exec_FullMethodName || fullMethod == nodev1.NodeService_Attach_FullMethodName {
		return []protowire.Number{1, 1}
	}
	return []protowire.Number{1}
}

// logLevel logs the calls that the rules of their method want audited, and failures, at info.
func logLevel(fullMethod string, code codes.Code) zapcore.Level {
	if code == codes.OK && method.Rules(fullMethod).GetAudit() != metav1.AuditLevel_AUDIT_LEVEL_METADATA {
		return zapcore.DebugLevel
	}
	return zapcore.InfoLevel
}

// peekBytes is how much of a message the log looks at: an object's metadata comes first in it.
const peekBytes = 4096

// object names what a forwarded request is about, for the log.
func object(fullMethod string, req any) string {
	frame, ok := req.(*rpc.Frame)
	if !ok {
		if r, ok := req.(interface{ GetMember() string }); ok && r.GetMember() != "" {
			return rpc.ObjectName("Member", "", r.GetMember())
		}
		return rpc.Object(req)
	}
	head := frame.Head(peekBytes)
	field := func(path ...protowire.Number) string { return wire.Head(head, path...) }
	switch fullMethod {
	case apiv1.ResourceService_Create_FullMethodName, apiv1.ResourceService_Update_FullMethodName,
		apiv1.ResourceService_UpdateStatus_FullMethodName, apiv1.ResourceService_Apply_FullMethodName:
		return rpc.ObjectName(rpc.KindOf(field(1, 1)), field(1, 2, 1, 3), field(1, 2, 1, 1))
	case apiv1.ResourceService_Get_FullMethodName, apiv1.ResourceService_Delete_FullMethodName, apiv1.ResourceService_Patch_FullMethodName:
		return rpc.ObjectName(field(1, 2), field(1, 3), field(1, 4))
	case apiv1.ResourceService_List_FullMethodName, apiv1.ResourceService_Watch_FullMethodName,
		apiv1.ResourceService_DeleteCollection_FullMethodName:
		return rpc.ObjectName(field(2), field(3), "")
	case apiv1.ResourceService_Evict_FullMethodName:
		return rpc.ObjectName("Pod", field(1, 1, 3), field(1, 1, 1))
	case schedulerv1.SchedulerService_Explain_FullMethodName:
		return rpc.ObjectName("Pod", field(1), field(2))
	case endpointsv1.EndpointsService_Acknowledge_FullMethodName:
		return rpc.ObjectName("Node", "", field(1))
	case authv1.TokenService_CreateToken_FullMethodName:
		return rpc.ObjectName("ServiceAccount", field(1), field(2))
	case controlv1.ControllerService_ListControllers_FullMethodName, controlv1.ControllerService_Resync_FullMethodName:
		return field(1)
	}
	if !isNodeCall(fullMethod) {
		return ""
	}
	target := targetPath(fullMethod)
	of := func(number protowire.Number) string { return field(append(target, number)...) }
	if node := of(1); node != "" {
		return rpc.ObjectName("Node", "", node)
	}
	return rpc.ObjectName("Pod", of(2), of(3))
}
