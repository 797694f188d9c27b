// Package replace holds the command replace.
package replace

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/manifest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// Command returns the command replace.
func Command(s *session.Session) *cobra.Command {
	var c resolve.Choice
	var m write.ManifestOptions
	o := &write.Options{}
	cmd := &cobra.Command{
		Use:   "replace -f FILE",
		Short: "Replace objects by those of manifests",
		Long: "Replace existing objects by those of manifests, except for their status. Fields that a manifest does not set are removed\n" +
			"or get their defaults. With metadata.resourceVersion, an object that has changed since is not replaced.",
		Example: "  xebec get deployment/web -o yaml > web.yaml\n" +
			"  xebec replace -f web.yaml",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			if err := c.RequireFiles(); err != nil {
				return err
			}
			return replace(cmd.Context(), s, c, m, o)
		},
	}
	c.FileFlags(cmd, "to replace objects by")
	o.Flags(cmd)
	m.Flags(cmd)
	return cmd
}

const replaced = "replaced"

func replace(ctx context.Context, s *session.Session, c resolve.Choice, m write.ManifestOptions, o *write.Options) error {
	docs, wrong := write.Manifests(s, c, m)
	if wrong != nil && (len(docs) == 0 || m.Atomic) {
		return wrong
	}
	cl := s.Client()
	if m.Atomic {
		return write.Together(ctx, s, cl, docs, o, func(_ int, d manifest.Document) client.Operation { return client.OpUpdate(d.Object) },
			func(int, error) bool { return false },
			func(apiv1.ApplyResult) string { return replaced })
	}
	return write.EachManifest(s, docs, wrong, func(d manifest.Document) error {
		var warnings []string
		options := []client.UpdateOption{client.Warnings(&warnings)}
		if o.Dry() {
			options = append(options, client.DryRun)
		}
		stored, err := client.Update(ctx, cl, d.Object, options...)
		write.Warn(s, d, warnings)
		if err != nil {
			return err
		}
		return write.Report(s, o, stored, replaced)
	})
}
