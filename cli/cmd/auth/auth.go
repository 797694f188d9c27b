// Package auth holds the commands that show identity and rights.
package auth

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/session"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

// Command returns the command auth.
func Command(s *session.Session) *cobra.Command {
	return command.Family("auth", "Show your identity and rights", whoAmICommand(s), canICommand(s))
}

func whoAmICommand(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Print your user and groups as authenticated by the cluster", Example: "  xebec auth whoami", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			who, err := clusterv1.NewClusterServiceClient(s).WhoAmI(cmd.Context(), &clusterv1.WhoAmIRequest{})
			if err != nil {
				return err
			}
			t := &printer.Table{Heads: []string{"USER", "GROUPS"}}
			t.Add(who.GetUser(), printer.OrNone(strings.Join(who.GetGroups(), ",")))
			t.Print(s.Out)
			return nil
		},
	}
}

func canICommand(s *session.Session) *cobra.Command {
	var req authv1.CheckAccessRequest
	var quiet, all bool
	cmd := &cobra.Command{
		Use: "can-i VERB KIND[/NAME]", Short: "Check whether an action is allowed",
		Long: "Check whether you, or the user given by --as, may act on objects of a kind, by the rules of the apiserver. The verbs are\n" +
			"get, list, watch, create, update, update-status, patch, delete, deletecollection and bind. The exit code is 1 if the action is\n" +
			"denied.",
		Example: "  xebec auth can-i delete pods -n shop\n" +
			"  xebec auth can-i get secret/db -n shop --as system:serviceaccount:shop:web --as-group system:serviceaccounts\n" +
			"  xebec auth can-i create pods --subresource exec -n shop\n" +
			"  xebec auth can-i update-status pods --as system:node:node-1 --as-group system:nodes --node node-1",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Verb = args[0]
			req.Kind, req.Name, _ = strings.Cut(args[1], "/")
			if len(req.Groups) > 0 && req.GetUser() == "" {
				return exit.Usagef("--as-group requires --as")
			}
			if !all {
				var err error
				if req.Namespace, err = s.DefaultNamespace(); err != nil {
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
				s.Printf("yes\n")
			default:
				s.Printf("no: %s\n", resp.GetReason())
			}
			if !resp.GetAllowed() {
				return &exit.Error{Code: exit.Failed}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.User, "as", "", "user to check instead of yourself, such as system:serviceaccount:shop:web")
	flags.StringSliceVar(&req.Groups, "as-group", nil, "groups of the user given by --as")
	flags.StringVar(&req.Subresource, "subresource", "", "the subresource that VERB applies to, such as log or exec")
	flags.StringVar(&req.NodeName, "node", "", "check only objects that belong to this node")
	flags.BoolVarP(&all, "all-namespaces", "A", false, "check all namespaces")
	flags.BoolVarP(&quiet, "quiet", "q", false, "print nothing; set the exit code only")
	return cmd
}
