package manifest

import (
	"strconv"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/codec/tree"
)

// JSON returns the object as JSON, with those fields that its text sets to an empty value, false or
// 0. Object does not tell all of them apart from fields that are left out.
func (d Document) JSON() ([]byte, error) {
	n, err := codec.Encode(d.Object)
	if err != nil {
		return nil, err
	}
	addEmpty(n, d.text)
	return n.JSON(), nil
}

// addEmpty adds to a value the members of the text it was decoded from that are empty.
func addEmpty(n, text *tree.Node) {
	switch {
	case text == nil || n.Kind != text.Kind:
	case n.Kind == tree.List && len(n.Items) == len(text.Items):
		for i := range n.Items {
			addEmpty(n.Items[i], text.Items[i])
		}
	case n.Kind == tree.Map:
		for _, m := range text.Members {
			written := text.Get(m.Key) // the last of duplicates
			_, word := written.OldBool()
			switch have := n.Get(m.Key); {
			case have != nil:
				addEmpty(have, written)
			case word:
				// Were it a string or true, the message had it.
				n.Members = append(n.Members, tree.Member{Key: m.Key, Value: &tree.Node{Kind: tree.Bool, Text: "false"}})
			case written.Kind != tree.Null && empty(written):
				n.Members = append(n.Members, tree.Member{Key: m.Key, Value: written})
			}
		}
	}
}

// empty reports whether a value is what a message reads when nothing is set.
func empty(n *tree.Node) bool {
	switch n.Kind {
	case tree.Bool:
		return n.Text == "false"
	case tree.Number:
		v, err := strconv.ParseFloat(n.Text, 64)
		return err == nil && v == 0
	case tree.String:
		return n.Text == ""
	case tree.Map:
		for _, m := range n.Members {
			if !empty(m.Value) {
				return false
			}
		}
		return true
	}
	return len(n.Items) == 0 // a list, or null
}
