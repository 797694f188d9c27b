package codec

import (
	"fmt"
	"strconv"
	"strings"
)

// FieldError says what is wrong with one value of a document.
type FieldError struct {
	// Path leads to the value, as Kubernetes writes it: spec.template.spec.containers[0].image,
	// metadata.labels[app]. It is empty for the document as a whole.
	Path string
	// Line is where the value stands in the text, counted from 1; 0 when there is no text.
	Line int
	// Message says what is wrong and, where it can, how to fix it.
	Message string
	// Kind is, for an object of a kind that there is not, the kind with its apiVersion, and else
	// empty.
	Kind string
}

// Error returns the path and the message. The line is left to who knows the name of the text.
func (e *FieldError) Error() string {
	if e.Path == "" {
		return e.Message
	}
	return e.Path + ": " + e.Message
}

// Errors is everything found wrong with one document, in the order of the text; it is never empty
// as an error.
type Errors []*FieldError

// Error returns one error per text line, each after its line in the document where that is known.
func (e Errors) Error() string {
	var b strings.Builder
	for i, err := range e {
		if i > 0 {
			b.WriteByte('\n')
		}
		if err.Line > 0 {
			fmt.Fprintf(&b, "line %d: ", err.Line)
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

// path is a value's place in a document. It is kept as a chain, because it is written out for
// errors only.
type path struct {
	parent *path
	name   string
	kind   pathKind
	index  int
}

type pathKind uint8

const (
	pathField pathKind = iota
	pathKey
	pathIndex
)

func (p *path) field(name string) *path { return &path{parent: p, name: name} }
func (p *path) key(name string) *path   { return &path{parent: p, name: name, kind: pathKey} }
func (p *path) item(index int) *path    { return &path{parent: p, index: index, kind: pathIndex} }

func (p *path) String() string {
	if p == nil {
		return ""
	}
	before := p.parent.String()
	switch p.kind {
	case pathKey:
		return before + "[" + p.name + "]"
	case pathIndex:
		return before + "[" + strconv.Itoa(p.index) + "]"
	}
	if before == "" {
		return p.name
	}
	return before + "." + p.name
}
