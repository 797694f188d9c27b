// Package cli is the command line of Xebec: kubectl's grammar where it makes sense, one file per family of commands.
//
// Exit codes are part of the interface, see Run. What a command is asked for goes to standard output; progress,
// warnings and errors go to standard error.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/internal/version"
)

// Exit codes of every command, but that exec ends with the code of the command it ran.
const (
	// ExitOK: done.
	ExitOK = 0
	// ExitError: the cluster refused, or something went wrong.
	ExitError = 1
	// ExitUsage: the command line makes no sense; nothing was done.
	ExitUsage = 2
	// ExitUnreachable: no gateway of the cluster could be reached.
	ExitUnreachable = 3
	// ExitTimeout: what was waited for did not happen in time.
	ExitTimeout = 4
	// ExitInterrupted: interrupted from the terminal.
	ExitInterrupted = 130
)

// Streams are the three ends by which a command talks to whoever ran it.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Run runs one command line, without the program's name, and returns the exit code. Errors are printed. Further
// subcommands may be given, such as the lab's.
func Run(ctx context.Context, args []string, streams Streams, more ...*cobra.Command) int {
	s := newShell(streams)
	return s.run(ctx, args, more...)
}

// shell is what all commands share: streams, global flags, and the way to the cluster.
type shell struct {
	// In is what the command reads. Out and Err are what people read: raw(Out) is for programs.
	In       io.Reader
	Out, Err *screen

	context   string
	namespace string
	endpoints []string
	token     string
	timeout   time.Duration
	verbosity int

	// dial makes a connection to a context's gateways; now is the time. Tests replace them.
	dial func(*cliconfig.Context, ...grpc.DialOption) (*grpc.ClientConn, error)
	now  func() time.Time

	// warned are the warnings that were printed, partial tells that the objects of some manifests were left out.
	warned  map[string]bool
	partial bool

	resolved *cliconfig.Context

	mu   sync.Mutex // of conn
	conn *grpc.ClientConn
}

func newShell(streams Streams) *shell {
	return &shell{In: streams.In, Out: &screen{streams.Out}, Err: &screen{streams.Err}, dial: dial, now: time.Now, warned: map[string]bool{}}
}

func (s *shell) run(ctx context.Context, args []string, more ...*cobra.Command) int {
	root := s.root()
	root.AddCommand(more...)
	strict(root)
	root.SetArgs(args)
	root.SetIn(s.In)
	// The help is this program's own text, and commands of other packages may pass streams on.
	root.SetOut(raw(s.Out))
	root.SetErr(raw(s.Err))
	command, err := root.ExecuteContextC(ctx)
	return s.finish(command, err)
}

// finish prints the error of a command, if it has one, closes the connection and returns the exit code.
func (s *shell) finish(command *cobra.Command, err error) int {
	code := s.report(command, err)
	if code == ExitOK && s.partial {
		code = ExitError
	}
	if s.conn != nil {
		s.conn.Close()
	}
	return code
}

// Groups of commands in the help.
const (
	groupObjects  = "objects"
	groupWorkload = "workloads"
	groupInspect  = "inspect"
	groupCluster  = "cluster"
	groupSettings = "settings"
)

func (s *shell) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "xebec",
		Short: "Run and use Xebec clusters",
		Long: "Run and use Xebec clusters.\n\n" +
			"Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 cluster unreachable, 4 timed out, 130 interrupted;\n" +
			"exec, attach, debug and run end with the code of what they ran.",
		Version:       version.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	s.flags(root.PersistentFlags())
	root.AddGroup(
		&cobra.Group{ID: groupObjects, Title: "Objects:"},
		&cobra.Group{ID: groupWorkload, Title: "Workloads:"},
		&cobra.Group{ID: groupInspect, Title: "Look inside:"},
		&cobra.Group{ID: groupCluster, Title: "Cluster:"},
		&cobra.Group{ID: groupSettings, Title: "Settings:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
		}
		root.AddCommand(commands...)
	}
	add(groupObjects, s.applyCommand(), s.createCommand(), s.getCommand(), s.describeCommand(), s.deleteCommand(),
		s.patchCommand(), s.labelCommand(), s.annotateCommand(), s.waitCommand())
	add(groupWorkload, s.runCommand(), s.scaleCommand(), s.rolloutCommand(), s.setCommand())
	add(groupInspect, s.logsCommand(), s.execCommand(), s.attachCommand(), s.debugCommand(), s.cpCommand(), s.portForwardCommand(),
		s.topCommand(), s.whyCommand(), s.netCommand())
	add(groupCluster, s.clusterCommand(), s.controllersCommand(), s.nodeCommand(), s.imageCommand(), s.cordonCommand(true),
		s.cordonCommand(false), s.drainCommand(), s.taintCommand(), s.etcdCommand(), s.pkiCommand())
	add(groupSettings, s.configCommand(), s.authCommand(), s.explainCommand(), s.apiResourcesCommand(), s.versionCommand())
	root.SetHelpCommandGroupID(groupSettings)
	root.SetCompletionCommandGroupID(groupSettings)
	return root
}

// flags are those of every command.
func (s *shell) flags(flags *pflag.FlagSet) {
	flags.StringVar(&s.context, "context", "", "context of the configuration to use instead of the current one")
	flags.StringVarP(&s.namespace, "namespace", "n", "", "namespace (default that of the context)")
	flags.StringSliceVar(&s.endpoints, "endpoints", nil, "gateways to use instead of the context's, host:port,...")
	flags.StringSliceVar(&s.endpoints, "server", nil, "same as --endpoints")
	flags.StringVar(&s.token, "token", "", "token of a service account to act as, instead of with the context's certificate")
	flags.DurationVar(&s.timeout, "request-timeout", 0, "longest time for one call to the cluster (default 10s)")
	flags.CountVarP(&s.verbosity, "verbose", "v", "print every call to the cluster on standard error")
	_ = flags.MarkHidden("server")
}

// family returns a command that only holds others.
func family(use, short string, members ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs}
	c.AddCommand(members...)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef("unknown command %q, did you mean %q?", cmd.CommandPath()+" "+args[0], near[0])
		}
		return usagef("unknown command %q", cmd.CommandPath()+" "+args[0])
	}
	return c
}

// strict makes mistakes in flags and arguments usage errors, all over the tree.
func strict(c *cobra.Command) {
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if _, ok := errors.AsType[*usageError](err); err == nil || ok {
				return err
			}
			return &usageError{err}
		}
	}
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

// fail makes the exit code 1 of a command that does the rest of its work.
func (s *shell) fail() { s.partial = true }

// printf writes to standard output, where a failure, such as a closed pipe, is nobody's to mend.
func (s *shell) printf(format string, args ...any) { fmt.Fprintf(s.Out, format, args...) }

// notef writes a line to standard error.
func (s *shell) notef(format string, args ...any) { fmt.Fprintf(s.Err, format+"\n", args...) }

// labelf writes a line to standard error that begins with a coloured word.
func (s *shell) labelf(c colour, word, format string, args ...any) {
	if colourful(s.Err) {
		word = paint(c, word)
	}
	fmt.Fprintf(raw(s.Err), "%s %s\n", word, escape(fmt.Sprintf(format, args...)))
}

// warn prints what the server says of an object that it stored.
func (s *shell) warn(about fmt.Stringer, warnings []string) {
	for _, w := range warnings {
		s.warnOnce(about.String() + ": " + w)
	}
}

// warnOnce prints a warning, unless it did so before.
func (s *shell) warnOnce(text string) {
	if !s.warned[text] {
		s.warned[text] = true
		s.labelf(yellow, "Warning:", "%s", text)
	}
}
