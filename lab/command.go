package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/term"

	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/lab/control"
	"github.com/xebec-project/xebec/lab/supervisor"
	"github.com/xebec-project/xebec/lab/topology"
)

// Command returns `lab` with its subcommands.
func Command() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Run a cluster on this machine and inject failures",
		Long: "Run a highly available cluster on this Linux machine. Masters and nodes are network namespaces with real etcd,\n" +
			"containerd and eBPF. The lab creates nothing in the network namespace of the machine, and `lab down` removes it.",
	}
	cmd.PersistentFlags().StringVar(&name, "name", topology.DefaultName, "name of the lab")
	cmd.AddCommand(
		upCommand(&name), downCommand(&name), statusCommand(&name), killCommand(&name), startCommand(&name),
		cutCommand(&name), healCommand(&name), logsCommand(&name), shellCommand(&name), superviseCommand(),
	)
	return cmd
}

func upCommand(name *string) *cobra.Command {
	options := Options{ClusterCIDR: DefaultClusterCIDR, ServiceCIDR: DefaultServiceCIDR}
	var timeout time.Duration
	wait := true
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the lab and wait until its nodes are ready",
		Example: "  sudo xebec lab up\n" +
			"  sudo xebec lab up --masters 1 --nodes 1 --ephemeral\n" +
			"  sudo xebec lab up --name blue --nodes 3",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			began := time.Now()
			options.Name, options.NoWait = *name, !wait
			var err error
			if options.ContextFile, err = contextFile(); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			progress := newProgress(cmd.ErrOrStderr())
			options.Progress = progress.step
			lab, err := Up(ctx, options)
			progress.end()
			if err != nil {
				return err
			}
			lab.greet(cmd.OutOrStdout(), time.Since(began))
			return nil
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&options.Masters, "masters", 3, "number of masters")
	flags.IntVar(&options.Nodes, "nodes", 2, "number of nodes")
	flags.IntVar(&options.Segments, "segments", 1, "number of networks that the nodes are distributed over, connected by a router")
	flags.BoolVar(&options.DualStack, "dual-stack", false, "assign IPv6 addresses in addition to IPv4")
	flags.StringVar(&options.StateDir, "state-dir", "", "directory for all files of the lab (default: "+DefaultStateDir("NAME")+")")
	flags.StringVar(&options.BinDir, "bin", "", "directory of xebec, xebecd and xebec-agent (default: the directory of this program)")
	flags.BoolVar(&options.Ephemeral, "ephemeral", false, "keep the disks of the machines in memory; they are lost with the lab")
	flags.Var(prefixFlag{&options.ClusterCIDR}, "cluster-cidr", "address range of pods")
	flags.Var(prefixFlag{&options.ServiceCIDR}, "service-cidr", "address range of services")
	flags.BoolVar(&wait, "wait", true, "wait until all services and nodes are ready")
	flags.DurationVar(&timeout, "timeout", 2*time.Minute, "time limit for waiting")
	return cmd
}

// greet prints what can be done next.
func (l *Lab) greet(out io.Writer, took time.Duration) {
	option := ""
	if l.Spec.Name != topology.DefaultName {
		option = " --name " + l.Spec.Name
	}
	fmt.Fprintf(out, "Lab %q is up after %.1f s: %d masters, %d nodes.\n\n", l.Spec.Name, took.Seconds(), l.Spec.Masters, l.Spec.Nodes)
	if l.Spec.ContextFile != "" {
		fmt.Fprintf(out, "  xebec get nodes                      context %s of %s\n", l.Spec.ContextName(), l.Spec.ContextFile)
	}
	fmt.Fprintf(out, "  sudo xebec lab status%[1]s\n  sudo xebec lab kill master-1%[1]s\n  sudo xebec lab down%[1]s\n", option)
}

