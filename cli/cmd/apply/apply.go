// Package apply holds the command apply.
package apply

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

type applyOptions struct {
	resolve.Choice
	write.Options
	write.ManifestOptions
	force      bool
	serverSide bool
	manager    string
}

// Command returns the command apply.
func Command(s *session.Session) *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create or update objects from manifests",
		Long: "Create or update objects from manifests by server-side apply. The server merges the fields of the manifest into the\n" +
			"object and records which manager owns each field. Fields of other managers stay; a field that both set is a conflict.\n\n" +
			"Each object is written separately, namespaces first. If objects are invalid or refused, they are listed with file and\n" +
			"line, the others are written, and the exit code is 1. With --atomic, all objects are written in one transaction or none.",
		Example: "  xebec apply -f web.yaml\n" +
			"  xebec apply -R -f manifests/\n" +
			"  cat web.yaml | xebec apply -f -\n" +
			"  xebec apply -f web.yaml --dry-run=server\n" +
			"  xebec apply -f pod.yaml --subresource=resize",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			if err := o.RequireFiles(); err != nil {
				return err
			}
			return apply(cmd.Context(), s, o)
		},
	}
	o.FileFlags(cmd, "to apply")
	o.Options.Flags(cmd)
	o.SubresourceFlag(cmd)
	o.ManifestOptions.Flags(cmd)
	cmd.Flags().BoolVar(&o.force, "force-conflicts", false, "take ownership of fields that other managers own")
	cmd.Flags().BoolVar(&o.serverSide, "server-side", true, "always true; accepted for compatibility with kubectl")
	cmd.Flags().StringVar(&o.manager, "field-manager", session.FieldManager, "name of the manager that owns the applied fields")
	return cmd
}

func apply(ctx context.Context, s *session.Session, o applyOptions) error {
	if !o.serverSide {
		return exit.Usagef("invalid --server-side value \"false\": apply is always server-side")
	}
	docs, wrong := write.Manifests(s, o.Choice, o.ManifestOptions)
	if wrong != nil && (len(docs) == 0 || o.Atomic) {
		return wrong
	}
	cl := s.Client().WithFieldManager(o.manager)
	if o.Atomic {
		return applyTogether(ctx, s, cl, docs, o)
	}
	return write.EachManifest(s, docs, wrong, func(d manifest.Document) error {
		obj, result, warnings, err := applyOne(ctx, cl, d, o)
		write.Warn(s, d, warnings)
		if err != nil {
			return err
		}
		return write.Report(s, &o.Options, obj, applied[result])
	})
}

// applyTogether applies all objects in one transaction.
func applyTogether(ctx context.Context, s *session.Session, cl *client.Client, docs []manifest.Document, o applyOptions) error {
	forced := map[int]bool{}
	return write.Together(ctx, s, cl, docs, &o.Options,
		func(i int, d manifest.Document) client.Operation {
			options := []client.ApplyOption{client.Subresource(o.Subresource)}
			if o.force || forced[i] {
				options = append(options, client.Force)
			}
			return write.OpApply(d, options...)
		},
		func(i int, err error) bool {
			if forced[i] || !onlyOwnConflicts(err, o.manager) {
				return false
			}
			forced[i] = true
			return true
		},
		func(result apiv1.ApplyResult) string { return applied[result] })
}

// applied are the results as kubectl words them.
var applied = map[apiv1.ApplyResult]string{
	apiv1.ApplyResult_APPLY_RESULT_CREATED:    "created",
	apiv1.ApplyResult_APPLY_RESULT_CONFIGURED: "configured",
	apiv1.ApplyResult_APPLY_RESULT_UNCHANGED:  "unchanged",
}

// applyOne applies the object of a document by itself. It returns the server's warnings also with
// an error.
func applyOne(
	ctx context.Context, cl *client.Client, d manifest.Document, o applyOptions,
) (scheme.Object, apiv1.ApplyResult, []string, error) {
	var warnings []string
	options := []client.ApplyOption{client.Warnings(&warnings), client.Subresource(o.Subresource)}
	if o.Dry() {
		options = append(options, client.DryRun)
	}
	if o.force {
		options = append(options, client.Force)
	}
	stored, result, err := write.Apply(ctx, cl, d, options...)
	if !o.force && onlyOwnConflicts(err, o.manager) {
		stored, result, err = write.Apply(ctx, cl, d, append(options, client.Force)...)
	}
	return stored, result, warnings, err
}

// onlyOwnConflicts tells whether an apply met nothing but fields that the same person's other
// commands, such as scale, set before: then the manifest is what counts.
func onlyOwnConflicts(err error, manager string) bool {
	if apierr.Reason(err) != apierr.ReasonApplyConflict {
		return false
	}
	own := fmt.Sprintf("conflict with %q", manager)
	for _, v := range apierr.Violations(err) {
		if v.Description != own {
			return false
		}
	}
	return true
}
