package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/lab/topology"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// answerTimeout bounds one question to the lab while it comes up.
const answerTimeout = 5 * time.Second

// awaitReady returns when every gateway finds all services of all masters well, and every node is
// ready.
func (l *Lab) awaitReady(ctx context.Context, progress func(string)) error {
	endpoints := l.Spec.LoadEndpoints()
	for i := range endpoints {
		if err := l.await(ctx, endpoints[i:i+1], progress, l.missingServices); err != nil {
			return err
		}
	}
	return l.await(ctx, endpoints, progress, l.missingNodes)
}

// await asks the gateways at the given addresses until nothing is missing.
func (l *Lab) await(
	ctx context.Context,
	gateways []netip.AddrPort,
	progress func(string),
	missing func(context.Context, *grpc.ClientConn) (string, error),
) error {
	conn, err := l.dial(gateways)
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		began := time.Now()
		what, err := within(ctx, conn, missing)
		switch {
		case err != nil:
			progress("the API")
		case what == "":
			return nil
		default:
			progress(what)
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("still waiting for %s", what)
			}
			return fmt.Errorf("lab %s is running but not ready: %w; see xebec lab status --name %s", l.Spec.Name, err, l.Spec.Name)
		// The answer costs a handshake with every service: where processors are scarce, asking must leave
		// them to those who start.
		case <-time.After(max(pollEvery, time.Since(began))):
		}
	}
}

func within(ctx context.Context, conn *grpc.ClientConn, missing func(context.Context, *grpc.ClientConn) (string, error)) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return missing(ctx, conn)
}

// missingServices tells which services a gateway does not find yet. Those that it finds, its later
// callers reach.
func (l *Lab) missingServices(ctx context.Context, conn *grpc.ClientConn) (string, error) {
	status, err := clusterv1.NewClusterServiceClient(conn).Status(ctx, &clusterv1.StatusRequest{})
	if err != nil {
		return "", err
	}
	want := 0
	var missing []string
	for _, host := range l.Spec.MasterHosts() {
		for _, service := range topology.Services {
			if service.Name == "etcd" {
				continue
			}
			want++
			well := slices.ContainsFunc(status.GetServices(), func(s *clusterv1.ServiceInstance) bool {
				return s.GetService() == service.Name && s.GetHost() == host.Name && s.GetHealthy()
			})
			if !well {
				missing = append(missing, service.Name+"@"+host.Name)
			}
		}
	}
	if len(missing) == 0 {
		return "", nil
	}
	return fmt.Sprintf("services: %d of %d ready, missing %s", want-len(missing), want, missing[0]), nil
}

// missingNodes tells how many nodes have not registered or are not ready.
func (l *Lab) missingNodes(ctx context.Context, conn *grpc.ClientConn) (string, error) {
	list, err := apiv1.NewResourceServiceClient(conn).List(ctx, &apiv1.ListRequest{Kind: "Node"})
	if err != nil {
		return "", err
	}
	ready := 0
	for _, object := range list.GetObjects() {
		var node corev1.Node
		if err := object.UnmarshalTo(&node); err != nil {
			return "", err
		}
		if usable(&node) {
			ready++
		}
	}
	if ready >= l.Spec.Nodes {
		return "", nil
	}
	return fmt.Sprintf("nodes: %d of %d ready", ready, l.Spec.Nodes), nil
}

// usable tells whether a node is ready, and no longer marked for not having been: until the mark is
// gone pods go elsewhere.
func usable(node *corev1.Node) bool {
	marked := slices.ContainsFunc(node.GetSpec().GetTaints(), func(t *corev1.Taint) bool {
		return t.GetKey() == "node.kubernetes.io/not-ready" || t.GetKey() == "node.kubernetes.io/unreachable"
	})
	return !marked && core.NodeCondition(node, core.NodeReady).GetStatus() == condition.True
}
