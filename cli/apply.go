package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	"github.com/xebec-project/xebec/internal/manifest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// writeOptions are those of commands that write.
type writeOptions struct {
	output string
	dryRun string
	form   form
}

func (o *writeOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "print the objects instead of what happened: name, json, yaml, or jsonpath=TEMPLATE")
	o.dryRunFlag(cmd)
}

func (o *writeOptions) dryRunFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.dryRun, "dry-run", "none", "server: check and show everything, store nothing")
	// kubectl's bare --dry-run meant "client", which checks too little to be of use.
	cmd.Flags().Lookup("dry-run").NoOptDefVal = "server"
}

func (o *writeOptions) parse() (err error) {
	switch o.dryRun {
	case "none", "server":
	case "client":
		return usagef("--dry-run=client would check nothing that counts: use --dry-run=server")
	default:
		return usagef("--dry-run is none or server, not %q", o.dryRun)
	}
	if o.form, err = parseForm(o.output); err == nil && o.form.name == formWide {
		return usagef("-o wide shows tables: use get")
	}
	return err
}

func (o *writeOptions) dry() bool { return o.dryRun == "server" }

// wrote prints what became of an object.
func (s *shell) wrote(o *writeOptions, obj kind.Object, what string) error {
	if o.form.structured() {
		if o.form.name == formYAML {
			s.printf("---\n")
		}
		return o.form.print(s.Out, []kind.Object{obj}, true)
	}
	s.happened(o.dry(), referenceOf(obj), what)
	return nil
}

func (s *shell) happened(dry bool, r reference, what string) {
	if dry {
		what += " (server dry run)"
	}
	s.printf("%s %s\n", r, what)
}

type applyOptions struct {
	choice
	writeOptions
	manifestOptions
	force      bool
	serverSide bool
	manager    string
}

func (s *shell) applyCommand() *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create or change objects to be as in manifests",
		Long: "Create or change objects to be as in manifests. The server merges what the manifest says into the object and\n" +
			"remembers who owns which field: fields of others stay, and a field that both set is a conflict.\n\n" +
			"Each object is written by itself, namespaces first. What can't be read or is refused is listed with its file and\n" +
			"line, the others are written, and the exit code is 1. With --atomic all are written in one transaction, or none.",
		Example: "  xebec apply -f web.yaml\n" +
			"  xebec apply -R -f manifests/\n" +
			"  cat web.yaml | xebec apply -f -\n" +
			"  xebec apply -f web.yaml --dry-run=server",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			if len(o.files) == 0 {
				return usagef("-f is required: a file, a directory, or - for standard input")
			}
			return s.apply(cmd.Context(), o)
		},
	}
	o.fileFlags(cmd, "to apply")
	o.writeOptions.flags(cmd)
	o.manifestOptions.flags(cmd)
	cmd.Flags().BoolVar(&o.force, "force-conflicts", false, "take fields over that others own")
	cmd.Flags().BoolVar(&o.serverSide, "server-side", true, "the only way there is; accepted for kubectl's sake")
	cmd.Flags().StringVar(&o.manager, "field-manager", fieldManager, "who owns the applied fields")
	return cmd
}

func (s *shell) apply(ctx context.Context, o applyOptions) error {
	if !o.serverSide {
		return usagef("every apply is a server-side one: leave --server-side=false out")
	}
	docs, wrong := s.manifests(o.choice, o.manifestOptions)
	if wrong != nil && (len(docs) == 0 || o.atomic) {
		return wrong
	}
	cl := s.client()
	cl = cl.WithFieldManager(o.manager)
	if o.atomic {
		return s.applyTogether(ctx, cl, docs, o)
	}
	return s.each(docs, wrong, func(d manifest.Document) error {
		obj, result, warnings, err := s.applyOne(ctx, cl, d.Object, o)
		s.warnings(d, warnings)
		if err != nil {
			return err
		}
		return s.wrote(&o.writeOptions, obj, applied[result])
	})
}

// applyTogether applies all objects in one transaction.
func (s *shell) applyTogether(ctx context.Context, cl *client.Client, docs []manifest.Document, o applyOptions) error {
	forced := map[int]bool{}
	return s.together(ctx, cl, docs, o.dry(),
		func(i int, d manifest.Document) client.Operation {
			if o.force || forced[i] {
				return client.OpApply(d.Object, client.Force)
			}
			return client.OpApply(d.Object)
		},
		func(i int, err error) bool {
			if forced[i] || !onlyOwnConflicts(err, o.manager) {
				return false
			}
			forced[i] = true
			return true
		},
		func(i int, d manifest.Document, r *client.Result) error {
			result, warnings := r.Applied(i)
			s.warnings(d, warnings)
			obj, err := r.Object(i)
			if err != nil {
				return err
			}
			return s.wrote(&o.writeOptions, obj, applied[result])
		})
}

// applied are the results as kubectl words them.
var applied = map[apiv1.ApplyResult]string{
	apiv1.ApplyResult_APPLY_RESULT_CREATED:    "created",
	apiv1.ApplyResult_APPLY_RESULT_CONFIGURED: "configured",
	apiv1.ApplyResult_APPLY_RESULT_UNCHANGED:  "unchanged",
}

// applyOne applies an object by itself. It returns the server's warnings also with an error.
func (s *shell) applyOne(ctx context.Context, cl *client.Client, obj kind.Object, o applyOptions) (kind.Object, apiv1.ApplyResult, []string, error) {
	var warnings []string
	options := []client.ApplyOption{client.Warnings(&warnings)}
	if o.dry() {
		options = append(options, client.DryRun)
	}
	if o.force {
		options = append(options, client.Force)
	}
	stored, result, err := client.Apply(ctx, cl, obj, options...)
	if !o.force && onlyOwnConflicts(err, o.manager) {
		stored, result, err = client.Apply(ctx, cl, obj, append(options, client.Force)...)
	}
	return stored, result, warnings, err
}

// onlyOwnConflicts tells whether an apply met nothing but fields that the same person's other commands, such as scale,
// set before: then the manifest is what counts.
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
