package daemon

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// setting is one leaf of a configuration struct: a key of the file and a flag of the command line.
// It is a pflag.Value that keeps what it is given until apply, for flags count after the file that
// one of them names.
type setting struct {
	key   string // such as "etcd.endpoints"
	help  string
	value reflect.Value
	given []string
}

// settings lists the leaves of a struct, which must be addressable. Structs nest by their yaml
// tags.
func settings(v reflect.Value, prefix string) []*setting {
	var list []*setting
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, inline := tagOf(field)
		switch {
		case name == "-" || !field.IsExported():
		case inline:
			list = append(list, settings(v.Field(i), prefix)...)
		case isLeaf(field.Type):
			list = append(list, &setting{key: prefix + name, help: field.Tag.Get("help"), value: v.Field(i)})
		case field.Type.Kind() == reflect.Struct:
			list = append(list, settings(v.Field(i), prefix+name+".")...)
		}
	}
	return list
}

func tagOf(field reflect.StructField) (name string, inline bool) {
	name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
	if name == "" {
		name = strings.ToLower(field.Name)
	}
	return name, strings.Contains(options, "inline")
}

var (
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
	durationType = reflect.TypeFor[time.Duration]()
)

// isLeaf tells whether a type is written as one flag.
func isLeaf(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(textType) {
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64, reflect.Float64:
		return true
	case reflect.Slice:
		return t.Elem().Kind() == reflect.String
	}
	return false
}

// flagName turns "etcd.clientCert" into "etcd-client-cert".
func (s *setting) flagName() string {
	var b strings.Builder
	for _, r := range s.key {
		switch {
		case r == '.':
			b.WriteByte('-')
		case unicode.IsUpper(r):
			b.WriteByte('-')
			b.WriteRune(unicode.ToLower(r))
		default:
			b.WriteRune(r)
		}
	}
	// A run of capitals, as in gcPercent's siblings such as nodeCIDR, is one word.
	return collapse(b.String())
}

// collapse joins single letters that dashes separate: "node-c-i-d-r" becomes "node-cidr".
func collapse(name string) string {
	words := strings.Split(name, "-")
	joined := words[:1]
	single := false
	for _, word := range words[1:] {
		if len(word) == 1 && single {
			joined[len(joined)-1] += word
			continue
		}
		joined = append(joined, word)
		single = len(word) == 1
	}
	return strings.Join(joined, "-")
}

// String returns the value before flags, for the usage text.
func (s *setting) String() string {
	if !s.value.IsValid() {
		return "" // pflag asks a zero setting for its notion of empty
	}
	if s.value.Kind() == reflect.Slice {
		return strings.Join(s.value.Interface().([]string), ",")
	}
	if s.value.IsZero() {
		return ""
	}
	return fmt.Sprint(s.value.Interface())
}

// Set takes a flag's value; a list's flag may be given several times.
func (s *setting) Set(text string) error {
	if s.value.Kind() == reflect.Slice {
		s.given = append(s.given, strings.Split(text, ",")...)
		return nil
	}
	s.given = []string{text}
	return s.assign(reflect.New(s.value.Type()).Elem())
}

// Type names the value in the usage text.
func (s *setting) Type() string {
	switch {
	case s.value.Type() == durationType:
		return "duration"
	case s.value.Kind() == reflect.Slice:
		return "strings"
	case s.value.Kind() == reflect.Struct:
		return strings.ToLower(s.value.Type().Name())
	}
	return s.value.Kind().String()
}

// apply writes the flag's value, if it was given, over the file's.
func (s *setting) apply() error {
	if s.given == nil {
		return nil
	}
	return s.assign(s.value)
}

func (s *setting) assign(target reflect.Value) error {
	text := s.given[0]
	if unmarshaler, ok := target.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return unmarshaler.UnmarshalText([]byte(text))
	}
	if target.Type() == durationType {
		d, err := time.ParseDuration(text)
		target.SetInt(int64(d))
		return err
	}
	switch target.Kind() {
	case reflect.Slice:
		target.Set(reflect.ValueOf(s.given).Convert(target.Type()))
		return nil
	case reflect.String:
		target.SetString(text)
		return nil
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		target.SetBool(b)
		return err
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		target.SetFloat(f)
		return err
	}
	n, err := strconv.ParseInt(text, 10, target.Type().Bits())
	target.SetInt(n)
	return err
}

// bindFlags defines a flag per setting.
func bindFlags(flags *pflag.FlagSet, list []*setting) {
	for _, s := range list {
		flag := flags.VarPF(s, s.flagName(), "", s.help)
		if s.value.Kind() == reflect.Bool {
			flag.NoOptDefVal = "true"
		}
	}
}

// loadFile reads a YAML file into a struct, strictly: a key that the struct does not have is an
// error that names the line and the key that may be meant. An empty name reads nothing.
func loadFile(name string, target any) error {
	if name == "" {
		return nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return parse(name, data, target)
}

func parse(name string, data []byte, target any) error {
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return located(name, err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: more than one document", name)
	}
	if err := errors.Join(unknownKeys(name, &document, reflect.TypeOf(target).Elem(), "")...); err != nil {
		return err
	}
	if err := document.Decode(target); err != nil {
		return located(name, err)
	}
	return nil
}

// located puts the parser's errors, which say "line 3: ...", into the form "file:3: ...".
func located(name string, err error) error {
	var lines []string
	var typeErr *yaml.TypeError
	if errors.As(err, &typeErr) {
		lines = typeErr.Errors
	} else {
		lines = []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	problems := make([]error, len(lines))
	for i, line := range lines {
		if rest, ok := strings.CutPrefix(line, "line "); ok {
			problems[i] = fmt.Errorf("%s:%s", name, rest)
		} else {
			problems[i] = fmt.Errorf("%s: %s", name, line)
		}
	}
	return errors.Join(problems...)
}

// unknownKeys compares a document's keys with a type's.
func unknownKeys(name string, node *yaml.Node, t reflect.Type, path string) []error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case node.Kind == yaml.DocumentNode:
		return unknownKeys(name, node.Content[0], t, path)
	case node.Kind == yaml.AliasNode:
		return unknownKeys(name, node.Alias, t, path)
	case node.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		var problems []error
		for i, item := range node.Content {
			problems = append(problems, unknownKeys(name, item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))...)
		}
		return problems
	case node.Kind != yaml.MappingNode || t.Kind() != reflect.Struct || isLeaf(t):
		return nil
	}
	known := make(map[string]reflect.Type)
	collectKeys(t, known)
	var problems []error
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		full := strings.TrimPrefix(path+"."+key.Value, ".")
		if inner, ok := known[key.Value]; ok {
			problems = append(problems, unknownKeys(name, node.Content[i+1], inner, full)...)
			continue
		}
		hint := ""
		if near := nearest(key.Value, known); near != "" {
			hint = fmt.Sprintf(", did you mean %s?", near)
		}
		problems = append(problems, fmt.Errorf("%s:%d: %s: unknown key%s", name, key.Line, full, hint))
	}
	return problems
}

func collectKeys(t reflect.Type, known map[string]reflect.Type) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, inline := tagOf(field)
		switch {
		case name == "-" || !field.IsExported():
		case inline:
			collectKeys(field.Type, known)
		default:
			known[name] = field.Type
		}
	}
}
