// Package terminal writes text for people: with control characters escaped, in colours and no wider
// than the terminal.
package terminal

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// Shorten cuts a text to a number of characters.
func Shorten(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	return string(runes[:max(width-1, 0)]) + "…"
}

// Colour is an SGR code.
type Colour string

// The colours that tables and messages use.
const (
	plain  Colour = ""
	Bold   Colour = "1"
	Red    Colour = "31"
	green  Colour = "32"
	Yellow Colour = "33"
)

// Descriptor returns the file descriptor of a stream that is a terminal.
func Descriptor(stream any) (int, bool) {
	if s, ok := stream.(*Screen); ok {
		stream = s.to
	}
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	return int(f.Fd()), true
}

// Coloured tells whether a stream takes colours: a terminal that is able, whose owner did not
// object.
func Coloured(stream io.Writer) bool {
	_, ok := Descriptor(stream)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// Width is how many columns a stream has, 0 for no limit.
func Width(stream io.Writer) int {
	fd, ok := Descriptor(stream)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(fd)
	if err != nil {
		return 0
	}
	return columns
}

// Paint returns a text in a colour.
func Paint(c Colour, text string) string {
	if c == plain || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// moods are the words that tell good from bad, whatever the table.
var moods = map[string]Colour{
	"Running": green, "Ready": green, "Active": green, "Completed": green, "Succeeded": green, "healthy": green, "Bound": green,
	"Pending": Yellow, "ContainerCreating": Yellow, "PodInitializing": Yellow, "Terminating": Yellow, "Warning": Yellow,
	"SchedulingDisabled": Yellow, "SchedulingGated": Yellow,
	"Failed": Red, "Error": Red, "NotReady": Red, "Unknown": Red, "Evicted": Red, "OOMKilled": Red, "down": Red, "missing": Red, "extra": Red,
}

// Mood chooses the colour of a cell by its words.
func Mood(cell string) Colour {
	for word := range strings.FieldsFuncSeq(cell, func(r rune) bool { return r == ',' || r == ' ' }) {
		word = strings.TrimPrefix(word, "Init:")
		if c, ok := moods[word]; ok {
			return c
		}
		if strings.HasSuffix(word, "BackOff") || strings.HasPrefix(word, "Err") || strings.HasSuffix(word, "Error") {
			return Red
		}
	}
	return plain
}
