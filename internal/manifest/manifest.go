// Package manifest reads manifests: files of YAML or JSON with any number of objects in them, as
// people write them for Kubernetes. Its errors say where in which file something is wrong, and it
// reports all of them at once.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/codec/tree"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
)

// MaxSize is how many bytes one manifest may have. Larger ones are refused unread.
const MaxSize = 64 << 20

// Document is one object of a manifest.
type Document struct {
	Object scheme.Object
	// Source is the name of the text that the object comes from, and Line where it starts, counted
	// from 1.
	Source string
	Line   int
	// Warnings are about keys that are written twice, of which the last counts.
	Warnings Errors

	text *tree.Node
}

// LineOf returns the line of the field at a path such as spec.containers[0].env[2], or of the
// innermost one on the way to it that the text has.
func (d Document) LineOf(path string) int {
	n, line := d.text, d.Line
	for n != nil && path != "" {
		step := path
		if path[0] == '[' {
			key, rest, ok := strings.Cut(path[1:], "]")
			if !ok {
				return line
			}
			step, path = key, rest
			if n.Kind == tree.List {
				i, err := strconv.Atoi(key)
				if err != nil || i < 0 || i >= len(n.Items) {
					return line
				}
				n = n.Items[i]
				line = n.Line
				path = strings.TrimPrefix(path, ".")
				continue
			}
		} else if i := strings.IndexAny(path, ".["); i >= 0 {
			step, path = path[:i], path[i:]
		} else {
			path = ""
		}
		path = strings.TrimPrefix(path, ".")
		i := slices.IndexFunc(n.Members, func(m tree.Member) bool { return m.Key == step })
		if i < 0 {
			return line
		}
		n, line = n.Members[i].Value, n.Members[i].Line
	}
	return line
}

// Error says what is wrong at one place of a manifest.
type Error struct {
	// Source is the name of the text, Line is counted from 1 and 0 when it is not known.
	Source string
	Line   int
	// Err is a *codec.FieldError, or what made the text unreadable.
	Err error
}

// Error returns the place and what is wrong there, such as "deploy.yaml:14: spec.replica: unknown
// field".
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Source + ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s:%d: %v", e.Source, e.Line, e.Err)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Errors is everything found wrong, in the order of the text; it is never empty as an error.
type Errors []*Error

