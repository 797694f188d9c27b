package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/client"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/tests/cluster"
)

// simulation is a control plane with one master and simulated nodes.
type simulation struct {
	cluster *cluster.Cluster
	nodes   *cluster.Process
	conn    *grpc.ClientConn
	api     *client.Client
}

// startSimulation brings up a simulation, with changes to the services' configurations, and waits
// until all of its nodes take pods.
func (b *bench) startSimulation(
	ctx context.Context,
	nodes int,
	change func(service string, settings map[string]any),
) (*simulation, error) {
	c, err := b.startWith(ctx, 1, change)
	if err != nil {
		return nil, err
	}
	s := &simulation{cluster: c}
	if err := s.start(ctx, nodes); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *simulation) start(ctx context.Context, nodes int) (err error) {
	if s.nodes, err = s.cluster.StartHollow(nodes, nil); err != nil {
		return err
	}
	if s.conn, err = s.cluster.Dial("gateway"); err != nil {
		return err
	}
	s.api = client.New(s.conn)
	if err := waitNodes(ctx, s.api, nodes); err != nil {
		return fmt.Errorf("wait for the simulated nodes: %w", err)
	}
	// What the nodes' arrival set going is over by then.
	pause(ctx, 3*time.Second)
	return nil
}

func (s *simulation) close() {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	_ = s.cluster.Close()
}

// waitNodes returns when so many simulated nodes are known and none has a taint.
func waitNodes(ctx context.Context, api *client.Client, count int) error {
	for {
		nodes, _, err := client.List[*corev1.Node](ctx, api, client.ListOptions{})
		if err != nil {
			return err
		}
		ready := 0
		for _, n := range nodes {
			if len(n.GetSpec().GetTaints()) == 0 && len(n.GetStatus().GetAllocatable()) > 0 {
				ready++
			}
		}
		if ready == count {
			return nil
		}
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("%d of %d are ready: %w", ready, count, ctx.Err())
		}
	}
}
