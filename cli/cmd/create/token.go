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
		Use: "token SERVICEACCOUNT", Short: "Print a token by which a program is a service account", Args: cobra.ExactArgs(1),
		Long: "Print a token by which a program is a service account to the gateway, or to others that --audience names. It is good for\n" +
			"an hour unless --duration says otherwise, and no longer once what it is bound to is gone.",
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
				return exit.Usagef("--bound-pod-uid goes with --bound-pod")
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
	flags.StringSliceVar(&req.Audiences, "audience", nil, "whom it is for (default the gateway of this cluster); may be repeated")
	flags.DurationVar(&duration, "duration", 0, "how long it is good, 10m at least (default 1h)")
	flags.StringVar(&pod, "bound-pod", "", "pod whose end is the token's end")
	flags.StringVar(&uid, "bound-pod-uid", "", "uid that the pod must have")
	return cmd
}
