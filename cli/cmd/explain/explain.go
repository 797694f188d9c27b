// Package explain holds the commands explain and api-resources.
package explain

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/schema"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
)

// Command returns the command explain.
func Command(s *session.Session) *cobra.Command {
	var recursive bool
	var apiVersion string
	cmd := &cobra.Command{
		Use:   "explain KIND[.FIELD...]",
		Short: "Describe the fields of objects",
		Example: "  xebec explain pod\n" +
			"  xebec explain deployment.spec.strategy\n" +
			"  xebec explain service.spec --recursive",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: resolve.CompleteKinds(s),
		RunE:              func(_ *cobra.Command, args []string) error { return explain(s, args[0], apiVersion, recursive) },
	}
	cmd.Flags().StringVar(&apiVersion, "api-version", "", "version of the kind, such as apps/v1 (default: the stored one)")
	cmd.Flags().BoolVar(&recursive, "recursive", false, "show all nested fields without descriptions")
	return cmd
}

func explain(s *session.Session, text, apiVersion string, recursive bool) error {
	name, rest, _ := strings.Cut(text, ".")
	k, err := resolve.KindOf(s, apiVersion, name)
	if err != nil {
		return err
	}
	field, err := schema.Of(k)
	if err != nil {
		return err
	}
	path := []string{k.Singular}
	if rest != "" {
		for step := range strings.SplitSeq(rest, ".") {
			step, _, _ = strings.Cut(step, "[")
			child, ok := field.Child(step)
			if !ok {
				return unknownField(path, step, field)
			}
			path, field = append(path, step), child
		}
	}
	columns := terminal.Width(s.Out)
	if columns == 0 {
		columns = 100
	}
	if k.Group != "" {
		s.Printf("GROUP:    %s\n", k.Group)
	}
	s.Printf("KIND:     %s\nVERSION:  %s\n", k.Name, k.Version)
	if rest != "" {
		s.Printf("FIELD:    %s <%s>%s\n", strings.Join(path[1:], "."), field.Type, required(field))
	}
	for _, fact := range facts(field) {
		s.Printf("%-9s %s\n", strings.ToUpper(fact.name)+":", fact.text)
	}
	s.Printf("\n")
	for _, comment := range []string{field.Comment, field.TypeComment} {
		if comment != "" {
			s.Printf("%s\n\n", wrap(comment, "  ", columns))
		}
	}
	if field.NoEffect != "" {
		s.Printf("%s\n\n", wrap("Has no effect yet: "+field.NoEffect+".", "  ", columns))
	}
	if field.Refused != "" {
		s.Printf("%s\n\n", wrap("Not supported: "+field.Refused+".", "  ", columns))
	}
	if len(field.Fields()) == 0 {
		return nil
	}
	s.Printf("FIELDS:\n")
	explainFields(s, field, "  ", columns, recursive, map[string]bool{})
	return nil
}

func unknownField(path []string, step string, field schema.Field) error {
	var known []string
	for _, f := range field.Fields() {
		known = append(known, f.Name)
	}
	at := strings.Join(path, ".")
	switch near := resolve.Nearest(step, known); {
	case len(known) == 0:
		return exit.Usagef("%s has type %s, which has no fields", at, field.Type)
	case near != "":
		return exit.Usagef("%s has no field %q, did you mean %q?", at, step, near)
	}
	return exit.Usagef("%s has no field %q: want one of %s", at, step, strings.Join(known, ", "))
}

// explainFields lists fields; within is the types that contain them, so that a type within itself
// is shown once.
func explainFields(s *session.Session, field schema.Field, indent string, columns int, recursive bool, within map[string]bool) {
	for _, f := range field.Fields() {
		s.Printf("%s%s <%s>%s\n", indent, f.Name, f.Type, required(f))
		if !recursive {
			for _, fact := range facts(f) {
				s.Printf("%s\n", wrap(fact.name+": "+fact.text, indent, columns))
			}
			text := f.Comment
			if f.NoEffect != "" {
				text += " Has no effect yet."
			}
			if f.Refused != "" {
				text += " Not supported."
			}
			s.Printf("%s\n\n", wrap(text, indent+"  ", columns))
			continue
		}
		if bare := strings.TrimPrefix(f.Type, "[]"); !within[bare] {
			within[bare] = true
			explainFields(s, f, indent+"  ", columns, recursive, within)
			delete(within, bare)
		}
	}
}

// required marks required fields as kubectl does.
func required(f schema.Field) string {
	if f.Required {
		return " -required-"
	}
	return ""
}

type fact struct{ name, text string }

// facts are the accepted values of a field and its default.
func facts(f schema.Field) []fact {
	var out []fact
	if len(f.Enum) > 0 {
		out = append(out, fact{"enum", strings.Join(f.Enum, ", ")})
	}
	if f.Range != "" {
		out = append(out, fact{"range", f.Range})
	}
	if f.Default != "" && f.Default != `""` {
		out = append(out, fact{"default", strings.Trim(f.Default, `"`)})
	}
	return out
}

// wrap breaks a text into lines.
func wrap(text, indent string, columns int) string {
	var b strings.Builder
	length := 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case length == 0:
			fmt.Fprintf(&b, "%s%s", indent, word)
			length = len(indent) + n
		case length+1+n > columns:
			fmt.Fprintf(&b, "\n%s%s", indent, word)
			length = len(indent) + n
		default:
			b.WriteString(" " + word)
			length += 1 + n
		}
	}
	return b.String()
}
