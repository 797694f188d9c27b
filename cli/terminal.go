package cli

import (
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// colour is an SGR code.
type colour string

const (
	plain  colour = ""
	bold   colour = "1"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
)

// terminal returns the file descriptor of a stream that is a terminal.
func terminal(stream any) (int, bool) {
	if s, ok := stream.(*screen); ok {
		stream = s.to
	}
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	return int(f.Fd()), true
}

// colourful tells whether a stream takes colours: a terminal that is able, whose owner did not object.
func colourful(stream io.Writer) bool {
	_, ok := terminal(stream)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// width is how many columns a stream has, 0 for no limit.
func width(stream io.Writer) int {
	fd, ok := terminal(stream)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(fd)
	if err != nil {
		return 0
	}
	return columns
}

func paint(c colour, text string) string {
	if c == plain || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// moods are the words that tell good from bad, whatever the table.
var moods = map[string]colour{
	"Running": green, "Ready": green, "Active": green, "Completed": green, "Succeeded": green, "healthy": green, "Bound": green,
	"Pending": yellow, "ContainerCreating": yellow, "PodInitializing": yellow, "Terminating": yellow, "Warning": yellow,
	"SchedulingDisabled": yellow, "SchedulingGated": yellow,
	"Failed": red, "Error": red, "NotReady": red, "Unknown": red, "Evicted": red, "OOMKilled": red, "down": red, "missing": red, "extra": red,
}

// mood chooses the colour of a cell by its words.
func mood(cell string) colour {
	for word := range strings.FieldsFuncSeq(cell, func(r rune) bool { return r == ',' || r == ' ' }) {
		word = strings.TrimPrefix(word, "Init:")
		if c, ok := moods[word]; ok {
			return c
		}
		if strings.HasSuffix(word, "BackOff") || strings.HasPrefix(word, "Err") || strings.HasSuffix(word, "Error") {
			return red
		}
	}
	return plain
}
