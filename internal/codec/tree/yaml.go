package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// maxAliased bounds what aliases may add to a stream: the values and the bytes of text that would
// have to be written more if every alias were replaced by what it stands for.
const maxAliased = 4 << 20

// ParseYAML reads a stream of YAML documents. Empty documents are left out. On an error it returns
// the documents before it as well.
//
// Anchors, aliases and merge keys are resolved. Scalars are what Kubernetes takes them for: numbers
// in YAML 1.1 forms become JSON numbers, dates stay strings, and words such as yes stay strings
// too, which Plain tells from quoted ones.
func ParseYAML(r io.Reader) ([]*Node, error) {
	dec := yaml.NewDecoder(r)
	var nodes []*Node
	p := &yamlParser{done: map[*yaml.Node]converted{}, open: map[*yaml.Node]bool{}}
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nodes, nil
		}
		if err != nil {
			return nodes, yamlError(err)
		}
		n, _, err := p.convert(&doc, 0)
		if err != nil {
			return nodes, err
		}
		if n.Kind != Null {
			nodes = append(nodes, n)
		}
	}
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// grammarError matches the errors whose line the parser counts from 0, unlike all others.
var grammarError = regexp.MustCompile(`^did not find expected (<document start>|node content|key|'-' indicator|',' or)`)

// yamlError takes the line out of the parser's message, which carries it as text.
func yamlError(err error) error {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		line, _ := strconv.Atoi(m[1]) // Only digits match.
		message = strings.TrimPrefix(message, m[0])
		if grammarError.MatchString(message) {
			line++
		}
		return &SyntaxError{Line: line, Message: "not valid YAML: " + message}
	}
	return &SyntaxError{Message: "not valid YAML: " + message}
}

type converted struct {
	node   *Node
	weight int
}

type yamlParser struct {
	// done has what anchors stand for, so that an alias costs no memory.
	done map[*yaml.Node]converted
	// open are the anchored values being converted, within which an alias to them has no end.
	open    map[*yaml.Node]bool
	aliased int
}

// convert returns the node and its weight: how many values and bytes of text it holds with all
// aliases written out.
func (p *yamlParser) convert(y *yaml.Node, depth int) (*Node, int, error) {
	if depth > maxDepth {
		return nil, 0, &SyntaxError{Line: y.Line, Message: fmt.Sprintf("lists and objects are nested more than %d deep", maxDepth)}
	}
	if y.Kind == yaml.AliasNode {
		return p.alias(y, depth)
	}
	if y.Anchor != "" {
		p.open[y] = true
		defer delete(p.open, y)
	}
	n := &Node{Line: y.Line}
	weight := 1 + len(y.Value)
	var err error
	switch y.Kind {
	case yaml.DocumentNode:
		if len(y.Content) == 0 {
			return n, weight, nil
		}
		return p.convert(y.Content[0], depth)
	case yaml.SequenceNode:
		n.Kind = List
		for _, c := range y.Content {
			item, w, err := p.convert(c, depth+1)
			if err != nil {
				return nil, 0, err
			}
			n.Items = append(n.Items, item)
			weight += w
		}
	case yaml.MappingNode:
		n.Kind = Map
		w, err := p.mapping(n, y, depth)
		if err != nil {
			return nil, 0, err
		}
		weight += w
	case yaml.ScalarNode:
		if err = scalar(n, y); err != nil {
			return nil, 0, err
		}
	}
	if y.Anchor != "" {
		p.done[y] = converted{n, weight}
	}
	return n, weight, nil
}

func (p *yamlParser) alias(y *yaml.Node, depth int) (*Node, int, error) {
	if p.open[y.Alias] {
		return nil, 0, &SyntaxError{Line: y.Line, Message: fmt.Sprintf("alias *%s stands within the value that it names", y.Value)}
	}
	c, ok := p.done[y.Alias]
	if !ok {
		n, weight, err := p.convert(y.Alias, depth)
		if err != nil {
			return nil, 0, err
		}
		c = converted{n, weight}
	}
	p.aliased += c.weight
	if p.aliased > maxAliased {
		return nil, 0, &SyntaxError{Line: y.Line, Message: fmt.Sprintf("alias *%s makes the text grow beyond all measure", y.Value)}
	}
	return c.node, c.weight, nil
}

