package create

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
)

func tokenCommand(s *session.Session) *cobra.Command {
	var req authv1.CreateTokenRequest
	var pod, uid string
	var duration time.Duration
	cmd := &cobra.Command{
		Use: "token SERVICEACCOUNT", Short: "Create a token for a service account", Args: cobra.ExactArgs(1),
		Long: "Create and print a token that authenticates as a service account to the gateway, or to the audiences given by --audience.\n" +
			"It is valid for an hour by default, and becomes invalid when the object that it is bound to is deleted.",
		Example: "  xebec create token web -n shop\n  xebec create token web -n shop --duration 10m --bound-pod web-1 --audience vault",
		RunE: func(cmd *cobra.Command, args []string) error {
			namespace, err := s.DefaultNamespace()
			if err != nil {
				return err
			}
			req.Namespace, req.ServiceAccount, req.ExpirationSeconds = namespace, args[0], int64(duration/time.Second)
			if pod != "" {
				req.BoundPod = &authv1.BoundPod{Name: pod, Uid: uid}
			} else if uid != "" {
				return exit.Usagef("--bound-pod-uid requires --bound-pod")
			}
			resp, err := authv1.NewTokenServiceClient(s).CreateToken(cmd.Context(), &req)
			if err != nil {
				return err
			}
			s.Printf("%s\n", resp.GetToken())
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&req.Audiences, "audience", nil, "audience of the token (default: the gateway of this cluster); may be repeated")
	flags.DurationVar(&duration, "duration", 0, "validity of the token, at least 10m (default 1h)")
	flags.StringVar(&pod, "bound-pod", "", "pod that the token is bound to")
	flags.StringVar(&uid, "bound-pod-uid", "", "UID of the pod that the token is bound to")
	return cmd
}
