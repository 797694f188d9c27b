package allowlist_test

import (
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/allowlist"
)

// FuzzParse parses lists of prefixes: every entry is in the list or has a problem, and the list
// reads as it is written.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"10.0.0.0/8 2001:db8::/48", "10.0.0.1/8", "::ffff:10.0.0.0/104", "10.0.0.0/8 10.1.0.0/16", "a fe80::%1/64 "} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		entries := strings.Split(text, " ")
		list, problems := allowlist.Parse(entries)
		if missing := len(entries) - len(list); len(problems) < missing || len(problems) > missing+1 {
			t.Errorf("%q: %d prefixes and %d problems of %d entries", text, len(list), len(problems), len(entries))
		}
		if again, bad := allowlist.Parse(list.Strings()); len(list) <= allowlist.Max && (len(bad) > 0 || len(again) != len(list)) {
			t.Errorf("%v parses as %v, %v", list, again, bad)
		}
		for _, prefix := range list {
			if !list.Contains(prefix.Addr()) {
				t.Errorf("%v does not contain %s", list, prefix.Addr())
			}
		}
	})
}