func (p *yamlParser) mapping(n *Node, y *yaml.Node, depth int) (int, error) {
	weight := 0
	var merged []Member
	for i := 0; i+1 < len(y.Content); i += 2 {
		key, value := y.Content[i], y.Content[i+1]
		v, w, err := p.convert(value, depth+1)
		if err != nil {
			return 0, err
		}
		weight += w
		if key.Tag == "!!merge" {
			members, err := mergeMembers(v, key.Line)
			if err != nil {
				return 0, err
			}
			merged = append(merged, members...)
			continue
		}
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			return 0, &SyntaxError{Line: key.Line, Message: "the key of a member must be a string"}
		}
		weight += len(key.Value)
		n.Members = append(n.Members, Member{Key: key.Value, Value: v, Line: key.Line})
	}
	// What is merged in yields to what the map says itself, and later sources to earlier ones.
	own := make(map[string]bool, len(n.Members))
	for _, m := range n.Members {
		own[m.Key] = true
	}
	for _, m := range merged {
		if !own[m.Key] {
			own[m.Key] = true
			n.Members = append(n.Members, m)
		}
	}
	return weight, nil
}

func mergeMembers(v *Node, line int) ([]Member, error) {
	switch {
	case v.Kind == Map:
		return v.Members, nil
	case v.Kind == List && !slices.ContainsFunc(v.Items, func(n *Node) bool { return n.Kind != Map }):
		var members []Member
		for _, item := range v.Items {
			members = append(members, item.Members...)
		}
		return members, nil
	}
	return nil, &SyntaxError{Line: line, Message: "only objects can be merged with <<"}
}

func scalar(n *Node, y *yaml.Node) error {
	n.Text = y.Value
	switch y.ShortTag() {
	case "!!null":
		n.Kind, n.Text = Null, ""
	case "!!bool":
		var b bool
		if err := y.Decode(&b); err != nil {
			return yamlError(err)
		}
		n.Kind, n.Text = Bool, strconv.FormatBool(b)
	case "!!int", "!!float":
		n.Kind = Number
		if isJSONNumber(y.Value) {
			return nil
		}
		var v any
		if err := y.Decode(&v); err != nil {
			return yamlError(err)
		}
		switch v := v.(type) {
		case float64:
			if math.IsInf(v, 0) || math.IsNaN(v) {
				return &SyntaxError{Line: y.Line, Message: fmt.Sprintf("%s is not a JSON number", y.Value)}
			}
			n.Text = strconv.FormatFloat(v, 'g', -1, 64)
		default:
			n.Text = fmt.Sprint(v)
		}
	case "!!binary":
		n.Kind = String
		if err := y.Decode(&n.Text); err != nil {
			return yamlError(err)
		}
	default:
		n.Kind = String
		n.Plain = y.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	}
	return nil
}

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

func isJSONNumber(s string) bool { return jsonNumber.MatchString(s) }

// YAML returns the value as a block of YAML in the style of kubectl: two spaces of indentation,
// list items level with their key, members in their order.
func (n *Node) YAML() ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	enc.CompactSeqIndent()
	if err := enc.Encode(n.yaml()); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return b.Bytes(), nil
}

func (n *Node) yaml() *yaml.Node {
	switch n.Kind {
	case Null:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	case Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: n.Text}
	case Number:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: n.Text}
	case String:
		return yamlString(n.Text)
	case List:
		y := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		if len(n.Items) == 0 {
			y.Style = yaml.FlowStyle
		}
		for _, item := range n.Items {
			y.Content = append(y.Content, item.yaml())
		}
		return y
	}
	y := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	if len(n.Members) == 0 {
		y.Style = yaml.FlowStyle
	}
	for _, m := range n.Members {
		y.Content = append(y.Content, yamlString(m.Key), m.Value.yaml())
	}
	return y
}

// sexagesimal matches what YAML 1.1 takes for a number in base 60, such as 22:20.
var sexagesimal = regexp.MustCompile(`^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)

// yamlString chooses the style of a string so that every reader of YAML 1.1 or 1.2 takes it for
// that very string. Where nothing stands against it the encoder writes it plain.
func yamlString(s string) *yaml.Node {
	s = strings.ToValidUTF8(s, "\uFFFD") // The encoder would write it as !!binary, which readers do not accept as a string.
	y := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	special := func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) || r == '\uFEFF' }
	_, word := (&Node{Kind: String, Plain: true, Text: s}).OldBool()
	switch {
	case strings.ContainsFunc(s, special):
		y.Style = yaml.DoubleQuotedStyle
	case strings.Contains(s, "\n") && !strings.ContainsRune(" \t\n", rune(s[0])):
		y.Style = yaml.LiteralStyle
	case strings.ContainsAny(s, "\n\t"), word, s == "y", s == "Y", s == "n", s == "N", sexagesimal.MatchString(s):
		y.Style = yaml.DoubleQuotedStyle
	}
	return y
}

// OldBool reports the value of a word that YAML 1.1, and with it Kubernetes, takes for a boolean
// when it is plain.
func (n *Node) OldBool() (value, ok bool) {
	if n.Kind != String || !n.Plain {
		return false, false
	}
	switch n.Text {
	case "yes", "Yes", "YES", "on", "On", "ON":
		return true, true
	case "no", "No", "NO", "off", "Off", "OFF":
		return false, true
	}
	return false, false
}
