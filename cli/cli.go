// Package cli is the command line of Xebec: kubectl's grammar where it makes sense. Each family of
// commands is a package of cli/cmd; what they share is in session, resolve, printer, watch, write
// and diagnose.
//
// Exit codes are part of the interface, see package exit. The result of a command goes to standard
// output; progress, warnings and errors go to standard error.
package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/cmd/apply"
	"github.com/xebec-project/xebec/cli/cmd/attach"
	"github.com/xebec-project/xebec/cli/cmd/auth"
	"github.com/xebec-project/xebec/cli/cmd/cluster"
	"github.com/xebec-project/xebec/cli/cmd/config"
	"github.com/xebec-project/xebec/cli/cmd/cp"
	"github.com/xebec-project/xebec/cli/cmd/create"
	"github.com/xebec-project/xebec/cli/cmd/delete"
	"github.com/xebec-project/xebec/cli/cmd/describe"
	"github.com/xebec-project/xebec/cli/cmd/diff"
	"github.com/xebec-project/xebec/cli/cmd/edit"
	"github.com/xebec-project/xebec/cli/cmd/etcd"
	"github.com/xebec-project/xebec/cli/cmd/exec"
	"github.com/xebec-project/xebec/cli/cmd/explain"
	"github.com/xebec-project/xebec/cli/cmd/get"
	"github.com/xebec-project/xebec/cli/cmd/image"
	"github.com/xebec-project/xebec/cli/cmd/label"
	"github.com/xebec-project/xebec/cli/cmd/logs"
	"github.com/xebec-project/xebec/cli/cmd/net"
	"github.com/xebec-project/xebec/cli/cmd/node"
	"github.com/xebec-project/xebec/cli/cmd/patch"
	"github.com/xebec-project/xebec/cli/cmd/pki"
	"github.com/xebec-project/xebec/cli/cmd/portforward"
	"github.com/xebec-project/xebec/cli/cmd/replace"
	"github.com/xebec-project/xebec/cli/cmd/rollout"
	"github.com/xebec-project/xebec/cli/cmd/scale"
	"github.com/xebec-project/xebec/cli/cmd/set"
	"github.com/xebec-project/xebec/cli/cmd/top"
	"github.com/xebec-project/xebec/cli/cmd/version"
	"github.com/xebec-project/xebec/cli/cmd/wait"
	"github.com/xebec-project/xebec/cli/cmd/why"
	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	build "github.com/xebec-project/xebec/internal/version"
)

// Run runs one command line, without the program's name, and returns the exit code. Errors are
// printed. Further subcommands may be given, such as the lab's.
func Run(ctx context.Context, args []string, streams session.Streams, more ...*cobra.Command) int {
	return RunSession(ctx, session.New(streams), args, more...)
}

// RunSession is Run with a session of the caller's.
func RunSession(ctx context.Context, s *session.Session, args []string, more ...*cobra.Command) int {
	root := rootCommand(s)
	root.AddCommand(more...)
	command.Strict(root)
	root.SetArgs(args)
	root.SetIn(s.In)
	// The help is this program's own text, and commands of other packages may pass streams on.
	root.SetOut(terminal.Raw(s.Out))
	root.SetErr(terminal.Raw(s.Err))
	executed, err := root.ExecuteContextC(ctx)
	return s.Finish(executed, err)
}

// Groups of commands in the help.
const (
	groupObjects  = "objects"
	groupWorkload = "workloads"
	groupInspect  = "inspect"
	groupCluster  = "cluster"
	groupSettings = "settings"
)

func rootCommand(s *session.Session) *cobra.Command {
	root := &cobra.Command{
		Use:   "xebec",
		Short: "Run and use Xebec clusters",
		Long: "Run and use Xebec clusters.\n\n" +
			"Exit codes: 0 success, 1 refused or failed, 2 invalid usage, 3 cluster unreachable, 4 timed out, 130 interrupted.\n" +
			"exec, attach, debug and run exit with the code of the command that they run.",
		// No template of cobra's is set here: one makes the program a fifth larger, by text/template and
		// by the methods that it may call.
		Version:       build.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	s.Flags(root.PersistentFlags())
	root.AddGroup(
		&cobra.Group{ID: groupObjects, Title: "Objects:"},
		&cobra.Group{ID: groupWorkload, Title: "Workloads:"},
		&cobra.Group{ID: groupInspect, Title: "Inspect:"},
		&cobra.Group{ID: groupCluster, Title: "Cluster:"},
		&cobra.Group{ID: groupSettings, Title: "Settings:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
		}
		root.AddCommand(commands...)
	}
	add(groupObjects, apply.Command(s), create.Command(s), replace.Command(s), diff.Command(s), get.Command(s), describe.Command(s),
		delete.Command(s), edit.Command(s), patch.Command(s), label.Command(s), label.AnnotateCommand(s), wait.Command(s))
	add(groupWorkload, attach.RunCommand(s), scale.Command(s), rollout.Command(s), set.Command(s))
	add(groupInspect, logs.Command(s), exec.Command(s), attach.Command(s), attach.DebugCommand(s), cp.Command(s), portforward.Command(s),
		top.Command(s), why.Command(s), net.Command(s))
	add(groupCluster, cluster.Command(s), cluster.ControllersCommand(s), node.Command(s), image.Command(s), node.CordonCommand(s, true),
		node.CordonCommand(s, false), node.DrainCommand(s), node.TaintCommand(s), etcd.Command(s), pki.Command(s))
	add(groupSettings, config.Command(s), auth.Command(s), explain.Command(s), explain.ResourcesCommand(s), version.Command(s))
	root.SetHelpCommandGroupID(groupSettings)
	root.SetCompletionCommandGroupID(groupSettings)
	return root
}
