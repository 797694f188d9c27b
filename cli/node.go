package cli

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

func (s *shell) nodeCommand() *cobra.Command {
	return family("node", "Look into a node", s.nodeServicesCommand(), s.nodeFeaturesCommand(), s.nodeImagesCommand())
}

func (s *shell) nodeServicesCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "services NODE",
		Short: "Show what the node's service maps hold, next to what they should",
		Example: "  xebec node services node-1\n" +
			"  xebec node services node-1 --check",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeOf("nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.nodeServices(cmd.Context(), args[0], check)
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "end with exit code 1 when wanted and actual differ")
	return cmd
}

func (s *shell) nodeServices(ctx context.Context, node string, check bool) error {
	resp, err := nodev1.NewNodeServiceClient(s).ListServices(ctx, &nodev1.ListServicesRequest{Target: &nodev1.Target{Node: node}})
	if err != nil {
		return err
	}
	t := &table{heads: []string{"SERVICE", "FRONTEND", "PROTOCOL", "STATE", "WANTED", "ACTUAL"}, keep: 2}
	for _, f := range resp.GetFeatures() {
		if f.GetMissing() != "" {
			s.notef("Node %s: %s (%s).", node, f.GetMissing(), f.GetReason())
		}
	}
	differs := false
	for _, e := range resp.GetServices() {
		state := comparison(e)
		differs = differs || state != "ok"
		t.add(cmp.Or(e.GetService(), "-"), e.GetFrontend(), e.GetProtocol(), state, backends(e.GetWantedBackends()), backends(e.GetActualBackends()))
	}
	if len(t.rows) == 0 {
		s.notef("The maps of node %s hold no services, and should hold none (state of revision %s).", node, cmp.Or(resp.GetResourceVersion(), "unknown"))
		return nil
	}
	t.print(s.Out)
	if differs {
		s.notef("Wanted and actual differ. For moments after a change that is so; the wanted state is of revision %s.", resp.GetResourceVersion())
	}
	if differs && check {
		return errSome
	}
	return nil
}

func (s *shell) nodeFeaturesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "features NODE", Short: "Show how a node's network provides what depends on its kernel", Example: "  xebec node features node-1",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeOf("nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := nodev1.NewNodeServiceClient(s).ListServices(cmd.Context(), &nodev1.ListServicesRequest{Target: &nodev1.Target{Node: args[0]}})
			if err != nil {
				return err
			}
			if len(resp.GetFeatures()) == 0 {
				s.notef("The agent of node %s does not tell.", args[0])
				return nil
			}
			t := &table{heads: []string{"FEATURE", "METHOD", "MISSING", "REASON"}, keep: 2}
			for _, f := range resp.GetFeatures() {
				t.add(f.GetName(), f.GetMethod(), cmp.Or(f.GetMissing(), "-"), cmp.Or(f.GetReason(), "-"))
			}
			t.print(s.Out)
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

func (s *shell) nodeImagesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "images NODE", Short: "List the images on a node", Example: "  xebec node images node-1",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeOf("nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := nodev1.NewNodeServiceClient(s).ListImages(cmd.Context(), &nodev1.ListImagesRequest{Target: &nodev1.Target{Node: args[0]}})
			if err != nil {
				return err
			}
			t := &table{heads: []string{"IMAGE", "DIGEST", "SIZE"}, keep: 1}
			for _, i := range resp.GetImages() {
				t.add(i.GetName(), i.GetDigest(), bytesText(i.GetSizeBytes()))
			}
			t.print(s.Out)
			return nil
		},
	}
}
