package tree

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// ParseJSON reads a text that holds one JSON value.
func ParseJSON(data []byte) (*Node, error) {
	nodes, err := ParseJSONStream(data)
	if err != nil {
		return nil, err
	}
	switch len(nodes) {
	case 0:
		return nil, &SyntaxError{Line: 1, Message: "the text is empty"}
	case 1:
		return nodes[0], nil
	}
	return nil, &SyntaxError{Line: nodes[1].Line, Message: "there is more text after the end of the value"}
}

// ParseJSONStream reads a text that holds any number of JSON values one after the other.
func ParseJSONStream(data []byte) ([]*Node, error) {
	p := &jsonParser{data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	p.dec.UseNumber()
	if !utf8.Valid(data) {
		return nil, p.errorAt(int64(firstInvalid(data)), "the text is not valid UTF-8")
	}
	var nodes []*Node
	for {
		tok, err := p.token()
		if errors.Is(err, io.EOF) {
			return nodes, nil
		}
		if err != nil {
			return nil, err
		}
		n, err := p.value(tok, 0)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
}

func firstInvalid(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(data)
}

type jsonParser struct {
	data []byte
	dec  *json.Decoder
	// line is the line of offset at, the end of the last token.
	line int
	at   int64
}

// token returns the next token, having moved line to it. The end of the text is io.EOF between
// values only.
func (p *jsonParser) token() (json.Token, error) {
	tok, err := p.dec.Token()
	if err != nil {
		var syntax *json.SyntaxError
		switch {
		case errors.As(err, &syntax):
			return nil, p.errorAt(max(syntax.Offset-1, 0), "not valid JSON: "+syntax.Error())
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, p.errorAt(int64(len(p.data)), "not valid JSON: unexpected end of the text")
		}
		return nil, err
	}
	// No token spans lines, so that its end is on the line of its start.
	end := p.dec.InputOffset()
	p.line += bytes.Count(p.data[p.at:end], []byte{'\n'})
	p.at = end
	return tok, nil
}

func (p *jsonParser) errorAt(offset int64, message string) error {
	offset = min(offset, int64(len(p.data)))
	return &SyntaxError{Line: 1 + bytes.Count(p.data[:offset], []byte{'\n'}), Message: message}
}

// inner is token within a list or an object, where the text must not end.
func (p *jsonParser) inner() (json.Token, error) {
	tok, err := p.token()
	if errors.Is(err, io.EOF) {
		return nil, p.errorAt(int64(len(p.data)), "not valid JSON: unexpected end of the text")
	}
	return tok, err
}

func (p *jsonParser) value(tok json.Token, depth int) (*Node, error) {
	n := &Node{Line: p.line}
	switch tok := tok.(type) {
	case nil:
	case bool:
		n.Kind, n.Text = Bool, strconv.FormatBool(tok)
	case json.Number:
		n.Kind, n.Text = Number, tok.String()
	case string:
		n.Kind, n.Text = String, tok
	case json.Delim:
		if depth == maxDepth {
			return nil, &SyntaxError{Line: p.line, Message: fmt.Sprintf("lists and objects are nested more than %d deep", maxDepth)}
		}
		if tok == '[' {
			n.Kind = List
			return n, p.list(n, depth+1)
		}
		n.Kind = Map
		return n, p.object(n, depth+1)
	}
	return n, nil
}

func (p *jsonParser) list(n *Node, depth int) error {
	for {
		tok, err := p.inner()
		if err != nil {
			return err
		}
		if tok == json.Delim(']') {
			return nil
		}
		item, err := p.value(tok, depth)
		if err != nil {
			return err
		}
		n.Items = append(n.Items, item)
	}
}

func (p *jsonParser) object(n *Node, depth int) error {
	for {
		tok, err := p.inner()
		if err != nil {
			return err
		}
		key, ok := tok.(string)
		if !ok {
			return nil
		}
		m := Member{Key: key, Line: p.line}
		if tok, err = p.inner(); err != nil {
			return err
		}
		if m.Value, err = p.value(tok, depth); err != nil {
			return err
		}
		n.Members = append(n.Members, m)
	}
}

// JSON returns the value as compact JSON, members in their order. Characters special to HTML are
// not escaped.
func (n *Node) JSON() []byte { return n.appendJSON(nil) }

func (n *Node) appendJSON(b []byte) []byte {
	switch n.Kind {
	case Null:
		return append(b, "null"...)
	case Bool, Number:
		return append(b, n.Text...)
	case String:
		return appendJSONString(b, n.Text)
	case List:
		b = append(b, '[')
		for i, item := range n.Items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		return append(b, ']')
	}
	b = append(b, '{')
	for i, m := range n.Members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSONString(b, m.Key), ':')
		b = m.Value.appendJSON(b)
	}
	return append(b, '}')
}

func appendJSONString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	from := 0
	for i, r := range s {
		if r >= ' ' && r != '"' && r != '\\' && r != '\u2028' && r != '\u2029' && r != utf8.RuneError {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + utf8.RuneLen(r)
		switch r {
		case '"', '\\':
			b = append(b, '\\', byte(r))
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		case utf8.RuneError:
			// Either the replacement character itself or one byte that is not UTF-8.
			_, size := utf8.DecodeRuneInString(s[i:])
			from = i + size
			b = utf8.AppendRune(b, utf8.RuneError)
		default:
			b = append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		}
	}
	return append(append(b, s[from:]...), '"')
}
