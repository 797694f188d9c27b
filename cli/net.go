package cli

import "github.com/spf13/cobra"

// netCommand holds what looks into the cluster's network: one file per command.
func (s *shell) netCommand() *cobra.Command {
	return family("net", "Look into the cluster's network", s.netTraceCommand(), s.netConnectionsCommand(), s.netDropsCommand())
}
