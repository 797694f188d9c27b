// Package write changes objects and reports the result: from manifests, one by one or in one
// transaction, and by updates.
package write

import (
	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/scheme"
)

// Options are those of commands that write.
type Options struct {
	output string
	dryRun string
	Form   printer.Format
	// Subresource is the part of the object that is written, empty for the object without its status.
	Subresource string
}

// Flags adds the flags of these options to a command.
func (o *Options) Flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "output format: name, json, yaml or jsonpath=TEMPLATE")
	o.DryRunFlag(cmd)
}

// DryRunFlag adds --dry-run.
func (o *Options) DryRunFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.dryRun, "dry-run", "none", "none, or server: validate the request without storing anything")
	// kubectl's bare --dry-run meant "client", which checks too little to be of use.
	cmd.Flags().Lookup("dry-run").NoOptDefVal = "server"
}

// SubresourceFlag adds --subresource to a command that patches or applies.
func (o *Options) SubresourceFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.Subresource, "subresource", "", "subresource to write, such as status, or resize of pods")
}

// Parse checks the values of the flags. Call it before any other method.
func (o *Options) Parse() (err error) {
	switch o.dryRun {
	case "none", "server":
	case "client":
		return exit.Usagef("invalid --dry-run value \"client\": only the server validates; want none or server")
	default:
		return exit.Usagef("invalid --dry-run value %q: want none or server", o.dryRun)
	}
	if o.Form, err = printer.ParseFormat(o.output); err == nil && o.Form.Name == printer.Wide {
		return exit.Usagef("invalid -o value \"wide\": want name, json, yaml or jsonpath=TEMPLATE")
	}
	return err
}

// Dry reports whether nothing may be stored.
func (o *Options) Dry() bool { return o.dryRun == "server" }

// Report prints what became of an object.
func Report(s *session.Session, o *Options, obj scheme.Object, what string) error {
	if o.Form.Structured() {
		if o.Form.Name == printer.YAML {
			s.Printf("---\n")
		}
		return o.Form.Print(s.Out, []scheme.Object{obj}, true)
	}
	Done(s, o.Dry(), resolve.Of(obj), what)
	return nil
}

// Done prints what was done to an object.
func Done(s *session.Session, dry bool, r resolve.Reference, what string) {
	if dry {
		what += " (server dry run)"
	}
	s.Printf("%s %s\n", r, what)
}
