package net

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// parallel is how many nodes are asked at once.
const parallel = 16

type connectionsOptions struct {
	nodes   []string
	service string
	output  string
	watch   bool
	every   time.Duration
}

func connectionsCommand(s *session.Session) *cobra.Command {
	var o connectionsOptions
	cmd := &cobra.Command{
		Use:   "connections",
		Short: "List tracked connections of nodes and their endpoints",
		Long: "List the connections that nodes track: from external clients to services (in), from pods to external addresses (out),\n" +
			"from external clients to pods (direct), and from sockets on nodes to services by datagrams (socket). TCP connections\n" +
			"from sockets on a node to a service are translated when they connect and are not tracked.",
		Example: "  xebec net connections\n" +
			"  xebec net connections --node node-1 --service echo -w",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return netConnections(cmd.Context(), s, o) },
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&o.nodes, "node", nil, "only these nodes")
	flags.StringVar(&o.service, "service", "", "only connections to this service, NAME or NAMESPACE/NAME")
	flags.StringVarP(&o.output, "output", "o", "", "output format: wide, json, yaml or jsonpath=TEMPLATE")
	flags.BoolVarP(&o.watch, "watch", "w", false, "repeat the list until interrupted")
	flags.DurationVar(&o.every, "interval", 2*time.Second, "interval of --watch")
	return cmd
}

func netConnections(ctx context.Context, s *session.Session, o connectionsOptions) error {
	f, err := printer.ParseFormat(o.output)
	if err != nil {
		return err
	}
	if o.watch && (f.Structured() || o.every <= 0) {
		return exit.Usagef("--watch requires table output and an --interval greater than 0")
	}
	cl := s.Client()
	if o.service != "" && !strings.Contains(o.service, "/") {
		namespace, err := s.DefaultNamespace()
		if err != nil {
			return err
		}
		o.service = namespace + "/" + o.service
	}
	for {
		rows, err := connectionsOf(ctx, s, cl, o)
		if err != nil {
			return err
		}
		if f.Structured() {
			return printConnections(s, f, rows)
		}
		connectionsTable(rows, f.Name == printer.Wide).Print(s.Out)
		if !o.watch {
			return nil
		}
		timer := time.NewTimer(o.every)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		fmt.Fprintln(s.Out)
	}
}

// nodeConnection is a connection and the node that knows of it.
type nodeConnection struct {
	node string
	*nodev1.Connection
}

// connectionsOf asks the nodes, which may be many, some at a time.
func connectionsOf(ctx context.Context, s *session.Session, cl *client.Client, o connectionsOptions) ([]nodeConnection, error) {
	names := o.nodes
	if len(names) == 0 {
		nodes, _, err := client.List[*corev1.Node](ctx, cl, client.ListOptions{})
		if err != nil {
			return nil, err
		}
		for _, n := range nodes {
			names = append(names, n.GetMetadata().GetName())
		}
	}
	slices.Sort(names)
	found, failed := make([]*nodev1.ListConnectionsResponse, len(names)), make([]error, len(names))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, name := range names {
		group.Go(func() (err error) {
			found[i], err = nodev1.NewNodeServiceClient(s).
				ListConnections(ctx, &nodev1.ListConnectionsRequest{Target: &nodev1.Target{Node: name}, Service: o.service})
			if len(o.nodes) == 0 {
				failed[i], err = err, nil // the others' are worth seeing
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var rows []nodeConnection
	for i, resp := range found {
		if failed[i] != nil {
			s.Notef("Node %s: %s", names[i], apierr.Message(failed[i]))
		}
		for _, c := range resp.GetConnections() {
			rows = append(rows, nodeConnection{names[i], c})
		}
		if resp.GetLeftOut() > 0 {
			s.Notef("Node %s has %d more connections: --service selects fewer.", names[i], resp.GetLeftOut())
		}
	}
	slices.SortStableFunc(rows, func(a, b nodeConnection) int { return cmp.Compare(a.node, b.node) })
	return rows, nil
}

func connectionsTable(rows []nodeConnection, wide bool) *printer.Table {
	t := &printer.Table{
		Heads: []string{"NODE", "DIRECTION", "PROTOCOL", "SOURCE", "DESTINATION", "ENDPOINT", "SERVICE", "STATE", "IDLE"},
		Keep:  5,
	}
	if wide {
		t.Heads = append(t.Heads, "SEEN-AS")
	}
	for _, c := range rows {
		endpoint, idle := c.GetTranslatedDestination(), "-"
		if c.GetWay() == "out" || c.GetWay() == "direct" {
			endpoint = "-"
		}
		if c.GetState() != "" {
			idle = (time.Duration(c.GetIdleSeconds()) * time.Second).String()
		}
		row := []string{
			c.node,
			c.GetWay(),
			c.GetProtocol(),
			c.GetSource(),
			c.GetDestination(),
			endpoint,
			cmp.Or(c.GetService(), "-"),
			cmp.Or(c.GetState(), "-"),
			idle,
		}
		if wide {
			row = append(row, c.GetTranslatedSource())
		}
		t.Add(row...)
	}
	return t
}

func printConnections(s *session.Session, f printer.Format, rows []nodeConnection) error {
	items := make([]map[string]any, 0, len(rows))
	for _, c := range rows {
		items = append(items, map[string]any{
			"node": c.node, "way": c.GetWay(), "protocol": c.GetProtocol(), "source": c.GetSource(), "destination": c.GetDestination(),
			"translatedSource": c.GetTranslatedSource(), "translatedDestination": c.GetTranslatedDestination(),
			"service": c.GetService(), "state": c.GetState(), "idleSeconds": c.GetIdleSeconds(),
		})
	}
	return f.PrintValue(s.Out, map[string]any{"connections": items})
}
