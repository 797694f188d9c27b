package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

func (s *shell) authCommand() *cobra.Command {
	return family("auth", "See who you are to the cluster and what you may do", s.whoAmICommand(), s.canICommand())
}

func (s *shell) whoAmICommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Print your user and groups as the cluster sees them", Example: "  xebec auth whoami", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			who, err := clusterv1.NewClusterServiceClient(s).WhoAmI(cmd.Context(), &clusterv1.WhoAmIRequest{})
			if err != nil {
				return err
			}
			t := &table{heads: []string{"USER", "GROUPS"}}
			t.add(who.GetUser(), orNone(strings.Join(who.GetGroups(), ",")))
			t.print(s.Out)
			return nil
		},
	}
}

func (s *shell) canICommand() *cobra.Command {
	var req authv1.CheckAccessRequest
	var quiet, all bool
	cmd := &cobra.Command{
		Use: "can-i VERB KIND[/NAME]", Short: "Say whether you, or somebody, may do something",
		Long: "Say whether you may do something to objects of a kind, by the rules by which the apiserver decides; --as asks about\n" +
			"somebody else. The verbs are get, list, watch, create, update, update-status, patch, delete and bind. The exit code is 1\n" +
			"when the answer is no.",
		Example: "  xebec auth can-i delete pods -n shop\n" +
			"  xebec auth can-i get secret/db -n shop --as system:serviceaccount:shop:web --as-group system:serviceaccounts\n" +
			"  xebec auth can-i update-status pods --as system:node:node-1 --as-group system:nodes --node node-1",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Verb = args[0]
			req.Kind, req.Name, _ = strings.Cut(args[1], "/")
			if len(req.Groups) > 0 && req.GetUser() == "" {
				return usagef("--as-group goes with --as")
			}
			if !all {
				var err error
				if req.Namespace, err = s.defaultNamespace(); err != nil {
					return err
				}
			}
			resp, err := authv1.NewAccessServiceClient(s).CheckAccess(cmd.Context(), &req)
			if err != nil {
				return err
			}
			switch {
			case quiet:
			case resp.GetAllowed():
				s.printf("yes\n")
			default:
				s.printf("no: %s\n", resp.GetReason())
			}
			if !resp.GetAllowed() {
				return &exitError{code: ExitError}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.User, "as", "", "somebody else, such as system:serviceaccount:shop:web")
	flags.StringSliceVar(&req.Groups, "as-group", nil, "the groups of whom --as names")
	flags.StringVar(&req.NodeName, "node", "", "only objects that belong to this node")
	flags.BoolVarP(&all, "all-namespaces", "A", false, "in all namespaces")
	flags.BoolVarP(&quiet, "quiet", "q", false, "only the exit code")
	return cmd
}

func (s *shell) createTokenCommand() *cobra.Command {
	var req authv1.CreateTokenRequest
	var pod, uid string
	var duration time.Duration
	cmd := &cobra.Command{
		Use: "token SERVICEACCOUNT", Short: "Print a token by which a program is a service account", Args: cobra.ExactArgs(1),
		Long: "Print a token by which a program is a service account to the gateway, or to others that --audience names. It is good for\n" +
			"an hour unless --duration says otherwise, and no longer once what it is bound to is gone.",
		Example: "  xebec create token web -n shop\n  xebec create token web -n shop --duration 10m --bound-pod web-1 --audience vault",
		RunE: func(cmd *cobra.Command, args []string) error {
			namespace, err := s.defaultNamespace()
			if err != nil {
				return err
			}
			req.Namespace, req.ServiceAccount, req.ExpirationSeconds = namespace, args[0], int64(duration/time.Second)
			if pod != "" {
				req.BoundPod = &authv1.BoundPod{Name: pod, Uid: uid}
			} else if uid != "" {
				return usagef("--bound-pod-uid goes with --bound-pod")
			}
			resp, err := authv1.NewTokenServiceClient(s).CreateToken(cmd.Context(), &req)
			if err != nil {
				return err
			}
			s.printf("%s\n", resp.GetToken())
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&req.Audiences, "audience", nil, "whom it is for (default the gateway of this cluster); may be repeated")
	flags.DurationVar(&duration, "duration", 0, "how long it is good, 10m at least (default 1h)")
	flags.StringVar(&pod, "bound-pod", "", "pod whose end is the token's end")
	flags.StringVar(&uid, "bound-pod-uid", "", "uid that the pod must have")
	return cmd
}
