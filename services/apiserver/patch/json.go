package patch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// operation is one operation of a JSON patch.
type operation struct {
	Op    string          `json:"op"`
	Path  *string         `json:"path"`
	From  *string         `json:"from"`
	Value json.RawMessage `json:"value"`
}

// step is an operation that has been checked.
type step struct {
	op         string
	text       string // the path, as errors name it
	path, from []string
	value      any
}

// ParseJSON reads a JSON patch, which must be an array of operations.
func ParseJSON(text []byte) (Patch, error) {
	// The array, and the operation around a value.
	if err := checkDepth(text, MaxDepth+2); err != nil {
		return nil, err
	}
	if err := checkCount(text); err != nil {
		return nil, err
	}
	var operations []operation
	if err := json.Unmarshal(text, &operations); err != nil {
		return nil, fmt.Errorf("a JSON patch is an array of operations: %w", err)
	}
	steps := make(steps, len(operations))
	for i, op := range operations {
		s, err := op.step()
		if err != nil {
			return nil, fmt.Errorf("operation %d: %w", i, err)
		}
		steps[i] = s
	}
	return steps, nil
}

// checkCount refuses a patch of too many operations before they are read. Those are the objects in
// the array.
func checkCount(text []byte) error {
	depth, count, inString := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth == 2 {
				count++
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	if count > MaxOperations {
		return fmt.Errorf("at most %d operations are allowed, there are %d: make several patches of them", MaxOperations, count)
	}
	return nil
}

func (o operation) step() (step, error) {
	if o.Path == nil {
		return step{}, errors.New("path is required")
	}
	s := step{op: o.Op, text: *o.Path}
	var err error
	if s.path, err = pointer(*o.Path); err != nil {
		return step{}, fmt.Errorf("path: %w", err)
	}
	switch o.Op {
	case "add", "replace", "test":
		// A null is kept as such; only a value that is left out has no bytes.
		if o.Value == nil {
			return step{}, fmt.Errorf("%s needs a value", o.Op)
		}
		if s.value, err = parse(o.Value); err != nil {
			return step{}, fmt.Errorf("value: %w", err)
		}
	case "move", "copy":
		if o.From == nil {
			return step{}, fmt.Errorf("%s needs from", o.Op)
		}
		if s.from, err = pointer(*o.From); err != nil {
			return step{}, fmt.Errorf("from: %w", err)
		}
		if o.Op == "move" && len(s.path) > len(s.from) && slices.Equal(s.from, s.path[:len(s.from)]) {
			return step{}, fmt.Errorf("%q cannot be moved into itself", *o.From)
		}
	case "remove":
	default:
		return step{}, fmt.Errorf("op is %q, want add, remove, replace, move, copy or test", o.Op)
	}
	if len(s.path) == 0 && o.Op == "remove" {
		return step{}, errors.New("the whole object cannot be removed")
	}
	return s, nil
}

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

// pointer splits a JSON pointer (RFC 6901).
func pointer(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	rest, ok := strings.CutPrefix(text, "/")
	if !ok {
		return nil, fmt.Errorf("%q does not begin with a slash", text)
	}
	if n := 1 + strings.Count(rest, "/"); n > MaxDepth {
		return nil, fmt.Errorf("it has %d levels, at most %d are allowed", n, MaxDepth)
	}
	parts := strings.Split(rest, "/")
	for i, part := range parts {
		parts[i] = unescape.Replace(part)
	}
	return parts, nil
}

type steps []step

// Apply implements Patch.
func (s steps) Apply(ctx context.Context, doc []byte) ([]byte, error) {
	return change(ctx, doc, func(v any) (any, error) {
		d := &document{root: v}
		for i, step := range s {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := d.do(step); err != nil {
				return nil, fmt.Errorf("operation %d, %s %q: %w", i, step.op, step.text, err)
			}
		}
		return d.root, nil
	})
}

// document is what operations change, and what they have cost so far.
type document struct {
	root          any
	copied, moved int
}

var errMissing = errors.New("the path does not exist")

func (d *document) do(s step) error {
	switch s.op {
	case "test":
		at, err := d.get(s.path)
		if err != nil && !(errors.Is(err, errMissing) && s.value == nil) {
			return err
		}
		if !equal(at, s.value) {
			return errors.New("the value is different")
		}
		return nil
	case "remove":
		_, err := d.remove(s.path)
		return err
	case "replace":
		if _, err := d.get(s.path); err != nil {
			return err
		}
		value, err := d.clone(s.value, 0)
		if err != nil {
			return err
		}
		return d.set(s.path, value)
	case "add":
		// The patch may be applied again: what is put into the document is changed by later operations.
		value, err := d.clone(s.value, 0)
		if err != nil {
			return err
		}
		return d.add(s.path, value)
	case "copy":
		at, err := d.get(s.from)
		if err != nil {
			return fmt.Errorf("from: %w", err)
		}
		value, err := d.copy(at)
		if err != nil {
			return err
		}
		return d.add(s.path, value)
	}
	if slices.Equal(s.from, s.path) {
		_, err := d.get(s.from)
		return err
	}
	value, err := d.remove(s.from)
	if err != nil {
		return fmt.Errorf("from: %w", err)
	}
	return d.add(s.path, value)
}

func (d *document) get(path []string) (any, error) {
	at := d.root
	for _, name := range path {
		switch holder := at.(type) {
		case map[string]any:
			member, ok := holder[name]
			if !ok {
				return nil, errMissing
			}
			at = member
		case []any:
			i, err := index(name, len(holder))
			if err != nil {
				return nil, err
			}
			at = holder[i]
		default:
			return nil, errMissing
		}
	}
	return at, nil
}

// index reads the place of an element; a negative one counts from the end, as the patches of
// Kubernetes may.
func index(name string, length int) (int, error) {
	i, err := strconv.Atoi(name)
	if err != nil || strconv.Itoa(i) != name {
		return 0, fmt.Errorf("%q is not an index of a list", name)
	}
	if i < 0 {
		i += length
	}
	if i < 0 || i >= length {
		return 0, errMissing
	}
	return i, nil
}

// set puts a value in the place of one that exists.
func (d *document) set(path []string, value any) error {
	if len(path) == 0 {
		d.root = value
		return nil
	}
	holder, err := d.get(path[:len(path)-1])
	if err != nil {
		return err
	}
	name := path[len(path)-1]
	switch holder := holder.(type) {
	case map[string]any:
		holder[name] = value
	case []any:
		i, err := index(name, len(holder))
		if err != nil {
			return err
		}
		holder[i] = value
	default:
		return errMissing
	}
	return nil
}

func (d *document) add(path []string, value any) error {
	if len(path) == 0 {
		return d.set(path, value)
	}
	holder, err := d.get(path[:len(path)-1])
	if err != nil {
		return err
	}
	list, ok := holder.([]any)
	if !ok {
		return d.set(path, value)
	}
	name, i := path[len(path)-1], len(list)
	if name != "-" {
		if i, err = index(name, len(list)+1); err != nil {
			return err
		}
	}
	if err := d.shift(len(list) - i); err != nil {
		return err
	}
	return d.set(path[:len(path)-1], slices.Insert(list, i, value))
}

func (d *document) remove(path []string) (any, error) {
	value, err := d.get(path)
	if err != nil {
		return nil, err
	}
	if len(path) == 0 {
		return nil, errors.New("the whole object cannot be moved")
	}
	holder, err := d.get(path[:len(path)-1])
	if err != nil {
		return nil, err
	}
	name := path[len(path)-1]
	if list, ok := holder.([]any); ok {
		i, err := index(name, len(list))
		if err != nil {
			return nil, err
		}
		if err := d.shift(len(list) - i); err != nil {
			return nil, err
		}
		return value, d.set(path[:len(path)-1], slices.Delete(list, i, i+1))
	}
	delete(holder.(map[string]any), name)
	return value, nil
}

// shift counts the elements that an operation shifts within a list.
func (d *document) shift(n int) error {
	if d.moved += n; d.moved > maxMoved {
		return errors.New("the patch inserts or removes elements at the front of lists that are too long: replace the list")
	}
	return nil
}

// clone copies a value, so that changes of the one do not show in the other.
func (d *document) clone(v any, depth int) (any, error) {
	if depth > MaxDepth {
		return nil, errTooDeep
	}
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, member := range v {
			c, err := d.clone(member, depth+1)
			if err != nil {
				return nil, err
			}
			out[name] = c
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			c, err := d.clone(item, depth+1)
			if err != nil {
				return nil, err
			}
			out[i] = c
		}
		return out, nil
	}
	return v, nil
}

