package cluster

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/allowlist"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/gateway"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func accessCommand(s *session.Session) *cobra.Command {
	var output printer.MessageOutput
	get := func(cmd *cobra.Command, _ []string) error { return showAccess(cmd.Context(), s, output) }
	getter := &cobra.Command{
		Use: "get", Short: "Show the access lists of the gateways and your source address", Args: cobra.NoArgs,
		Example: "  xebec cluster access get", RunE: get,
	}
	c := command.Family("access", "Manage the access lists of the gateways", getter, accessSetCommand(s), accessResetCommand(s))
	c.Long = "Manage the access lists of the gateways: the source addresses admitted by the public listener, for external clients, and by\n" +
		"the private listener, for the network of the cluster. They are stored in the object GatewayAccess/cluster; without it,\n" +
		"each gateway uses its own configuration. Masters are always admitted."
	c.Example = "  xebec cluster access\n  xebec cluster access set --public-cidrs 203.0.113.0/24,198.51.100.7/32"
	help := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return get(cmd, args)
		}
		return help(cmd, args)
	}
	for _, cmd := range []*cobra.Command{c, getter} {
		output.Flag(cmd)
	}
	return c
}

func showAccess(ctx context.Context, s *session.Session, output printer.MessageOutput) error {
	f, err := output.Format()
	if err != nil {
		return err
	}
	resp, err := clusterv1.NewClusterServiceClient(s).Access(ctx, &clusterv1.AccessRequest{})
	if err != nil {
		return err
	}
	if f.Structured() {
		return f.PrintMessage(s.Out, resp)
	}
	t := &printer.Table{Heads: []string{"LISTENER", "ADMITS"}, Keep: 2}
	for _, l := range []struct {
		name string
		*clusterv1.Listener
	}{{"private", resp.GetPrivate()}, {"public", resp.GetPublic()}} {
		switch {
		case l.Listener == nil:
			t.Add(l.name, "not configured")
		case l.GetClosed():
			t.Add(l.name, "masters only (off)")
		default:
			t.Add(l.name, cmp.Or(strings.Join(l.GetAllowedCidrs(), ", "), "any address"))
		}
	}
	t.Print(s.Out)
	s.Printf("\nReported by %s. Your address is %s, at the %s listener", resp.GetFrom(), resp.GetSource(), resp.GetListener())
	if resp.GetAlwaysAdmitted() {
		s.Printf(" (a master, always admitted)")
	}
	s.Printf(".\n")
	return nil
}

// accessFlags are what 'access set' changes.
type accessFlags struct {
	on    map[string]*string
	cidrs map[string]*[]string
	force bool
}

// The listeners, as flags name them.
var accessListeners = []string{"public", "private"}

func accessSetCommand(s *session.Session) *cobra.Command {
	flags := accessFlags{on: map[string]*string{}, cidrs: map[string]*[]string{}}
	cmd := &cobra.Command{
		Use: "set", Short: "Change the access lists of all gateways", Args: cobra.NoArgs,
		Long: "Change the access lists of all gateways. Settings without a flag keep their values. Connections that are no longer admitted\n" +
			"are closed. A change that would lock out you or nodes of the cluster is refused without --force.",
		Example: "  xebec cluster access set --public-cidrs 203.0.113.0/24,198.51.100.7/32\n" +
			"  xebec cluster access set --public off --private-cidrs 10.0.0.0/8\n" +
			"  xebec cluster access set --public on --public-cidrs ''",
		RunE: func(cmd *cobra.Command, _ []string) error { return setAccess(s, cmd, flags) },
	}
	for _, name := range accessListeners {
		flags.on[name] = cmd.Flags().String(name, "", "on or off: whether the "+name+" listener accepts connections")
		flags.cidrs[name] = cmd.Flags().
			StringSlice(name+"-cidrs", nil, "prefixes from which the "+name+" listener accepts connections, at most 40; '' for any address")
	}
	cmd.Flags().BoolVar(&flags.force, "force", false, "apply the change even if it locks out you or nodes")
	return cmd
}

// create has the type of client.Update.
func create(
	ctx context.Context, cl *client.Client, access *gatewayv1.GatewayAccess, _ ...client.UpdateOption,
) (*gatewayv1.GatewayAccess, error) {
	return client.Create(ctx, cl, access)
}

func setAccess(s *session.Session, cmd *cobra.Command, flags accessFlags) error {
	if cmd.Flags().NFlag() == 0 {
		return exit.Usagef("at least one of --public, --private, --public-cidrs and --private-cidrs is required")
	}
	for name, on := range flags.on {
		if *on != "" && *on != "on" && *on != "off" {
			return exit.Usagef("invalid --%s value %q: want on or off", name, *on)
		}
	}
	cl := s.Client()
	ctx := cmd.Context()
	if flags.force {
		ctx = metadata.AppendToOutgoingContext(ctx, allowlist.HeaderAllowLockout, "true")
	}
	access, err := client.Get[*gatewayv1.GatewayAccess](ctx, cl, "", gateway.GatewayAccessName)
	write := client.Update[*gatewayv1.GatewayAccess]
	if apierr.IsNotFound(err) {
		access, err = &gatewayv1.GatewayAccess{Metadata: &metav1.ObjectMeta{Name: gateway.GatewayAccessName}}, nil
		write = create
	}
	if err != nil {
		return err
	}
	if access.Spec == nil {
		access.Spec = &gatewayv1.GatewayAccessSpec{}
	}
	for name, listener := range map[string]**gatewayv1.ListenerAccess{"public": &access.Spec.Public, "private": &access.Spec.Private} {
		if *flags.on[name] == "" && !cmd.Flags().Changed(name+"-cidrs") {
			continue
		}
		if *listener == nil {
			*listener = &gatewayv1.ListenerAccess{}
		}
		if *flags.on[name] != "" {
			(*listener).Enabled = proto.Bool(*flags.on[name] == "on")
		}
		if *flags.on[name] == "off" || cmd.Flags().Changed(name+"-cidrs") {
			(*listener).AllowedCidrs = *flags.cidrs[name]
		}
	}
	if _, err := write(ctx, cl, access); err != nil {
		if apierr.Reason(err) == apierr.ReasonLockout {
			return fmt.Errorf("%w (--force)", err)
		}
		return err
	}
	s.Printf("gatewayaccess.%s/%s set\n", gateway.GroupGateway, gateway.GatewayAccessName)
	return nil
}

func accessResetCommand(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "reset", Short: "Reset the access lists to the configuration of each gateway", Args: cobra.NoArgs,
		Example: "  xebec cluster access reset",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := client.Delete[*gatewayv1.GatewayAccess](cmd.Context(), s.Client(), "", gateway.GatewayAccessName)
			if err != nil && !apierr.IsNotFound(err) {
				return err
			}
			s.Printf("gatewayaccess.%s/%s reset\n", gateway.GroupGateway, gateway.GatewayAccessName)
			return nil
		},
	}
}
