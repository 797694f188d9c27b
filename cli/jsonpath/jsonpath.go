// Package jsonpath evaluates the JSONPath templates of kubectl.
package jsonpath

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Template is a parsed -o jsonpath template: text with expressions in braces, such as {range
// .items[*]}{.metadata.name}{"\n"}{end}. It knows fields, indexes, slices, [*], filters of one
// comparison, and range; that is the part of Kubernetes' dialect that scripts use.
type Template []templateNode

type templateNode struct {
	text string
	path Path
	// body is repeated for each value of path.
	body  Template
	isFor bool
}

// Path is a parsed expression: each step leads from some values to others.
type Path []step

type step interface {
	walk(value any) ([]any, error)
}

// Parse reads a template. Text without any braces is taken for an expression.
func Parse(text string) (Template, error) {
	if !strings.Contains(text, "{") {
		text = "{" + text + "}"
	}
	t, rest, err := parseNodes(text, false)
	if err == nil && rest != "" {
		err = errors.New("{end} without {range}")
	}
	if err != nil {
		return nil, fmt.Errorf("jsonpath %q: %w", text, err)
	}
	return t, nil
}

// parseNodes reads up to the end of the text or, inside of a range, up to its {end}; rest is what
// follows that.
func parseNodes(text string, inside bool) (nodes Template, rest string, err error) {
	for text != "" {
		open := strings.IndexByte(text, '{')
		if open < 0 {
			nodes = append(nodes, templateNode{text: text})
			text = ""
			break
		}
		if open > 0 {
			nodes = append(nodes, templateNode{text: text[:open]})
		}
		shut := Closing(text[open:], '{', '}')
		if shut < 0 {
			return nil, "", errors.New("missing } after {")
		}
		inner := strings.TrimSpace(text[open+1 : open+shut])
		text = text[open+shut+1:]
		switch {
		case inner == "end" && inside:
			return nodes, text, nil
		case inner == "end":
			return nodes, "{end}", nil
		case strings.HasPrefix(inner, `"`) || strings.HasPrefix(inner, "'"):
			literal, err := unquote(inner)
			if err != nil {
				return nil, "", err
			}
			nodes = append(nodes, templateNode{text: literal})
		default:
			expression, isRange := strings.CutPrefix(inner, "range ")
			p, err := ParsePath(strings.TrimSpace(expression))
			if err != nil {
				return nil, "", err
			}
			node := templateNode{path: p, isFor: isRange}
			if isRange {
				if node.body, text, err = parseNodes(text, true); err != nil {
					return nil, "", err
				}
			}
			nodes = append(nodes, node)
		}
	}
	if inside {
		return nil, "", errors.New("{range} without {end}")
	}
	return nodes, "", nil
}

func unquote(s string) (string, error) {
	if len(s) >= 2 && s[0] == '\'' && s[len(s)-1] == '\'' {
		s = `"` + strings.ReplaceAll(s[1:len(s)-1], `"`, `\"`) + `"`
	}
	out, err := strconv.Unquote(s)
	if err != nil {
		return "", fmt.Errorf("%s is not a quoted text", s)
	}
	return out, nil
}

// Closing finds the bracket that closes the one that text begins with, outside of quotes.
func Closing(text string, open, shut byte) int {
	depth, quote := 0, byte(0)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quote != 0:
			if c == '\\' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == open:
			depth++
		case c == shut:
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// ParsePath reads an expression such as .status.conditions[?(@.type=="Ready")].status.
func ParsePath(text string) (Path, error) {
	text = strings.TrimLeft(text, "$@")
	var p Path
	for text != "" {
		switch {
		case strings.HasPrefix(text, "["):
			shut := Closing(text, '[', ']')
			if shut < 0 {
				return nil, errors.New("missing ] after [")
			}
			s, err := parseBracket(strings.TrimSpace(text[1:shut]))
			if err != nil {
				return nil, err
			}
			p, text = append(p, s), text[shut+1:]
		case strings.HasPrefix(text, ".."):
			return nil, errors.New("recursive descent (..) is not supported")
		default:
			name, rest := fieldName(strings.TrimPrefix(text, "."))
			if text == "." {
				return p, nil
			}
			if name == "" {
				if strings.HasPrefix(rest, "[") && strings.HasPrefix(text, ".[") {
					text = rest
					continue
				}
				return nil, fmt.Errorf("missing field name before %q", rest)
			}
			if name == "*" {
				p = append(p, wildcard{})
			} else {
				p = append(p, member(name))
			}
			text = rest
		}
	}
	return p, nil
}

// fieldName cuts a name off; a backslash takes the next character as it is, for labels with dots.
func fieldName(text string) (name, rest string) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case c == '.' || c == '[':
			return b.String(), text[i:]
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), ""
}

