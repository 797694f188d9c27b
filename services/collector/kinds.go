package collector

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// discoveryInterval is the interval of discovery, as in Kubernetes' collector.
const discoveryInterval = 30 * time.Second

// dynamicKinds keeps the graph to the dynamic kinds of the scheme. Each has a term of its own,
// which ends when the kind is removed.
type dynamicKinds struct {
	kinds *scheme.Scheme
	graph *graph
	term  *controller.Term
	add   func(*controller.Term, *scheme.Kind)
}

// run works until ctx ends, or an election is lost.
func (d *dynamicKinds) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	ends := map[*scheme.Kind]context.CancelFunc{}
	for {
		kinds, changed := d.kinds.Watch()
		registered := map[*scheme.Kind]bool{}
		for _, k := range kinds {
			registered[k] = true
			if !k.Dynamic || ends[k] != nil {
				continue
			}
			under, end := context.WithCancel(ctx)
			ends[k] = end
			term := d.term.Child(under)
			d.add(term, k)
			running.Go(func() {
				if err := term.Run(); apierr.IsElectionLost(err) || under.Err() == nil {
					cancel(err)
				}
			})
		}
		for k, end := range ends {
			if !registered[k] {
				end()
				delete(ends, k)
				d.graph.remove(k)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		}
	}
}

// discover keeps the dynamic kinds of a scheme to those that the server stores, until ctx ends.
func discover(ctx context.Context, c *client.Client, kinds *scheme.Scheme, log *zap.Logger) error {
	tick := time.NewTicker(discoveryInterval)
	defer tick.Stop()
	for {
		err := discoverOnce(ctx, c, kinds)
		// A server of an older version has no other kinds.
		if err != nil && ctx.Err() == nil && apierr.Code(err) != codes.Unimplemented {
			log.Warn("Failed to discover kinds", zap.Error(err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func discoverOnce(ctx context.Context, c *client.Client, kinds *scheme.Scheme) error {
	ctx, cancel := context.WithTimeout(ctx, client.DefaultTimeout)
	defer cancel()
	listed, err := c.Discovery().ListKinds(ctx, &apiv1.ListKindsRequest{})
	if err != nil {
		return fmt.Errorf("list kinds: %w", err)
	}
	served := map[scheme.GVK]bool{}
	var add, remove []*scheme.Kind
	for _, d := range listed.GetKinds() {
		gvk := scheme.GVK{Group: d.GetGroup(), Version: d.GetVersion(), Kind: d.GetKind()}
		if !d.GetStored() {
			continue
		}
		served[gvk] = true
		if _, known := kinds.ByGVK(gvk); known {
			continue
		}
		schema, err := c.Discovery().GetSchema(ctx, &apiv1.GetSchemaRequest{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind})
		if err != nil {
			return fmt.Errorf("schema of %s: %w", gvk, err)
		}
		k, err := scheme.FromDescription(d, schema, nil)
		if err != nil {
			return err
		}
		add = append(add, k)
	}
	for _, k := range kinds.Kinds() {
		if k.Dynamic && !served[k.GVK()] {
			remove = append(remove, k)
		}
	}
	if len(add)+len(remove) == 0 {
		return nil
	}
	return kinds.Replace(remove, add)
}