// copy is clone for a copy operation, which makes more of the document than the patch itself holds.
func (d *document) copy(v any) (any, error) {
	if d.copied += size(v, maxCopied-d.copied, MaxDepth); d.copied > maxCopied {
		return nil, fmt.Errorf("the patch copies more than %d bytes", maxCopied)
	}
	return d.clone(v, 0)
}

// size is about how many bytes a value takes. It stops counting beyond most, and below depth.
func size(v any, most, depth int) int {
	if depth < 0 {
		return 0
	}
	n := 8
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if n > most {
				break
			}
			n += len(name) + size(member, most-n, depth-1)
		}
	case []any:
		for _, item := range v {
			if n > most {
				break
			}
			n += size(item, most-n, depth-1)
		}
	case string:
		n += len(v)
	case json.Number:
		n += len(v)
	}
	return n
}

// equal compares JSON values, numbers by what they are and not by how they are written.
func equal(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for name, member := range a {
			other, ok := b[name]
			if !ok || !equal(member, other) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equal)
	case json.Number:
		b, ok := b.(json.Number)
		return ok && equalNumbers(a, b)
	}
	return a == b
}

func equalNumbers(a, b json.Number) bool {
	if a == b {
		return true
	}
	x, errX := a.Int64()
	y, errY := b.Int64()
	if errX == nil && errY == nil {
		return x == y
	}
	f, errF := a.Float64()
	g, errG := b.Float64()
	return errF == nil && errG == nil && f == g
}