func downCommand(name *string) *cobra.Command {
	var options DownOptions
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the lab and remove everything but its state directory",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options.Name = *name
			if err := Down(cmd.Context(), options); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Lab %q is down.\n", *name)
			return nil
		},
	}
	cmd.Flags().BoolVar(&options.Purge, "purge", false, "remove the state directory too, including all data of the cluster")
	cmd.Flags().StringVar(&options.StateDir, "state-dir", "", "state directory of a lab that is down, if it is not the default")
	return cmd
}

func statusCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show machines and processes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lab, err := Open(*name)
			if err != nil {
				return err
			}
			status, err := lab.Status(cmd.Context())
			if err != nil {
				return err
			}
			return printStatus(cmd.OutOrStdout(), status, time.Now())
		},
	}
}

func printStatus(out io.Writer, status *control.Status, now time.Time) error {
	fmt.Fprintf(
		out,
		"Lab %q is %s. State: %s. Gateways: %s.\n",
		status.Name,
		status.Phase,
		status.StateDir,
		strings.Join(status.Endpoints, ", "),
	)
	if status.Error != "" {
		fmt.Fprintln(out, status.Error)
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "HOST\tSTATE\tPROCESS\tPID\tSTATE\tRESTARTS\tSINCE\tLISTENING\tLAST EXIT")
	for _, h := range status.Hosts {
		for i, p := range h.Processes {
			host, state := h.Name, string(h.State)
			if i > 0 {
				host, state = "", ""
			}
			pid := "-"
			if p.PID != 0 {
				pid = fmt.Sprint(p.PID)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", host, state, p.Name, pid, p.State, p.Restarts,
				now.Sub(p.Since).Truncate(time.Second), strings.Join(p.Listening, " "), p.LastExit)
		}
	}
	return table.Flush()
}

// targeted returns a command that does something to a target of a running lab.
func targeted(
	name *string,
	use, short, example string,
	args cobra.PositionalArgs,
	act func(ctx context.Context, lab *Lab, target string) error,
) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: args,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return targets(*name), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, err := Open(*name)
			if err != nil {
				return err
			}
			target := ""
			if len(args) > 0 {
				target = args[0]
			}
			return act(cmd.Context(), lab, target)
		},
	}
}

// targets lists hosts and processes for completion.
func targets(name string) []string {
	lab, err := Open(name)
	if err != nil {
		return nil
	}
	var out []string
	for _, h := range lab.Spec.Hosts() {
		out = append(out, h.Name)
		for _, p := range lab.Spec.Processes(h) {
			out = append(out, h.Name+"/"+p.Name)
		}
	}
	return out
}

func killCommand(name *string) *cobra.Command {
	var options KillOptions
	cmd := targeted(name, "kill HOST|HOST/PROCESS", "Kill a machine with its processes, or one process, which is then restarted",
		"  sudo xebec lab kill master-1\n  sudo xebec lab kill master-2/scheduler\n  sudo xebec lab kill node-1/agent --hold",
		cobra.ExactArgs(1), func(ctx context.Context, lab *Lab, target string) error { return lab.Kill(ctx, target, options) })
	cmd.Flags().BoolVar(&options.Hold, "hold", false, "do not restart the process until `lab start`; machines are never restarted")
	cmd.Flags().
		BoolVar(&options.PowerOff, "power-off", false,
			"disconnect the machine first, so that its peers get no response instead of closed connections")
	return cmd
}

func startCommand(name *string) *cobra.Command {
	return targeted(name, "start HOST|HOST/PROCESS", "Start a killed machine or process", "  sudo xebec lab start master-1",
		cobra.ExactArgs(1), func(ctx context.Context, lab *Lab, target string) error { return lab.Start(ctx, target) })
}

func cutCommand(name *string) *cobra.Command {
	return targeted(name, "cut HOST", "Disconnect a machine from the network", "  sudo xebec lab cut node-1",
		cobra.ExactArgs(1), func(ctx context.Context, lab *Lab, target string) error { return lab.Cut(ctx, target) })
}

