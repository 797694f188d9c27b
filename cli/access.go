package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/allowlist"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func (s *shell) accessCommand() *cobra.Command {
	var output messageOutput
	get := func(cmd *cobra.Command, _ []string) error { return s.showAccess(cmd.Context(), output) }
	getter := &cobra.Command{
		Use: "get", Short: "Show from where the gateways take connections, and where you come from", Args: cobra.NoArgs,
		Example: "  xebec cluster access get", RunE: get,
	}
	c := family("access", "See and set from where the gateways take connections", getter, s.accessSetCommand(), s.accessResetCommand())
	c.Long = "See and set from where the gateways take connections, at the public listener for the world outside and at the private\n" +
		"one for the cluster's own network. It is kept as an object, GatewayAccess cluster, which 'xebec get', 'apply' and 'edit' know\n" +
		"as well; without it each gateway goes by its own configuration. The masters themselves are always admitted."
	c.Example = "  xebec cluster access\n  xebec cluster access set --public-cidrs 203.0.113.0/24,198.51.100.7/32"
	help := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return get(cmd, args)
		}
		return help(cmd, args)
	}
	for _, cmd := range []*cobra.Command{c, getter} {
		output.flag(cmd)
	}
	return c
}

func (s *shell) showAccess(ctx context.Context, output messageOutput) error {
	f, err := output.form()
	if err != nil {
		return err
	}
	resp, err := clusterv1.NewClusterServiceClient(s).Access(ctx, &clusterv1.AccessRequest{})
	if err != nil {
		return err
	}
	if f.structured() {
		return f.message(s.Out, resp)
	}
	t := &table{heads: []string{"LISTENER", "ADMITS"}, keep: 2}
	for _, l := range []struct {
		name string
		*clusterv1.Listener
	}{{"private", resp.GetPrivate()}, {"public", resp.GetPublic()}} {
		switch {
		case l.Listener == nil:
			t.add(l.name, "there is none: the gateway's configuration names no address for it")
		case l.GetClosed():
			t.add(l.name, "off: nobody but the masters")
		default:
			t.add(l.name, cmp.Or(strings.Join(l.GetAllowedCidrs(), ", "), "everywhere"))
		}
	}
	t.print(s.Out)
	s.printf("\nThis is from %s. You come from %s, by the %s listener", resp.GetFrom(), resp.GetSource(), resp.GetListener())
	if resp.GetAlwaysAdmitted() {
		s.printf(", as a master does: you are always admitted")
	}
	s.printf(".\n")
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

func (s *shell) accessSetCommand() *cobra.Command {
	flags := accessFlags{on: map[string]*string{}, cidrs: map[string]*[]string{}}
	cmd := &cobra.Command{
		Use: "set", Short: "Change from where the gateways take connections, at once and on all of them", Args: cobra.NoArgs,
		Long: "Change from where the gateways take connections. What no flag names stays as it is. Connections that are no longer\n" +
			"admitted are cut. A change that would lock out you or nodes of the cluster is refused, unless --force says that it is meant.",
		Example: "  xebec cluster access set --public-cidrs 203.0.113.0/24,198.51.100.7/32\n" +
			"  xebec cluster access set --public off --private-cidrs 10.0.0.0/8\n" +
			"  xebec cluster access set --public on --public-cidrs ''",
		RunE: func(cmd *cobra.Command, _ []string) error { return s.setAccess(cmd, flags) },
	}
	for _, name := range accessListeners {
		flags.on[name] = cmd.Flags().String(name, "", "on or off: whether the "+name+" listener takes connections")
		flags.cidrs[name] = cmd.Flags().StringSlice(name+"-cidrs", nil, "prefixes that the "+name+" listener takes connections from, at most 40; '' for everywhere")
	}
	cmd.Flags().BoolVar(&flags.force, "force", false, "even when it locks out you or nodes")
	return cmd
}

func (s *shell) setAccess(cmd *cobra.Command, flags accessFlags) error {
	if cmd.Flags().NFlag() == 0 {
		return usagef("name what to change: --public, --private, --public-cidrs, --private-cidrs")
	}
	for name, on := range flags.on {
		if *on != "" && *on != "on" && *on != "off" {
			return usagef("--%s is on or off, not %q", name, *on)
		}
	}
	cl := s.client()
	ctx := cmd.Context()
	if flags.force {
		ctx = metadata.AppendToOutgoingContext(ctx, allowlist.HeaderAllowLockout, "true")
	}
	access, err := client.Get[*gatewayv1.GatewayAccess](ctx, cl, "", kind.GatewayAccessName)
	write := client.Update[*gatewayv1.GatewayAccess]
	if apierr.IsNotFound(err) {
		access, err = &gatewayv1.GatewayAccess{Metadata: &metav1.ObjectMeta{Name: kind.GatewayAccessName}}, nil
		write = func(ctx context.Context, cl *client.Client, access *gatewayv1.GatewayAccess, _ ...client.UpdateOption) (*gatewayv1.GatewayAccess, error) {
			return client.Create(ctx, cl, access)
		}
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
	s.printf("gatewayaccess.%s/%s set\n", kind.GroupGateway, kind.GatewayAccessName)
	return nil
}

func (s *shell) accessResetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reset", Short: "Let each gateway go by its own configuration again", Args: cobra.NoArgs,
		Example: "  xebec cluster access reset",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := client.Delete[*gatewayv1.GatewayAccess](cmd.Context(), s.client(), "", kind.GatewayAccessName)
			if err != nil && !apierr.IsNotFound(err) {
				return err
			}
			s.printf("gatewayaccess.%s/%s reset\n", kind.GroupGateway, kind.GatewayAccessName)
			return nil
		},
	}
}
