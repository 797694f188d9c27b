package pods

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

func TestPhasesAreDocumentedInOrder(t *testing.T) {
	text, err := os.ReadFile("../../docs/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile(`(?s)\| phase \|.*?\n\n`).Find(text)
	var documented, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z ]+)` \\|").FindAllSubmatch(section, -1) {
		documented = append(documented, string(m[1]))
	}
	for _, p := range phases {
		want = append(want, p.name)
	}
	if !slices.Equal(documented, want) {
		t.Errorf("docs/agent.md has the phases %q, want %q", documented, want)
	}
}