func healCommand(name *string) *cobra.Command {
	return targeted(name, "heal [HOST]", "Reconnect a machine, or all machines", "  sudo xebec lab heal",
		cobra.MaximumNArgs(1), func(ctx context.Context, lab *Lab, target string) error { return lab.Heal(ctx, target) })
}

func logsCommand(name *string) *cobra.Command {
	var follow bool
	var lines int
	cmd := targeted(name, "logs HOST/PROCESS|supervisor", "Print the log of a process", "  xebec lab logs master-1/gateway -f",
		cobra.ExactArgs(1), nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		lab, err := Open(*name)
		if err != nil {
			return err
		}
		path, err := lab.LogFile(args[0])
		if err != nil {
			return err
		}
		return printLog(cmd.Context(), cmd.OutOrStdout(), path, lines, follow)
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "follow the log")
	cmd.Flags().IntVar(&lines, "tail", -1, "number of last lines to print, -1 for all")
	return cmd
}

func shellCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:     "shell HOST [-- COMMAND...]",
		Short:   "Run a shell or a command on a machine",
		Example: "  sudo xebec lab shell node-1\n  sudo xebec lab shell master-1 -- ip addr",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, err := Open(*name)
			if err != nil {
				return err
			}
			command := args[1:]
			if len(command) == 0 {
				command = []string{"/bin/sh"}
				if shell := os.Getenv("SHELL"); shell != "" {
					command = []string{shell}
				}
			}
			inside := exec.Command(command[0], command[1:]...) //nolint:gosec // the user's own command
			inside.Stdin, inside.Stdout, inside.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			// The terminal sends its signals to the shell as well; it decides what they end.
			signal.Ignore(syscall.SIGINT, syscall.SIGQUIT)
			if err := lab.StartIn(cmd.Context(), args[0], inside); err != nil {
				return err
			}
			return inside.Wait()
		},
	}
}

// superviseCommand is what `lab up` runs in the background.
func superviseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "supervise STATE-DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// It moves no data and lives long: rather collect a little more often than stay big.
			debug.SetGCPercent(40)
			spec, err := topology.Load(args[0])
			if err != nil {
				return err
			}
			log, err := zap.NewProduction()
			if err != nil {
				return err
			}
			s, err := supervisor.New(spec, log)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return s.Run(ctx)
		},
	}
}

// contextFile is the configuration of the person at the terminal, also under sudo.
func contextFile() (string, error) {
	if name := os.Getenv("SUDO_USER"); name != "" && os.Getenv(cliconfig.EnvPath) == "" {
		if person, err := user.Lookup(name); err == nil {
			return filepath.Join(person.HomeDir, ".xebec", "config"), nil
		}
	}
	return cliconfig.Path()
}

// prefixFlag is a flag that holds an address prefix.
type prefixFlag struct{ prefix *netip.Prefix }

func (f prefixFlag) String() string {
	if f.prefix == nil {
		return ""
	}
	return f.prefix.String()
}

func (f prefixFlag) Set(text string) error {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return errors.New("want an address prefix, such as 10.244.0.0/16")
	}
	*f.prefix = prefix
	return nil
}

func (f prefixFlag) Type() string { return "prefix" }

// progress shows the steps of long work: on a terminal in one line that changes, elsewhere a line
// per step.
type progress struct {
	out      io.Writer
	terminal bool
	began    time.Time
	last     string
}

func newProgress(out io.Writer) *progress {
	file, ok := out.(*os.File)
	return &progress{out: out, terminal: ok && term.IsTerminal(int(file.Fd())), began: time.Now()}
}

func (p *progress) step(text string) {
	if text == "" || text == p.last && !p.terminal {
		return
	}
	p.last = text
	elapsed := time.Since(p.began).Seconds()
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%5.1f s  %s", elapsed, text)
		return
	}
	fmt.Fprintf(p.out, "%5.1f s  %s\n", elapsed, text)
}

// end leaves an empty line for what follows.
func (p *progress) end() {
	if p.terminal && p.last != "" {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
