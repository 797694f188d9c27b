// Package tree holds values as JSON knows them, with the line that each came from: what JSON, YAML
// and plain Go values have in common before anybody knows which message they are to become, and
// after a message has been taken apart.
package tree

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is the kind of a node's value.
type Kind uint8

// The kinds of value there are.
const (
	Null Kind = iota
	Bool
	Number
	String
	List
	Map
)

// String returns the kind as error messages name it.
func (k Kind) String() string {
	switch k {
	case Null:
		return "null"
	case Bool:
		return "a boolean"
	case Number:
		return "a number"
	case String:
		return "a string"
	case List:
		return "a list"
	case Map:
		return "an object"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Node is one value. Nodes of a parsed document are shared where YAML aliases are, and so must not
// be written to.
type Node struct {
	Kind Kind
	// Plain marks a YAML string that was written without quotes.
	Plain bool
	// Text is the value of a String, the JSON literal of a Number, and true or false for a Bool.
	Text string
	// Items are the elements of a List.
	Items []*Node
	// Members are the members of a Map as written, duplicates included.
	Members []Member
	// Line is where the value starts, counted from 1; 0 for values that come from no text.
	Line int
}

// Member is one member of a Map.
type Member struct {
	Key   string
	Value *Node
	// Line is the line of the key.
	Line int
}

// Get returns the value of the member named key, of duplicates the last, nil when n is no Map or
// has no such member.
func (n *Node) Get(key string) *Node {
	if n == nil {
		return nil
	}
	for _, m := range slices.Backward(n.Members) {
		if m.Key == key {
			return m.Value
		}
	}
	return nil
}

// Describe names the value for an error message: its kind, and a scalar's text, shortened.
func (n *Node) Describe() string {
	switch n.Kind {
	case Bool:
		return "the boolean " + n.Text
	case Number:
		return "the number " + shorten(n.Text)
	case String:
		return "the string " + fmt.Sprintf("%q", shorten(n.Text))
	}
	return n.Kind.String()
}

func shorten(s string) string {
	const limit = 40
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

// SyntaxError says that a text is not well formed.
type SyntaxError struct {
	// Line is counted from 1; 0 when it is not known.
	Line    int
	Message string
}

// Error returns the message, after the line where that is known.
func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Message)
}

// maxDepth is how deep lists and maps may stand within each other. No message comes near it.
const maxDepth = 500
