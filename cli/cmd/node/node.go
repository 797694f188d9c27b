// Package node holds the commands about nodes: what their maps hold, cordon, drain and taint.
package node

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// Command returns the command node.
func Command(s *session.Session) *cobra.Command {
	return command.Family("node", "Inspect a node", servicesCommand(s), featuresCommand(s), imagesCommand(s))
}

func servicesCommand(s *session.Session) *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "services NODE",
		Short: "Compare the service maps of a node with the desired state",
		Example: "  xebec node services node-1\n" +
			"  xebec node services node-1 --check",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: resolve.CompleteOf(s, "nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return nodeServices(cmd.Context(), s, args[0], check)
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "exit with code 1 if desired and actual state differ")
	return cmd
}

func nodeServices(ctx context.Context, s *session.Session, node string, check bool) error {
	resp, err := nodev1.NewNodeServiceClient(s).ListServices(ctx, &nodev1.ListServicesRequest{Target: &nodev1.Target{Node: node}})
	if err != nil {
		return err
	}
	t := &printer.Table{Heads: []string{"SERVICE", "FRONTEND", "PROTOCOL", "STATE", "DESIRED", "ACTUAL"}, Keep: 2}
	for _, f := range resp.GetFeatures() {
		if f.GetMissing() != "" {
			s.Notef("Node %s: %s (%s).", node, f.GetMissing(), f.GetReason())
		}
	}
	differs := false
	for _, e := range resp.GetServices() {
		state := comparison(e)
		differs = differs || state != "ok"
		t.Add(
			cmp.Or(e.GetService(), "-"),
			e.GetFrontend(),
			e.GetProtocol(),
			state,
			backends(e.GetWantedBackends()),
			backends(e.GetActualBackends()),
		)
	}
	if len(t.Rows) == 0 {
		s.Notef("The maps of node %s contain no services, as desired (revision %s).", node, cmp.Or(resp.GetResourceVersion(), "unknown"))
		return nil
	}
	t.Print(s.Out)
	if differs {
		s.Notef(
			"Desired and actual state differ, as is normal for a moment after a change. The desired state is that of revision %s.",
			resp.GetResourceVersion(),
		)
	}
	if differs && check {
		return exit.Some
	}
	return nil
}

func featuresCommand(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "features NODE", Short: "Show how a node implements network features that depend on its kernel",
		Example:           "  xebec node features node-1",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: resolve.CompleteOf(s, "nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := nodev1.NewNodeServiceClient(s).
				ListServices(cmd.Context(), &nodev1.ListServicesRequest{Target: &nodev1.Target{Node: args[0]}})
			if err != nil {
				return err
			}
			if len(resp.GetFeatures()) == 0 {
				s.Notef("The agent of node %s does not report features.", args[0])
				return nil
			}
			t := &printer.Table{Heads: []string{"FEATURE", "METHOD", "MISSING", "REASON"}, Keep: 2}
			for _, f := range resp.GetFeatures() {
				t.Add(f.GetName(), f.GetMethod(), cmp.Or(f.GetMissing(), "-"), cmp.Or(f.GetReason(), "-"))
			}
			t.Print(s.Out)
			return nil
		},
	}
}

// comparison says how the maps differ from what is wanted of a frontend.
func comparison(e *nodev1.ServiceEntry) string {
	missing, extra := 0, 0
	for _, b := range e.GetWantedBackends() {
		if !slices.Contains(e.GetActualBackends(), b) {
			missing++
		}
	}
	for _, b := range e.GetActualBackends() {
		if !slices.Contains(e.GetWantedBackends(), b) {
			extra++
		}
	}
	switch {
	case e.GetService() == "":
		return "extra"
	case missing > 0 && extra > 0:
		return "missing,extra"
	case missing > 0:
		return "missing"
	case extra > 0:
		return "extra"
	}
	return "ok"
}

func backends(all []string) string {
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, ",")
}

func imagesCommand(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "images NODE", Short: "List the images on a node", Example: "  xebec node images node-1",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: resolve.CompleteOf(s, "nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := nodev1.NewNodeServiceClient(s).ListImages(cmd.Context(), &nodev1.ListImagesRequest{Target: &nodev1.Target{Node: args[0]}})
			if err != nil {
				return err
			}
			t := &printer.Table{Heads: []string{"IMAGE", "DIGEST", "SIZE"}, Keep: 1}
			for _, i := range resp.GetImages() {
				t.Add(i.GetName(), i.GetDigest(), printer.Bytes(i.GetSizeBytes()))
			}
			t.Print(s.Out)
			return nil
		},
	}
}
