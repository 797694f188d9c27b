package cli

import (
	"io"
	"strings"
	"unicode/utf8"
)

const (
	columnGap = 3
	// narrowest is how far a column is cut before others are.
	narrowest = 12
)

// table is rows under headings. It is printed as wide as its cells need, or, on a terminal, as wide as that is: then
// the longest cells are cut short.
type table struct {
	heads []string
	rows  [][]string
	// noHeads leaves the headings out.
	noHeads bool
	// keep is how many columns at the left are never cut.
	keep int
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// tidy keeps cells in their rows and control characters from the terminal. Cells that are tidy stay as they are.
func (t *table) tidy() {
	for _, row := range append([][]string{t.heads}, t.rows...) {
		for i, cell := range row {
			row[i] = oneLine(cell)
		}
	}
}

// widths are those of the columns, at most limit in all unless it is 0.
func (t *table) widths(limit int) []int {
	t.tidy()
	widths := make([]int, len(t.heads))
	measure := func(cells []string) {
		for i, cell := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	if !t.noHeads {
		measure(t.heads)
	}
	for _, row := range t.rows {
		measure(row)
	}
	fit(widths, limit, t.keep)
	return widths
}

// fit takes from the widest columns until all fit.
func fit(widths []int, limit, keep int) {
	total := columnGap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for limit > 0 && total > limit {
		widest := -1
		for i := keep; i < len(widths); i++ {
			if widths[i] > narrowest && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
		total--
	}
}

// print writes the table to a stream.
func (t *table) print(w io.Writer) {
	t.printWidths(w, t.widths(width(w)))
}

func (t *table) printWidths(w io.Writer, widths []int) {
	t.tidy()
	colours := colourful(w)
	var b strings.Builder
	line := func(cells []string, style func(string) colour) {
		last := len(cells) - 1
		for last > 0 && cells[last] == "" {
			last--
		}
		for i, cell := range cells[:last+1] {
			text := shorten(cell, widths[i])
			if colours {
				b.WriteString(paint(style(cell), text))
			} else {
				b.WriteString(text)
			}
			if i < last {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)+columnGap))
			}
		}
		b.WriteByte('\n')
	}
	if !t.noHeads {
		line(t.heads, func(string) colour { return bold })
	}
	for _, row := range t.rows {
		line(row, mood)
	}
	// What is left of control characters are the colours.
	io.WriteString(raw(w), b.String())
}

// shorten cuts a text to a number of characters.
func shorten(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	return string(runes[:max(width-1, 0)]) + "…"
}
