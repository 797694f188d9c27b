package cli

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

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/codec/tree"
	"github.com/xebec-project/xebec/internal/kind"
)

// form is a way to print objects, chosen by -o.
type form struct {
	// name is table, wide, name, json, yaml or jsonpath.
	name     string
	template template
	// managedFields shows who owns which field.
	managedFields bool
}

// Forms of output.
const (
	formTable    = "table"
	formWide     = "wide"
	formName     = "name"
	formJSON     = "json"
	formYAML     = "yaml"
	formJSONPath = "jsonpath"
)

// parseForm reads the value of -o; an empty one is a table.
func parseForm(text string) (form, error) {
	name, argument, _ := strings.Cut(text, "=")
	switch name {
	case "":
		return form{name: formTable}, nil
	case formWide, formName, formJSON, formYAML:
		if argument == "" {
			return form{name: name}, nil
		}
	case "jsonpath-file":
		data, err := os.ReadFile(argument)
		if err != nil {
			return form{}, fileError("read", err)
		}
		argument = string(data)
		fallthrough
	case formJSONPath:
		if argument == "" {
			return form{}, usagef("-o %s needs a template: -o jsonpath='{.metadata.name}'", name)
		}
		t, err := parseTemplate(argument)
		if err != nil {
			return form{}, &usageError{err}
		}
		return form{name: formJSONPath, template: t}, nil
	}
	return form{}, usagef("unknown output format %q: there are wide, name, json, yaml, jsonpath=TEMPLATE", text)
}

// structured tells that the form shows objects whole and not as rows.
func (f form) structured() bool { return f.name != formTable && f.name != formWide }

// print writes objects in any form but a table. One that was asked for by its name is written by itself, others as a
// List.
func (f form) print(w io.Writer, objects []kind.Object, single bool) error {
	if f.name == formName {
		for _, o := range objects {
			fmt.Fprintln(w, referenceOf(o))
		}
		return nil
	}
	nodes := make([]*tree.Node, len(objects))
	for i, o := range objects {
		if !f.managedFields && len(o.GetMetadata().GetManagedFields()) > 0 {
			o = client.Clone(o)
			o.GetMetadata().ManagedFields = nil
		}
		n, err := codec.EncodeWhole(o)
		if err != nil {
			return fmt.Errorf("%s: %w", referenceOf(o), err)
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
	return f.printTree(w, root)
}

// printTree writes a tree in the form, for programs: nothing is escaped but by the form's own rules, as with kubectl.
func (f form) printTree(w io.Writer, n *tree.Node) error {
	var out []byte
	var err error
	switch f.name {
	case formYAML:
		out, err = n.YAML()
	case formJSONPath:
		var b strings.Builder
		err = f.template.execute(&b, n.Value())
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
	_, err = raw(w).Write(out)
	return err
}

// printValue writes a value that is no object, by its struct tags for JSON.
func (f form) printValue(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	n, err := tree.ParseJSON(data)
	if err != nil {
		return err
	}
	return f.printTree(w, n)
}

// message prints a message in a structured form, with every field.
func (f form) message(w io.Writer, m proto.Message) error {
	data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return err
	}
	n, err := tree.ParseJSON(data)
	if err != nil {
		return err
	}
	return f.printTree(w, n)
}

// messageOutput is -o of a command that shows a table or a message.
type messageOutput string

func (o *messageOutput) flag(cmd *cobra.Command) {
	cmd.Flags().StringVarP((*string)(o), "output", "o", "", "json, yaml, or jsonpath=TEMPLATE")
}

func (o *messageOutput) form() (form, error) {
	f, err := parseForm(string(*o))
	if err == nil && f.name == formName {
		err = usagef("-o name is for objects; there are json, yaml and jsonpath=TEMPLATE")
	}
	return f, err
}
