// Package net holds the commands that inspect the network: trace, connections and drops.
package net

import (
	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/session"
)

// Command holds what looks into the cluster's network: one file per command.
func Command(s *session.Session) *cobra.Command {
	return command.Family("net", "Inspect the network of the cluster", traceCommand(s), connectionsCommand(s), dropsCommand(s))
}
