package apiserver

import (
	"testing"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kinds"
)

// FuzzFieldSelector parses field selectors: they select by the kind's fields, or are refused as bad
// requests.
func FuzzFieldSelector(f *testing.F) {
	for _, text := range []string{"", "spec.nodeName=node-1", "metadata.name!=a,status.phase==Running", `metadata.name=a\,b`, "spec.x=1", "=,=", "\\"} {
		f.Add(text)
	}
	pods, _ := kinds.ByName("pods")
	f.Fuzz(func(t *testing.T, text string) {
		required, exact, err := parseFieldSelector(pods, text)
		if err != nil {
			if !apierr.IsBadRequest(err) {
				t.Errorf("%q: %v is no bad request", text, err)
			}
			return
		}
		if len(required) > maxRequirements || len(exact) > len(required) {
			t.Errorf("%q has %d requirements, %d of them exact", text, len(required), len(exact))
		}
	})
}

// FuzzLabelSelector parses label selectors: what is accepted can be written and parsed again.
func FuzzLabelSelector(f *testing.F) {
	for _, text := range []string{"", "a=b", "a in (b,c),!d", "x notin (),y>1", "a==b,a!=c", "((", "a=\x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		selector, err := parseLabelSelector(text)
		if err != nil {
			if !apierr.IsBadRequest(err) {
				t.Errorf("%q: %v is no bad request", text, err)
			}
			return
		}
		if len(selector.String()) > maxSelectorBytes {
			return
		}
		if again, err := parseLabelSelector(selector.String()); err != nil || again.String() != selector.String() {
			t.Errorf("%q is written as %q, which parses as %v, %v", text, selector, again, err)
		}
	})
}
