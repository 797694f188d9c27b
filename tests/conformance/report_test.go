package conformance_test

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/tests/markdown"
)

// The generated part of the page stands between these lines.
const (
	reportBegin = "<!-- what became of the manifests: written by the test -->\n"
	reportEnd   = "<!-- end of what became of the manifests -->\n"
)

// report returns the page with a new generated part. Of the corpus it has names and our own
// messages only.
func report(t *testing.T, old string, all []finding) string {
	t.Helper()
	before, rest, ok := strings.Cut(old, reportBegin)
	_, after, ended := strings.Cut(rest, reportEnd)
	if !ok || !ended {
		t.Fatalf("%s has lost the lines between which the report stands", page)
	}
	return before + reportBegin + body(all) + reportEnd + after
}

func body(all []finding) string {
	var b strings.Builder
	b.WriteString("\n" + counts(all))
	section := func(title string, headings []string, rows [][]string) {
		if len(rows) > 0 {
			fmt.Fprintf(&b, "\n### %s\n\n%s", title, markdown.Table(headings, rows))
		}
	}
	section("Refused", []string{"file", "object", "why", "message"}, list(all, refused, func(f finding) string { return meant[f.file] }))
	section("Accepted with warnings", []string{"file", "object", "warning"}, list(all, warned, nil))
	section("Accepted, although the documentation has them refused", []string{"file", "by a kind that is not served yet"}, pairs(lenient))
	section("Kinds that are not served", []string{"kind", "objects", "files"}, unservedKinds(all))
	section("Run on a cluster", []string{"files", "what is checked"}, played())
	section("Not run", []string{"files of pods, service and policy", "why"}, left())
	return b.String()
}

// counts is a table of classes by folder.
func counts(all []finding) string {
	classes := []class{accepted, warned, refused, unserved, noObject}
	folders := map[string]map[class]int{}
	total := map[class]int{}
	for _, f := range all {
		folder := path.Dir(f.file)
		// Two levels tell features apart.
		if parts := strings.Split(folder, "/"); len(parts) > 2 {
			folder = path.Join(parts[:2]...)
		}
		if folders[folder] == nil {
			folders[folder] = map[class]int{}
		}
		folders[folder][f.class]++
		total[f.class]++
	}
	row := func(name string, n map[class]int) []string {
		cells := []string{name}
		for _, c := range classes {
			cell := ""
			if n[c] > 0 {
				cell = fmt.Sprint(n[c])
			}
			cells = append(cells, cell)
		}
		return cells
	}
	headings := []string{"objects in"}
	for _, c := range classes {
		headings = append(headings, string(c))
	}
	rows := [][]string{}
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		rows = append(rows, row(folder, folders[folder]))
	}
	return markdown.Table(headings, append(rows, row("**all**", total)))
}

// list is a row per finding of a class, with a column by extra when it is given.
func list(all []finding, c class, extra func(finding) string) [][]string {
	var rows [][]string
	for _, f := range all {
		if f.class != c {
			continue
		}
		row := []string{f.file, f.object}
		if extra != nil {
			row = append(row, extra(f))
		}
		// A regular expression in a message is not a link.
		rows = append(rows, append(row, strings.ReplaceAll(strings.Join(f.messages, "<br>"), "](", `]\(`)))
	}
	return rows
}

func pairs(m map[string]string) [][]string {
	var rows [][]string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		rows = append(rows, []string{key, m[key]})
	}
	return rows
}

// unservedKinds is a row per kind, the most frequent first.
func unservedKinds(all []finding) [][]string {
	files := map[string][]string{}
	for _, f := range all {
		if f.class != unserved {
			continue
		}
		files[f.object] = append(files[f.object], f.file)
	}
	names := slices.SortedFunc(maps.Keys(files), func(a, b string) int {
		return cmp.Or(len(files[b])-len(files[a]), strings.Compare(a, b))
	})
	var rows [][]string
	for _, name := range names {
		rows = append(rows, []string{name, fmt.Sprint(len(files[name])), fmt.Sprint(len(slices.Compact(slices.Clone(files[name]))))})
	}
	return rows
}

// played is a row per trial of TestDocumentation.
func played() [][]string {
	var rows [][]string
	whats := func(checks []check) string {
		var what []string
		for _, check := range checks {
			what = append(what, strings.NewReplacer("\n", " ", "<", "&lt;").Replace(check.what))
		}
		return strings.Join(what, "; ")
	}
	for _, trial := range allTrials() {
		cell := whats(trial.checks)
		if len(trial.first) > 0 {
			cell = "before: " + whats(trial.first) + "<br>then: " + cell
		}
		if trial.gap != "" {
			cell = "**not yet: " + trial.gap + "** " + cell
		}
		rows = append(rows, []string{strings.Join(trial.files, "<br>"), cell})
	}
	return rows
}
