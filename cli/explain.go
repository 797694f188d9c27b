package cli

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/schema"
)

func (s *shell) explainCommand() *cobra.Command {
	var recursive bool
	cmd := &cobra.Command{
		Use:   "explain KIND[.FIELD...]",
		Short: "Explain the fields of objects",
		Example: "  xebec explain pod\n" +
			"  xebec explain deployment.spec.strategy\n" +
			"  xebec explain service.spec --recursive",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeKinds(),
		RunE:              func(_ *cobra.Command, args []string) error { return s.explain(args[0], recursive) },
	}
	cmd.Flags().BoolVar(&recursive, "recursive", false, "show all fields below, without their explanations")
	return cmd
}

func (s *shell) explain(text string, recursive bool) error {
	name, rest, _ := strings.Cut(text, ".")
	k, err := parseKind(name)
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
	columns := width(s.Out)
	if columns == 0 {
		columns = 100
	}
	if k.Group != "" {
		s.printf("GROUP:    %s\n", k.Group)
	}
	s.printf("KIND:     %s\nVERSION:  %s\n", k.Name, k.Version)
	if rest != "" {
		s.printf("FIELD:    %s <%s>\n", strings.Join(path[1:], "."), field.Type)
	}
	s.printf("\n")
	for _, comment := range []string{field.Comment, field.TypeComment} {
		if comment != "" {
			s.printf("%s\n\n", wrap(comment, "  ", columns))
		}
	}
	if field.NoEffect != "" {
		s.printf("%s\n\n", wrap("Has no effect yet: "+field.NoEffect+".", "  ", columns))
	}
	if len(field.Fields()) == 0 {
		return nil
	}
	s.printf("FIELDS:\n")
	s.explainFields(field, "  ", columns, recursive, map[string]bool{})
	return nil
}

func unknownField(path []string, step string, field schema.Field) error {
	var known []string
	for _, f := range field.Fields() {
		known = append(known, f.Name)
	}
	at := strings.Join(path, ".")
	switch near := nearest(step, known); {
	case len(known) == 0:
		return usagef("%s is a %s: it has no fields", at, field.Type)
	case near != "":
		return usagef("%s has no field %q, did you mean %q?", at, step, near)
	}
	return usagef("%s has no field %q: it has %s", at, step, strings.Join(known, ", "))
}

// explainFields lists fields; within is the types that contain them, so that a type within itself is shown once.
func (s *shell) explainFields(field schema.Field, indent string, columns int, recursive bool, within map[string]bool) {
	for _, f := range field.Fields() {
		s.printf("%s%s <%s>\n", indent, f.Name, f.Type)
		if !recursive {
			text := f.Comment
			if f.NoEffect != "" {
				text += " Has no effect yet."
			}
			s.printf("%s\n\n", wrap(text, indent+"  ", columns))
			continue
		}
		if bare := strings.TrimPrefix(f.Type, "[]"); !within[bare] {
			within[bare] = true
			s.explainFields(f, indent+"  ", columns, recursive, within)
			delete(within, bare)
		}
	}
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