func parseBracket(text string) (step, error) {
	switch {
	case text == "*":
		return wildcard{}, nil
	case strings.HasPrefix(text, "?(") && strings.HasSuffix(text, ")"):
		return parseFilter(text[2 : len(text)-1])
	case strings.HasPrefix(text, "'") || strings.HasPrefix(text, `"`):
		name, err := unquote(text)
		return member(name), err
	case strings.Contains(text, ":"):
		from, to, _ := strings.Cut(text, ":")
		var s slice
		var err1, err2 error
		if from != "" {
			s.from, err1 = strconv.Atoi(from)
		}
		if s.open = to == ""; !s.open {
			s.to, err2 = strconv.Atoi(to)
		}
		return s, errors.Join(err1, err2)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("[%s] is neither a number, *, a quoted name, a range nor a filter", text)
	}
	return index(n), nil
}

type (
	member   string
	index    int
	wildcard struct{}
	slice    struct {
		from, to int
		open     bool
	}
	filter struct {
		path     Path
		operator string
		want     any
	}
)

func (m member) walk(value any) ([]any, error) {
	object, ok := value.(map[string]any)
	if !ok {
		return nil, nil
	}
	if v, ok := object[string(m)]; ok {
		return []any{v}, nil
	}
	return nil, nil
}

func (n index) walk(value any) ([]any, error) {
	list, ok := value.([]any)
	if !ok {
		return nil, nil
	}
	at := int(n)
	if at < 0 {
		at += len(list)
	}
	if at < 0 || at >= len(list) {
		return nil, fmt.Errorf("index %d is out of range: the list has %d elements", int(n), len(list))
	}
	return list[at : at+1], nil
}

func (wildcard) walk(value any) ([]any, error) {
	switch v := value.(type) {
	case []any:
		return v, nil
	case map[string]any:
		var out []any
		for _, key := range slices.Sorted(maps.Keys(v)) {
			out = append(out, v[key])
		}
		return out, nil
	}
	return nil, nil
}

func (s slice) walk(value any) ([]any, error) {
	list, ok := value.([]any)
	if !ok {
		return nil, nil
	}
	bound := func(n int) int {
		if n < 0 {
			n += len(list)
		}
		return min(max(n, 0), len(list))
	}
	from, to := bound(s.from), len(list)
	if !s.open {
		to = bound(s.to)
	}
	return list[from:max(from, to)], nil
}

// parseFilter reads what is between the parentheses of [?(...)]: @.path, alone or compared with a
// value.
func parseFilter(text string) (step, error) {
	for _, operator := range []string{"==", "!=", "<=", ">=", "<", ">"} {
		left, right, ok := strings.Cut(text, operator)
		if !ok {
			continue
		}
		p, err := ParsePath(strings.TrimSpace(left))
		if err != nil {
			return nil, err
		}
		f := filter{path: p, operator: operator}
		right = strings.TrimSpace(right)
		if strings.HasPrefix(right, "'") || strings.HasPrefix(right, `"`) {
			f.want, err = unquote(right)
		} else {
			err = json.Unmarshal([]byte(right), &f.want)
		}
		if err != nil {
			return nil, fmt.Errorf("filter %q: %s is neither a quoted text, a number, true nor false", text, right)
		}
		return f, nil
	}
	p, err := ParsePath(strings.TrimSpace(text))
	return filter{path: p}, err
}

func (f filter) walk(value any) ([]any, error) {
	list, ok := value.([]any)
	if !ok {
		return nil, nil
	}
	var out []any
	for _, item := range list {
		found, err := f.path.Find(item)
		if err != nil || len(found) == 0 {
			continue
		}
		if f.operator == "" || f.matches(found[0]) {
			out = append(out, item)
		}
	}
	return out, nil
}

func (f filter) matches(have any) bool {
	order, comparable := Compare(have, f.want)
	switch f.operator {
	case "==":
		return comparable && order == 0
	case "!=":
		return !comparable || order != 0
	case "<":
		return comparable && order < 0
	case "<=":
		return comparable && order <= 0
	case ">":
		return comparable && order > 0
	}
	return comparable && order >= 0
}

// Compare orders two scalars of one type.
func Compare(a, b any) (int, bool) {
	if x, ok := number(a); ok {
		if y, ok := number(b); ok {
			switch {
			case x < y:
				return -1, true
			case x > y:
				return 1, true
			}
			return 0, true
		}
		return 0, false
	}
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			return strings.Compare(x, y), true
		}
	case bool:
		if y, ok := b.(bool); ok && x == y {
			return 0, true
		} else if ok {
			return 1, true
		}
	}
	return 0, false
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

// Find returns the values that the path leads to, none where a field is not set.
func (p Path) Find(value any) ([]any, error) {
	values := []any{value}
	for _, s := range p {
		var next []any
		for _, v := range values {
			found, err := s.walk(v)
			if err != nil {
				return nil, err
			}
			next = append(next, found...)
		}
		values = next
	}
	return values, nil
}

// Execute writes the template for a value.
func (t Template) Execute(b *strings.Builder, value any) error {
	for _, node := range t {
		if node.path == nil && !node.isFor && node.text != "" {
			b.WriteString(node.text)
			continue
		}
		values, err := node.path.Find(value)
		if err != nil {
			return err
		}
		for i, v := range values {
			if node.isFor {
				if err := node.body.Execute(b, v); err != nil {
					return err
				}
				continue
			}
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(Text(v))
		}
	}
	return nil
}

// Text writes one value: texts bare, all else as JSON.
func Text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}
