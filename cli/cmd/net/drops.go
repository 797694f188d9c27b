package net

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

type dropsOptions struct {
	nodes      []string
	follow     bool
	namespaces bool // all
}

func dropsCommand(s *session.Session) *cobra.Command {
	var o dropsOptions
	cmd := &cobra.Command{
		Use:   "drops [POD]",
		Short: "Show packets dropped by network policies and service routing",
		Long: "Show the packets that network policies dropped, with source, destination and the policies that select the pod, and the\n" +
			"packets that service routing dropped or rejected, with the reason. Each node keeps the most recent drops and counts\n" +
			"all of them.",
		Example: "  xebec net drops\n" +
			"  xebec net drops web-0 -f\n" +
			"  xebec net drops -A --node node-1",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: resolve.CompleteOf(s, "pods"),
		RunE:              func(cmd *cobra.Command, args []string) error { return netDrops(cmd.Context(), s, args, o) },
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.follow, "follow", "f", false, "follow new drops until interrupted")
	flags.StringSliceVar(&o.nodes, "node", nil, "only these nodes")
	flags.BoolVarP(&o.namespaces, "all-namespaces", "A", false, "drops in all namespaces, and of addresses that belong to no service")
	return cmd
}

func netDrops(ctx context.Context, s *session.Session, args []string, o dropsOptions) error {
	cl := s.Client()
	namespace, err := s.DefaultNamespace()
	if err != nil {
		return err
	}
	var requests []*nodev1.DropsRequest
	switch {
	case len(args) == 1:
		pod, err := resolve.Pod(ctx, s, cl, args)
		if err != nil {
			return err
		}
		requests = append(requests, &nodev1.DropsRequest{Target: &nodev1.Target{Namespace: namespace, Pod: pod.GetMetadata().GetName()}})
	default:
		if o.namespaces {
			namespace = ""
		}
		names := o.nodes
		if len(names) == 0 {
			if names, err = nodeNames(ctx, cl); err != nil {
				return err
			}
		}
		for _, n := range names {
			requests = append(requests, &nodev1.DropsRequest{Target: &nodev1.Target{Node: n}, Namespace: namespace})
		}
	}
	if o.follow {
		return followDrops(ctx, s, requests)
	}
	return lastDrops(ctx, s, requests)
}

func nodeNames(ctx context.Context, cl *client.Client) ([]string, error) {
	nodes, _, err := client.List[*corev1.Node](ctx, cl, client.ListOptions{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range nodes {
		names = append(names, n.GetMetadata().GetName())
	}
	slices.Sort(names)
	return names, nil
}

// lastDrops shows what the nodes remember, of all of them in the order in which it happened.
func lastDrops(ctx context.Context, s *session.Session, requests []*nodev1.DropsRequest) error {
	ctx, cancel := s.Bounded(ctx)
	defer cancel()
	var mu sync.Mutex
	var all []*nodev1.DropsResponse
	failures := eachDrop(ctx, s, requests, func(d *nodev1.DropsResponse) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, d)
	})
	slices.SortStableFunc(all, func(a, b *nodev1.DropsResponse) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
	t := &printer.Table{Heads: []string{"TIME", "DIRECTION", "PROTOCOL", "FROM", "TO", "REASON"}, Keep: 2}
	for _, d := range all {
		t.Add(dropCells(d)...)
	}
	if len(all) > 0 {
		t.Print(s.Out)
	} else if failures == nil {
		s.Notef("No recent drops.")
	}
	return failures
}

// followDrops shows drops as they happen.
func followDrops(ctx context.Context, s *session.Session, requests []*nodev1.DropsRequest) error {
	var mu sync.Mutex
	for _, r := range requests {
		r.Follow = true
	}
	return eachDrop(ctx, s, requests, func(d *nodev1.DropsResponse) {
		mu.Lock()
		defer mu.Unlock()
		if d.GetSkipped() > 0 {
			s.Notef("%d more drops were counted but not recorded.", d.GetSkipped())
		}
		s.Printf("%s\n", strings.Join(dropCells(d), "  "))
	})
}

// eachDrop asks all nodes at once. One that cannot be asked does not keep others from being shown.
func eachDrop(ctx context.Context, s *session.Session, requests []*nodev1.DropsRequest, show func(*nodev1.DropsResponse)) error {
	var group errgroup.Group
	for _, r := range requests {
		group.Go(func() error {
			err := dropsOf(ctx, s, r, show)
			if err == nil || len(requests) == 1 || ctx.Err() != nil {
				return err
			}
			s.Notef("Node %s: %s", r.GetTarget().GetNode(), apierr.Message(err))
			return exit.Some
		})
	}
	return group.Wait()
}

func dropsOf(ctx context.Context, s *session.Session, r *nodev1.DropsRequest, show func(*nodev1.DropsResponse)) error {
	stream, err := nodev1.NewNodeServiceClient(s).Drops(ctx, r)
	if err != nil {
		return err
	}
	for {
		d, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		show(d)
	}
}

func dropCells(d *nodev1.DropsResponse) []string {
	from, to := d.GetFrom(), d.GetTo()
	// The pod that policies select is one end, its peer the other.
	source, target := d.GetPeer(), d.GetPod()
	if d.GetDirection() == "egress" {
		source, target = target, source
	}
	if d.GetService() != "" {
		target = d.GetService()
	}
	return []string{
		d.GetTime().
			AsTime().
			Local().
			Format(time.TimeOnly),
		cmp.Or(d.GetDirection(), "-"), d.GetProtocol(), named(from, source), named(to, target), d.GetMessage(),
	}
}

// named is an address with the name of who has it, if that is known.
func named(addr, name string) string {
	if name == "" {
		return addr
	}
	return addr + " (" + name + ")"
}
