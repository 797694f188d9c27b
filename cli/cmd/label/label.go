// Package label holds the commands label and annotate.
package label

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Command returns the command label.
func Command(s *session.Session) *cobra.Command {
	return mapCommand(s, "label", "labels", "labeled", func(m *metav1.ObjectMeta) *map[string]string { return &m.Labels },
		"  xebec label node node-1 disk=ssd\n"+
			"  xebec label pods -l app=web tier=front --overwrite\n"+
			"  xebec label pod/web-0 tier-")
}

// AnnotateCommand returns the command annotate.
func AnnotateCommand(s *session.Session) *cobra.Command {
	return mapCommand(s, "annotate", "annotations", "annotated", func(m *metav1.ObjectMeta) *map[string]string { return &m.Annotations },
		"  xebec annotate deployment/web kubernetes.io/change-cause='image 2'\n"+
			"  xebec annotate pod/web-0 note-")
}

// mapCommand makes a command that changes labels or annotations.
func mapCommand(
	s *session.Session,
	name, noun, done string,
	of func(*metav1.ObjectMeta) *map[string]string,
	example string,
) *cobra.Command {
	var c resolve.Choice
	o := &write.Options{}
	var overwrite, list bool
	cmd := &cobra.Command{
		Use:               name + " KIND NAME... | KIND/NAME... KEY=VALUE... KEY-...",
		Short:             "Set or remove " + noun + " of objects",
		Example:           example,
		ValidArgsFunction: resolve.CompleteKinds(s),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			refs, set, remove, err := splitChanges(args, list)
			if err != nil {
				return err
			}
			cl := s.Client()
			chosen, err := resolve.Objects(cmd.Context(), s, cl, refs, c)
			if err != nil {
				return err
			}
			return write.Each(cmd.Context(), s, chosen, o, func(r resolve.Reference) (scheme.Object, string, error) {
				what := "not " + done
				obj, err := write.Update(cmd.Context(), s, cl, r, o, func(obj scheme.Object) error {
					m := of(obj.GetMetadata())
					before := maps.Clone(*m)
					if err := changeMap(m, set, remove, overwrite); err != nil {
						return fmt.Errorf("%s: %w", resolve.Of(obj), err)
					}
					if !maps.Equal(before, *m) {
						what = done
						if len(set) == 0 {
							what = "un" + done
						}
					}
					return nil
				})
				if err == nil && list {
					s.Printf("%s\n", strings.Join(printer.Lines(*of(obj.GetMetadata()), "="), "\n"))
				}
				return obj, what, err
			})
		},
	}
	c.FileFlags(cmd, "of the objects to change")
	c.SelectorFlags(cmd)
	c.AllFlag(cmd)
	o.Flags(cmd)
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace "+noun+" that are already set")
	cmd.Flags().BoolVar(&list, "list", false, "print the "+noun)
	return cmd
}

// splitChanges parts the arguments into references and the changes KEY=VALUE and KEY- behind them.
func splitChanges(args []string, none bool) (refs []string, set map[string]string, remove []string, err error) {
	set = map[string]string{}
	for i, a := range args {
		key, value, assigns := strings.Cut(a, "=")
		cleared, removes := strings.CutSuffix(a, "-")
		switch {
		case assigns && key != "":
			set[key] = value
		case removes && cleared != "" && i > 0:
			remove = append(remove, cleared)
		case len(set)+len(remove) > 0:
			return nil, nil, nil, exit.Usagef("invalid argument %q: objects must come before KEY=VALUE and KEY-", a)
		default:
			refs = append(refs, a)
		}
	}
	for _, key := range remove {
		if _, both := set[key]; both {
			return nil, nil, nil, exit.Usagef("key %s is both set and removed", key)
		}
	}
	if len(set)+len(remove) == 0 && !none {
		return nil, nil, nil, exit.Usagef("at least one KEY=VALUE or KEY- is required")
	}
	return refs, set, remove, nil
}

func changeMap(m *map[string]string, set map[string]string, remove []string, overwrite bool) error {
	if *m == nil {
		*m = map[string]string{}
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		if old, ok := (*m)[key]; ok && old != set[key] && !overwrite {
			return fmt.Errorf("%q already has the value %s: --overwrite replaces it", key, strconv.Quote(old))
		}
		(*m)[key] = set[key]
	}
	for _, key := range remove {
		delete(*m, key)
	}
	return nil
}
