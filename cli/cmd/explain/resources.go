package explain

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
)

// ResourcesCommand returns the command api-resources.
func ResourcesCommand(s *session.Session) *cobra.Command {
	var output, group string
	var namespaced, noHeaders bool
	cmd := &cobra.Command{
		Use: "api-resources", Short: "List the kinds of objects",
		Example: "  xebec api-resources\n  xebec api-resources --namespaced=false -o name",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch output {
			case "", printer.Name, printer.Wide:
			default:
				return exit.Usagef("invalid -o value: want name or wide")
			}
			t := &printer.Table{Heads: []string{"NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"}, NoHeads: noHeaders, Keep: 1}
			if output == printer.Wide {
				t.Heads = append(t.Heads, "FIELD SELECTORS")
			}
			for _, k := range resolve.Kinds(s) {
				if cmd.Flags().Changed("namespaced") && k.Namespaced != namespaced || cmd.Flags().Changed("api-group") && k.Group != group {
					continue
				}
				if output == printer.Name {
					s.Printf("%s\n", k.Resource())
					continue
				}
				row := []string{k.Plural, strings.Join(k.ShortNames, ","), k.APIVersion(), fmt.Sprint(k.Namespaced), k.Name}
				if output == printer.Wide {
					row = append(row, strings.Join(k.SelectableFields(), ","))
				}
				t.Add(row...)
			}
			if output != printer.Name {
				t.Print(s.Out)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "name or wide")
	cmd.Flags().StringVar(&group, "api-group", "", "only kinds of this API group; empty for core")
	cmd.Flags().BoolVar(&namespaced, "namespaced", true, "only namespaced kinds or, if false, only others")
	cmd.Flags().BoolVar(&noHeaders, "no-headers", false, "omit table headers")
	return cmd
}
