// Package version holds the command version.
package version

import (
	"cmp"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/internal/version"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

// Command returns the command version.
func Command(s *session.Session) *cobra.Command {
	var client bool
	var output string
	cmd := &cobra.Command{
		Use: "version", Short: "Print the versions of the client and the cluster",
		Example: "  xebec version\n  xebec version --client -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			type build struct {
				Version   string `json:"version"`
				Commit    string `json:"commit,omitempty"`
				GoVersion string `json:"goVersion"`
			}
			all := struct {
				Client build  `json:"client"`
				Server *build `json:"server,omitempty"`
			}{Client: build{version.Version(), version.Commit(), version.GoVersion()}}
			f, err := printer.ParseFormat(output)
			if err != nil {
				return err
			}
			var failure error
			if !client {
				v, err := clusterv1.NewClusterServiceClient(s).Version(cmd.Context(), &clusterv1.VersionRequest{})
				if failure = err; err == nil {
					all.Server = &build{v.GetVersion(), v.GetCommit(), v.GetGoVersion()}
				}
			}
			if f.Structured() {
				if err := f.PrintValue(s.Out, all); err != nil {
					return err
				}
				return failure
			}
			t := &printer.Table{Heads: []string{"", "VERSION", "COMMIT", "GO"}, Keep: 2}
			t.Add("client", all.Client.Version, terminal.Shorten(cmp.Or(all.Client.Commit, "-"), 13), all.Client.GoVersion)
			if all.Server != nil {
				t.Add("server", all.Server.Version, terminal.Shorten(cmp.Or(all.Server.Commit, "-"), 13), all.Server.GoVersion)
			}
			t.Print(s.Out)
			return failure
		},
	}
	cmd.Flags().BoolVar(&client, "client", false, "print the client version only")
	cmd.Flags().StringVarP(&output, "output", "o", "", "output format: json, yaml or jsonpath=TEMPLATE")
	return cmd
}
