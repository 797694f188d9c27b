// Package command builds cobra commands: families of subcommands, and checks of arguments.
package command

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
)

// Family returns a command that only holds others.
func Family(use, short string, members ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs}
	c.AddCommand(members...)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return exit.Usagef("unknown command %q, did you mean %q?", cmd.CommandPath()+" "+args[0], near[0])
		}
		return exit.Usagef("unknown command %q", cmd.CommandPath()+" "+args[0])
	}
	return c
}

// Strict makes mistakes in flags and arguments usage errors, all over the tree.
func Strict(c *cobra.Command) {
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit.AsUsage(err) })
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if _, ok := errors.AsType[*exit.UsageError](err); err == nil || ok {
				return err
			}
			return exit.AsUsage(err)
		}
	}
	for _, sub := range c.Commands() {
		Strict(sub)
	}
}
