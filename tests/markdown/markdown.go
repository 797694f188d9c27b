// Package markdown writes what tests keep up to date in the documentation.
package markdown

import "strings"

// Table returns a table with these headings, and rows of as many cells, ended by a line feed.
func Table(headings []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) {
		b.WriteString("|")
		for _, c := range cells {
			b.WriteString(" " + strings.ReplaceAll(c, "|", `\|`) + " |")
		}
		b.WriteString("\n")
	}
	line(headings)
	b.WriteString("|" + strings.Repeat("---|", len(headings)) + "\n")
	for _, r := range rows {
		line(r)
	}
	return b.String()
}