// Error returns one error per line.
func (e Errors) Error() string {
	var b strings.Builder
	for i, err := range e {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

// Unwrap returns the single errors, for errors.As.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// Reader reads manifests. The functions of the package of the same names read objects of the kinds
// that are compiled in.
type Reader struct {
	// Kinds are the kinds of the objects.
	Kinds *scheme.Scheme
	// Discover is called before an object is refused because its kind is unknown, at most once. It may
	// add kinds to Kinds. It is optional.
	Discover func()

	discovered bool
}

// compiledIn has the kinds that are compiled in.
var compiledIn = sync.OnceValue(kinds.NewScheme)

// Decode is Reader.Decode.
func Decode(name string, r io.Reader) ([]Document, error) {
	return (&Reader{Kinds: compiledIn()}).Decode(name, r)
}

// Decode reads the objects of one manifest; name is what errors call it. The text is a stream of
// YAML documents or of JSON values. Empty documents are skipped, and objects of kind List are
// replaced by their items.
//
// It returns the objects that are valid even when there are errors, which are of type Errors.
func (m *Reader) Decode(name string, r io.Reader) ([]Document, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, Errors{{Source: name, Err: err}}
	}
	if len(data) > MaxSize {
		return nil, Errors{{Source: name, Err: fmt.Errorf("the manifest is larger than %d MiB", MaxSize>>20)}}
	}
	d := &decoder{Reader: m, codec: codec.New(m.Kinds), source: name}
	nodes, err := parse(data)
	for _, n := range nodes {
		d.document(n, "", 0)
	}
	if err != nil {
		d.fail(err)
	}
	if len(d.errs) > 0 {
		return d.docs, d.errs
	}
	return d.docs, nil
}

// parse reads a text as JSON if it begins like JSON, and as YAML if that fails: YAML's flow style
// begins alike.
func parse(data []byte) ([]*tree.Node, error) {
	if text := bytes.TrimLeft(data, " \t\r\n"); len(text) > 0 && (text[0] == '{' || text[0] == '[') {
		nodes, jsonErr := tree.ParseJSONStream(data)
		if jsonErr == nil {
			return nodes, nil
		}
		nodes, err := tree.ParseYAML(bytes.NewReader(data))
		if err != nil {
			return nil, jsonErr
		}
		return nodes, nil
	}
	return tree.ParseYAML(bytes.NewReader(data))
}

// lookup finds the kind of an object, if need be by discovery.
func (m *Reader) lookup(apiVersion, name string) (*scheme.Kind, bool) {
	k, ok := m.Kinds.ByAPIVersionKind(apiVersion, name)
	if ok || m.Discover == nil || m.discovered {
		return k, ok
	}
	m.discovered = true
	m.Discover()
	return m.Kinds.ByAPIVersionKind(apiVersion, name)
}

// decoder reads one manifest.
type decoder struct {
	*Reader
	codec  *codec.Codec
	source string
	docs   []Document
	errs   Errors
}

func (d *decoder) fail(err error) {
	if syntax, ok := errors.AsType[*tree.SyntaxError](err); ok {
		d.errs = append(d.errs, &Error{Source: d.source, Line: syntax.Line, Err: errors.New(syntax.Message)})
		return
	}
	d.errs = append(d.errs, &Error{Source: d.source, Err: err})
}

// maxLists bounds how deep lists may stand in lists.
const maxLists = 10

// document reads one object or the items of a list; within a list, at is the item's path.
func (d *decoder) document(n *tree.Node, at string, depth int) {
	if items, ok := d.listItems(n); ok && depth < maxLists {
		for i, item := range items {
			if item.Kind != tree.Null {
				d.document(item, fmt.Sprintf("%sitems[%d].", at, i), depth+1)
			}
		}
		return
	}
	if apiVersion, name, ok := typeOf(n); ok {
		d.lookup(apiVersion, name)
	}
	object, warnings, err := d.codec.DecodeLenient(n)
	if err != nil {
		d.fieldErrors(n, at, err)
		return
	}
	if object.GetMetadata().GetName() == "" && object.GetMetadata().GetGenerateName() == "" {
		line := n.Line
		if metadata := n.Get("metadata"); metadata != nil {
			line = metadata.Line
		}
		d.errs = append(d.errs, &Error{Source: d.source, Line: line, Err: &codec.FieldError{
			Path: at + "metadata.name", Line: line, Message: "required, unless generateName is given"}})
		return
	}
	d.docs = append(d.docs, Document{Object: object, Source: d.source, Line: n.Line, Warnings: d.placed(at, warnings), text: n})
}

func (d *decoder) fieldErrors(n *tree.Node, at string, err error) {
	errs, ok := errors.AsType[codec.Errors](err)
	if !ok {
		d.errs = append(d.errs, &Error{Source: d.source, Line: n.Line, Err: err})
		return
	}
	d.errs = append(d.errs, d.placed(at, errs)...)
}

// placed gives what the codec found its place in the manifest.
func (d *decoder) placed(at string, errs codec.Errors) Errors {
	var out Errors
	for _, fe := range errs {
		fe.Path = strings.TrimSuffix(at+fe.Path, ".")
		out = append(out, &Error{Source: d.source, Line: fe.Line, Err: fe})
	}
	return out
}

// typeOf returns the apiVersion and kind of an object; false when one of them is missing.
func typeOf(n *tree.Node) (apiVersion, name string, ok bool) {
	v, k := n.Get("apiVersion"), n.Get("kind")
	if v == nil || k == nil || v.Kind != tree.String || k.Kind != tree.String || v.Text == "" || k.Text == "" {
		return "", "", false
	}
	return v.Text, k.Text, true
}

// listItems returns the items of a v1 List or of a typed list such as PodList, as `kubectl get -o
// yaml` writes them.
func (d *decoder) listItems(n *tree.Node) ([]*tree.Node, bool) {
	apiVersion, name, ok := typeOf(n)
	if !ok {
		return nil, false
	}
	items := n.Get("items")
	element, ok := strings.CutSuffix(name, "List")
	if !ok || items != nil && items.Kind != tree.List && items.Kind != tree.Null {
		return nil, false
	}
	if element != "" {
		if _, known := d.lookup(apiVersion, element); !known {
			return nil, false
		}
	} else if apiVersion != "v1" {
		return nil, false
	}
	if items == nil {
		return nil, true
	}
	return items.Items, true
}
