// Package printer writes objects and tables: as text in columns, names, JSON, YAML or by a JSONPath
// template.
package printer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/jsonpath"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/codec/tree"
	"github.com/xebec-project/xebec/internal/scheme"
)

// Format is a way to print objects, chosen by -o.
type Format struct {
	// name is table, wide, name, json, yaml or jsonpath.
	Name     string
	template jsonpath.Template
	// managedFields shows who owns which field.
	ManagedFields bool
}

// Forms of output.
const (
	asTable  = "table"
	Wide     = "wide"
	Name     = "name"
	JSON     = "json"
	YAML     = "yaml"
	JSONPath = "jsonpath"
)

// ParseFormat reads the value of -o; an empty one is a table.
func ParseFormat(text string) (Format, error) {
	name, argument, _ := strings.Cut(text, "=")
	switch name {
	case "":
		return Format{Name: asTable}, nil
	case Wide, Name, JSON, YAML:
		if argument == "" {
			return Format{Name: name}, nil
		}
	case "jsonpath-file":
		data, err := os.ReadFile(argument)
		if err != nil {
			return Format{}, exit.FileError("read", err)
		}
		argument = string(data)
		fallthrough
	case JSONPath:
		if argument == "" {
			return Format{}, exit.Usagef("-o %s requires a template, such as -o jsonpath='{.metadata.name}'", name)
		}
		t, err := jsonpath.Parse(argument)
		if err != nil {
			return Format{}, exit.AsUsage(err)
		}
		return Format{Name: JSONPath, template: t}, nil
	}
	return Format{}, exit.Usagef("invalid -o value %q: want wide, name, json, yaml or jsonpath=TEMPLATE", text)
}

// Structured tells that the form shows objects whole and not as rows.
func (f Format) Structured() bool { return f.Name != asTable && f.Name != Wide }

// Print writes objects in any form but a table. One that was asked for by its name is written by
// itself, others as a List.
func (f Format) Print(w io.Writer, objects []scheme.Object, single bool) error {
	if f.Name == Name {
		for _, o := range objects {
			fmt.Fprintln(w, resolve.Of(o))
		}
		return nil
	}
	nodes := make([]*tree.Node, len(objects))
	for i, o := range objects {
		if !f.ManagedFields && len(o.GetMetadata().GetManagedFields()) > 0 {
			o = client.Clone(o)
			o.GetMetadata().ManagedFields = nil
		}
		n, err := codec.EncodeWhole(o)
		if err != nil {
			return fmt.Errorf("%s: %w", resolve.Of(o), err)
		}
		nodes[i] = n
	}
	root := &tree.Node{Kind: tree.Map, Members: []tree.Member{
		{Key: "apiVersion", Value: &tree.Node{Kind: tree.String, Text: "v1"}},
		{Key: "kind", Value: &tree.Node{Kind: tree.String, Text: "List"}},
		{Key: "items", Value: &tree.Node{Kind: tree.List, Items: nodes}},
	}}
	if single && len(nodes) == 1 {
		root = nodes[0]
	}
	return f.PrintTree(w, root)
}

// PrintTree writes a tree in the form, for programs: nothing is escaped but by the form's own
// rules, as with kubectl.
func (f Format) PrintTree(w io.Writer, n *tree.Node) error {
	var out []byte
	var err error
	switch f.Name {
	case YAML:
		out, err = n.YAML()
	case JSONPath:
		var b strings.Builder
		err = f.template.Execute(&b, n.Value())
		out = []byte(b.String())
	default:
		var b bytes.Buffer
		err = json.Indent(&b, n.JSON(), "", "    ")
		b.WriteByte('\n')
		out = b.Bytes()
	}
	if err != nil {
		return err
	}
	_, err = terminal.Raw(w).Write(out)
	return err
}

// PrintValue writes a value that is no object, by its struct tags for JSON.
func (f Format) PrintValue(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	n, err := tree.ParseJSON(data)
	if err != nil {
		return err
	}
	return f.PrintTree(w, n)
}

// PrintMessage prints a message in a structured form, with every field.
func (f Format) PrintMessage(w io.Writer, m proto.Message) error {
	data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return err
	}
	n, err := tree.ParseJSON(data)
	if err != nil {
		return err
	}
	return f.PrintTree(w, n)
}

// MessageOutput is -o of a command that shows a table or a message.
type MessageOutput string

// Flag adds the flag to a command.
func (o *MessageOutput) Flag(cmd *cobra.Command) {
	cmd.Flags().StringVarP((*string)(o), "output", "o", "", "output format: json, yaml or jsonpath=TEMPLATE")
}

// Format returns the format that the flag names.
func (o *MessageOutput) Format() (Format, error) {
	f, err := ParseFormat(string(*o))
	if err == nil && f.Name == Name {
		err = exit.Usagef("invalid -o value \"name\": want json, yaml or jsonpath=TEMPLATE")
	}
	return f, err
}
