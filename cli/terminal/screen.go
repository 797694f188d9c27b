package terminal

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Screen is an output stream for text that people read. The data of a cluster is written by many,
// and a terminal obeys what is in it: control characters are written as text, ESC as ^[, and so are
// overrides of the direction of writing. What is not text for people, such as JSON or the output of
// a program in a container, goes to raw.
type Screen struct{ to io.Writer }

// NewScreen returns a screen that writes to a stream.
func NewScreen(to io.Writer) *Screen { return &Screen{to} }

// Write writes p, which holds whole characters, as text that no terminal acts on.
func (s *Screen) Write(p []byte) (int, error) {
	if _, err := io.WriteString(s.to, Escape(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Raw returns the stream behind a screen, and any other stream as it is. It is for bytes that are
// not this program's to change: machine formats, logs, streams of containers, and for the control
// characters of this program itself.
func Raw(w io.Writer) io.Writer {
	if s, ok := w.(*Screen); ok {
		return s.to
	}
	return w
}

// Escape writes the control characters of a text visibly; newlines and tabs stay. ESC is ^[ and a
// carriage return \r, as kubectl writes them.
func Escape(text string) string {
	if !strings.ContainsFunc(text, unprintable) && utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			// A terminal that does not speak UTF-8 takes a single byte for a control character.
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case !unprintable(r):
			b.WriteString(text[i : i+size])
		case r == '\r':
			b.WriteString(`\r`)
		case r < ' ':
			b.WriteByte('^')
			b.WriteRune(r + '@')
		case r == 0x7f:
			b.WriteString("^?")
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += size
	}
	return b.String()
}

// unprintable tells the characters that a terminal acts on, or that make text look like other text.
func unprintable(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r < ' ', r >= 0x7f && r <= 0x9f: // C0, DEL and C1
		return true
	case r == 0x2028 || r == 0x2029: // line and paragraph separators
		return true
	}
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 // embeddings, overrides and isolates
}

// OneLine keeps a cell in its row, with nothing in it that a terminal acts on.
func OneLine(text string) string {
	return Escape(strings.NewReplacer("\r\n", " ", "\n", " ", "\t", " ").Replace(strings.TrimSpace(text)))
}
