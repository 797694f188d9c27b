// Package allowlist holds lists of sources that connections are taken from, as the gateways'
// configuration, the kind GatewayAccess and the gateways themselves share them.
package allowlist

import (
	"fmt"
	"net/netip"
)

// Max is how many prefixes a list may have.
const Max = 40

// HeaderAllowLockout, with the value true, goes with a write of a GatewayAccess that may lock out
// its writer, or nodes.
const HeaderAllowLockout = "xebec-allow-lockout"

// List is a list of sources, none of which overlaps another. The empty list admits everyone.
type List []netip.Prefix

// Problem is what is wrong with one entry of a list, or, with an index of -1, with the whole.
type Problem struct {
	Index         int
	Entry, Reason string
}

// Error names the entry and says what is wrong with it.
func (p Problem) Error() string {
	if p.Index < 0 {
		return p.Reason
	}
	return fmt.Sprintf("[%d] %q: %s", p.Index, p.Entry, p.Reason)
}

// Parse reads prefixes and returns all problems there are: too many, nonsense, host bits that are
// set, and prefixes that overlap earlier ones.
func Parse(entries []string) (List, []Problem) {
	var (
		list     List
		problems []Problem
		sources  []string // as written, by place in list
	)
	if len(entries) > Max {
		problems = append(problems, Problem{-1, "", fmt.Sprintf("has %d entries, at most %d are allowed", len(entries), Max)})
	}
	for i, entry := range entries {
		prefix, reason := parse(entry)
		for at, other := range list {
			if reason != "" || !prefix.Overlaps(other) {
				continue
			}
			switch {
			case prefix == other:
				reason = "is there twice"
			case prefix.Bits() > other.Bits():
				reason = fmt.Sprintf("overlaps %s, which contains it: leave one of them out", sources[at])
			default:
				reason = fmt.Sprintf("overlaps %s, which it contains: leave one of them out", sources[at])
			}
		}
		if reason != "" {
			problems = append(problems, Problem{i, entry, reason})
			continue
		}
		list, sources = append(list, prefix), append(sources, entry)
	}
	return list, problems
}

// parse returns a prefix, or why there is none.
func parse(entry string) (prefix netip.Prefix, reason string) {
	prefix, err := netip.ParsePrefix(entry)
	if err != nil {
		if addr, err := netip.ParseAddr(entry); err == nil && addr.Zone() == "" && !addr.Is4In6() {
			return prefix, fmt.Sprintf("is an address: write %s/%d for it alone", addr, addr.BitLen())
		}
		return prefix, "is no prefix such as 203.0.113.0/24 or 2001:db8::/48"
	}
	if prefix.Addr().Is4In6() {
		return prefix, "is an IPv4 prefix in the form of IPv6: write the IPv4 one"
	}
	if masked := prefix.Masked(); masked != prefix {
		return prefix, fmt.Sprintf("has host bits set: write %s", masked)
	}
	return prefix, ""
}

// Contains tells whether a source is in the list, or the list is empty.
func (l List) Contains(source netip.Addr) bool {
	source = source.Unmap().WithZone("")
	for _, prefix := range l {
		if prefix.Contains(source) {
			return true
		}
	}
	return len(l) == 0
}

// Strings returns the prefixes as they are written.
func (l List) Strings() []string {
	out := make([]string, len(l))
	for i, prefix := range l {
		out[i] = prefix.String()
	}
	return out
}
