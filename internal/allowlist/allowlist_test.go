package allowlist_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/allowlist"
)

func TestParse(t *testing.T) {
	many := make([]string, allowlist.Max+1)
	for i := range many {
		many[i] = fmt.Sprintf("10.0.%d.0/24", i)
	}
	for _, tt := range []struct {
		entries []string
		want    []string
	}{
		{nil, nil},
		{[]string{"203.0.113.0/24", "198.51.100.7/32", "2001:db8::/48"}, nil},
		{many[:allowlist.Max], nil},
		{many, []string{"has 41 entries, at most 40 are allowed"}},
		{[]string{"10.0.0.0/33"}, []string{`[0] "10.0.0.0/33": is no prefix`}},
		{[]string{"office"}, []string{`[0] "office": is no prefix`}},
		{[]string{""}, []string{`[0] "": is no prefix`}},
		{[]string{"10.0.0.1"}, []string{"is an address: write 10.0.0.1/32 for it alone"}},
		{[]string{"2001:db8::1"}, []string{"is an address: write 2001:db8::1/128 for it alone"}},
		{[]string{"10.0.0.1/24"}, []string{"has host bits set: write 10.0.0.0/24"}},
		{[]string{"::ffff:10.0.0.0/104"}, []string{"in the form of IPv6"}},
		{[]string{"10.0.0.0/8", "192.0.2.0/24", "10.0.0.0/8"}, []string{`[2] "10.0.0.0/8": is there twice`}},
		{[]string{"10.0.0.0/8", "10.1.0.0/16"}, []string{`[1] "10.1.0.0/16": overlaps 10.0.0.0/8, which contains it`}},
		{[]string{"10.1.0.0/16", "10.0.0.0/8"}, []string{`[1] "10.0.0.0/8": overlaps 10.1.0.0/16, which it contains`}},
		{[]string{"0.0.0.0/0", "x", "1.2.3.4/8"}, []string{`[1] "x"`, `[2] "1.2.3.4/8": has host bits`}},
	} {
		_, problems := allowlist.Parse(tt.entries)
		if len(problems) != len(tt.want) {
			t.Errorf("%q: %v, want %q", tt.entries, problems, tt.want)
			continue
		}
		for i, want := range tt.want {
			if !strings.Contains(problems[i].Error(), want) {
				t.Errorf("%q: %v, want %q", tt.entries, problems[i], want)
			}
		}
	}
}

func TestContains(t *testing.T) {
	list, problems := allowlist.Parse([]string{"10.0.0.0/8", "2001:db8::/48"})
	if problems != nil {
		t.Fatal(problems)
	}
	for source, want := range map[string]bool{
		"10.255.0.1": true, "::ffff:10.0.0.1": true, "11.0.0.1": false, "2001:db8::1": true, "2001:db8:1::1": false, "fe80::1%eth0": false,
	} {
		if got := list.Contains(netip.MustParseAddr(source)); got != want {
			t.Errorf("contains %s: %t", source, got)
		}
	}
	if !(allowlist.List{}).Contains(netip.MustParseAddr("192.0.2.1")) {
		t.Error("the empty list admits no source")
	}
	if !slices.Equal(list.Strings(), []string{"10.0.0.0/8", "2001:db8::/48"}) {
		t.Errorf("written as %q", list.Strings())
	}
}
