// Package patch changes JSON documents by merge patches (RFC 7386), JSON patches (RFC 6902) and
// Kubernetes' strategic merge patches. Its cost is in proportion to the size of document and patch,
// whatever the patch says: patches that nest too deeply, have too many operations or make them too
// costly are refused before or while they are applied.
package patch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	// MaxOperations is how many operations a JSON patch may have, as in Kubernetes.
	MaxOperations = 10000
	// MaxDepth is how deep lists and objects may nest, in a patch and in what it makes. No kind comes
	// near it.
	MaxDepth = 100
	// maxCopied bounds the bytes that all copy operations of a patch copy together: a few copies of
	// copies would fill the memory.
	maxCopied = 3 << 19
	// maxMoved bounds how many elements of lists all operations of a patch shift together.
	maxMoved = 16 << 20
)

// Patch is a patch that has been read and found within the bounds.
type Patch interface {
	// Apply returns the document, a JSON text, as the patch makes it. It stops with ctx's error when
	// ctx ends.
	Apply(ctx context.Context, doc []byte) ([]byte, error)
}

// ParseMerge reads a merge patch, which must be a JSON object.
func ParseMerge(text []byte) (Patch, error) {
	if err := checkDepth(text, MaxDepth); err != nil {
		return nil, err
	}
	v, err := parse(text)
	if err != nil {
		return nil, err
	}
	members, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("a merge patch is a JSON object")
	}
	return merge{members}, nil
}

type merge struct{ members map[string]any }

// Apply implements Patch.
func (m merge) Apply(ctx context.Context, doc []byte) ([]byte, error) {
	return change(ctx, doc, func(v any) (any, error) { return mergeValue(v, m.members), nil })
}

// mergeValue is the function MergePatch of RFC 7386. The document's objects are changed in place,
// those of the patch are not: a patch may be applied several times.
func mergeValue(target, patch any) any {
	members, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, value := range members {
		if value == nil {
			delete(object, name)
			continue
		}
		object[name] = mergeValue(object[name], value)
	}
	return object
}

// change parses a document, changes it and writes it again.
func change(ctx context.Context, doc []byte, f func(any) (any, error)) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v, err := parse(doc)
	if err != nil {
		return nil, fmt.Errorf("read the object: %w", err)
	}
	if v, err = f(v); err != nil {
		return nil, err
	}
	if deeper(v, MaxDepth) {
		return nil, errTooDeep
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

var errTooDeep = fmt.Errorf("lists and objects are nested more than %d deep", MaxDepth)

// parse reads a text of one JSON value. Numbers keep their text.
func parse(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more text after the end of the value")
	}
	return v, nil
}

// CheckDepth refuses a JSON text that nests deeper than MaxDepth, before anything is made of it.
func CheckDepth(text []byte) error { return checkDepth(text, MaxDepth) }

// checkDepth refuses a JSON text that nests deeper than most, before anything is made of it.
func checkDepth(text []byte, most int) error {
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > most {
				return fmt.Errorf("lists and objects are nested more than %d deep", most)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// deeper reports whether lists and objects nest deeper than most. It descends no further than that.
func deeper(v any, most int) bool {
	switch v := v.(type) {
	case map[string]any:
		if most == 0 {
			return true
		}
		for _, member := range v {
			if deeper(member, most-1) {
				return true
			}
		}
	case []any:
		if most == 0 {
			return true
		}
		for _, item := range v {
			if deeper(item, most-1) {
				return true
			}
		}
	}
	return false
}
