package ipalloc

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestCandidates(t *testing.T) {
	dns := netip.MustParseAddr("10.96.0.10")
	for _, tc := range []struct {
		cidr        string
		reserved    []netip.Addr
		want        int
		first, last string
	}{
		{"10.96.0.0/28", nil, 14, "10.96.0.1", "10.96.0.14"},
		{"10.96.0.0/28", []netip.Addr{dns}, 13, "10.96.0.1", "10.96.0.14"},
		{"10.96.0.7/28", nil, 14, "10.96.0.1", "10.96.0.14"},
		{"10.96.0.0/16", []netip.Addr{dns}, 65533, "10.96.0.1", "10.96.255.254"},
		{"10.96.0.0/30", nil, 2, "10.96.0.1", "10.96.0.2"},
		{"10.96.0.0/31", nil, 0, "", ""},
		{"10.96.0.1/32", nil, 0, "", ""},
		{"fd00::/124", nil, 15, "fd00::1", "fd00::f"},
	} {
		t.Run(fmt.Sprint(tc.cidr, tc.reserved), func(t *testing.T) {
			seen := map[netip.Addr]bool{}
			for a := range Candidates(netip.MustParsePrefix(tc.cidr), tc.reserved...) {
				if seen[a] {
					t.Fatalf("%v twice", a)
				}
				seen[a] = true
			}
			if len(seen) != tc.want {
				t.Fatalf("%d addresses, want %d", len(seen), tc.want)
			}
			if tc.want == 0 {
				return
			}
			all := slices.SortedFunc(maps.Keys(seen), netip.Addr.Compare)
			if got := all[0].String() + " " + all[len(all)-1].String(); got != tc.first+" "+tc.last {
				t.Errorf("from %s, want %s %s", got, tc.first, tc.last)
			}
			for _, r := range tc.reserved {
				if seen[r] {
					t.Errorf("the reserved %v was offered", r)
				}
			}
		})
	}
}

func TestCandidatesStartAnywhere(t *testing.T) {
	for _, cidr := range []string{"10.96.0.0/16", "fd00::/64", "fd00::/108", "fd00::/8"} {
		prefix := netip.MustParsePrefix(cidr)
		first := map[netip.Addr]bool{}
		for range 20 {
			for a := range Candidates(prefix) {
				if !prefix.Contains(a) {
					t.Fatalf("%v is not in %v", a, prefix)
				}
				first[a] = true
				break
			}
		}
		if len(first) < 15 {
			t.Errorf("%s: 20 searches began at only %d addresses", cidr, len(first))
		}
	}
}

func TestPortRange(t *testing.T) {
	r := PortRange{30000, 30002}
	got := slices.Sorted(r.Candidates())
	if !slices.Equal(got, []int32{30000, 30001, 30002}) {
		t.Errorf("candidates %v", got)
	}
	if r.Contains(29999) || !r.Contains(30000) || !r.Contains(30002) || r.Contains(30003) || r.Contains(-1) {
		t.Error("the ends are wrong")
	}
}

func TestCheckDisjoint(t *testing.T) {
	pods := Range{"cluster CIDR", netip.MustParsePrefix("10.244.0.0/16")}
	services := Range{"service CIDR", netip.MustParsePrefix("10.96.0.0/16")}
	inside := Range{"node CIDR", netip.MustParsePrefix("10.244.3.0/24")}
	if err := CheckDisjoint(pods, services, Range{}); err != nil {
		t.Error(err)
	}
	err := CheckDisjoint(pods, services, inside)
	if err == nil || !strings.Contains(err.Error(), "cluster CIDR 10.244.0.0/16 overlaps node CIDR 10.244.3.0/24") {
		t.Errorf("got %v", err)
	}
}

func TestParseFamilies(t *testing.T) {
	for text, want := range map[string]string{
		"10.96.0.0/16":                        "[10.96.0.0/16]",
		"10.96.0.0/16,fd00:10:96::/112":       "[10.96.0.0/16 fd00:10:96::/112]",
		"10.96.0.0/16, fd00::/112":            "[10.96.0.0/16 fd00::/112]",
		"":                                    "error",
		"x":                                   "error",
		"10.96.0.0":                           "error",
		"10.96.0.1/16":                        "error",
		"fd00::/112":                          "error",
		"fd00::/112,10.96.0.0/16":             "error",
		"10.96.0.0/16,10.97.0.0/16":           "error",
		"10.96.0.0/16,fd00::/112,fd01::/112":  "error",
		"10.96.0.0/16,::ffff:10.97.0.0/112":   "error",
		"10.96.0.0/16,fd00:10:96::1/112":      "error",
		"10.96.0.0/16,":                       "error",
		"10.96.0.0/16,fd00:10:96::/112,fd::x": "error",
	} {
		got, err := ParseFamilies(text)
		if err != nil {
			if want != "error" {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%q: %v, want %s", text, got, want)
		}
	}
}
