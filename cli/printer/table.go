package printer

import (
	"io"
	"strings"
	"unicode/utf8"

	"github.com/xebec-project/xebec/cli/terminal"
)

const (
	columnGap = 3
	// narrowest is how far a column is cut before others are.
	narrowest = 12
)

// Table is rows under headings. It is printed as wide as its cells need, or, on a terminal, as wide
// as that is: then the longest cells are cut short.
type Table struct {
	Heads []string
	Rows  [][]string
	// noHeads leaves the headings out.
	NoHeads bool
	// keep is how many columns at the left are never cut.
	Keep int
}

// Add appends a row.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// tidy keeps cells in their rows and control characters from the terminal. Cells that are tidy stay
// as they are.
func (t *Table) tidy() {
	for _, row := range append([][]string{t.Heads}, t.Rows...) {
		for i, cell := range row {
			row[i] = terminal.OneLine(cell)
		}
	}
}

// Widths are those of the columns, at most limit in all unless it is 0.
func (t *Table) Widths(limit int) []int {
	t.tidy()
	widths := make([]int, len(t.Heads))
	measure := func(cells []string) {
		for i, cell := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	if !t.NoHeads {
		measure(t.Heads)
	}
	for _, row := range t.Rows {
		measure(row)
	}
	fit(widths, limit, t.Keep)
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

// Print writes the table to a stream.
func (t *Table) Print(w io.Writer) {
	t.PrintWidths(w, t.Widths(terminal.Width(w)))
}

// PrintWidths writes the table with columns of the given widths.
func (t *Table) PrintWidths(w io.Writer, widths []int) {
	t.tidy()
	colours := terminal.Coloured(w)
	var b strings.Builder
	line := func(cells []string, style func(string) terminal.Colour) {
		last := len(cells) - 1
		for last > 0 && cells[last] == "" {
			last--
		}
		for i, cell := range cells[:last+1] {
			text := terminal.Shorten(cell, widths[i])
			if colours {
				b.WriteString(terminal.Paint(style(cell), text))
			} else {
				b.WriteString(text)
			}
			if i < last {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)+columnGap))
			}
		}
		b.WriteByte('\n')
	}
	if !t.NoHeads {
		line(t.Heads, func(string) terminal.Colour { return terminal.Bold })
	}
	for _, row := range t.Rows {
		line(row, terminal.Mood)
	}
	// What is left of control characters are the colours.
	io.WriteString(terminal.Raw(w), b.String())
}
