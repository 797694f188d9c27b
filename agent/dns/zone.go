package dns

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	miekg "github.com/miekg/dns"
)

// ttl of all records, in seconds: the maximum time that a client may cache an outdated address.
const ttl = 5

// schemaVersion is of Kubernetes' DNS specification.
const schemaVersion = "1.1.0"

// answer is the zone's response to a query.
type answer struct {
	rcode  int
	answer []miekg.RR
	extra  []miekg.RR
	// alias is the target of an ExternalName service, which must be resolved upstream.
	alias string
}

func nodata() answer   { return answer{rcode: miekg.RcodeSuccess} }
func nxdomain() answer { return answer{rcode: miekg.RcodeNameError} }

// lookup resolves a name in the cluster domain. Labels are those before the domain, in lower case.
// Name is the whole name as it was asked: it comes back as the owner of the records.
func (r *Records) lookup(labels []string, name, domain string, qtype uint16) answer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n := len(labels)
	switch {
	case n == 0: // the domain itself
		return nodata()
	case n == 1 && labels[0] == "dns-version":
		if qtype != miekg.TypeTXT && qtype != miekg.TypeANY {
			return nodata()
		}
		return answer{answer: []miekg.RR{&miekg.TXT{Hdr: header(name, miekg.TypeTXT), Txt: []string{schemaVersion}}}}
	case labels[n-1] != "svc":
		return nxdomain()
	case n == 1:
		return nodata()
	case r.namespaces[labels[n-2]] == 0:
		return nxdomain()
	case n == 2:
		return nodata()
	}
	k := key{namespace: labels[n-2], name: labels[n-3]}
	e := r.entries[k]
	if e == nil || !e.exists() {
		return nxdomain()
	}
	base := k.name + "." + k.namespace + ".svc." + domain
	switch sub := labels[:n-3]; {
	case len(sub) == 0:
		return e.atService(name, qtype)
	case e.externalName != "":
		return nxdomain()
	case len(sub) == 1 && (sub[0] == "_tcp" || sub[0] == "_udp" || sub[0] == "_sctp"):
		if e.hasProtocol(sub[0][1:]) {
			return nodata()
		}
		return nxdomain()
	case len(sub) == 1:
		return e.atHost(sub[0], name, qtype)
	case len(sub) == 2 && strings.HasPrefix(sub[0], "_") && strings.HasPrefix(sub[1], "_"):
		return e.atPort(sub[0][1:], sub[1][1:], name, base, qtype)
	default:
		return nxdomain()
	}
}

// atService resolves the name of a service.
func (e *entry) atService(name string, qtype uint16) answer {
	if e.externalName != "" {
		target := miekg.Fqdn(e.externalName)
		a := answer{answer: []miekg.RR{&miekg.CNAME{Hdr: header(name, miekg.TypeCNAME), Target: target}}}
		if qtype != miekg.TypeCNAME && qtype != miekg.TypeANY {
			a.alias = target
		}
		return a
	}
	if qtype != miekg.TypeA && qtype != miekg.TypeAAAA && qtype != miekg.TypeANY {
		return nodata()
	}
	a := answer{answer: make([]miekg.RR, 0, len(e.ips)+len(e.endpoints))}
	for ip := range e.addresses() {
		if asksFor(qtype, ip) {
			a.answer = append(a.answer, addressRecord(name, ip))
		}
	}
	if len(e.ips) > 0 {
		return a
	}
	// Most clients take the first.
	rand.Shuffle(len(a.answer), func(i, j int) { a.answer[i], a.answer[j] = a.answer[j], a.answer[i] })
	return a
}

// atHost resolves the name of an endpoint.
func (e *entry) atHost(hostname, name string, qtype uint16) answer {
	a := nxdomain()
	for _, ep := range e.endpoints {
		if ep.hostname != hostname {
			continue
		}
		a.rcode = miekg.RcodeSuccess
		if asksFor(qtype, ep.ip) {
			a.answer = append(a.answer, addressRecord(name, ep.ip))
		}
	}
	return a
}

// atPort resolves the SRV records of _port._protocol.
func (e *entry) atPort(portName, protocol, name, base string, qtype uint16) answer {
	a := nxdomain()
	wanted := qtype == miekg.TypeSRV || qtype == miekg.TypeANY
	// An endpoint with a hostname and addresses of both families is one target.
	type place struct {
		target string
		number uint16
	}
	seen := map[place]bool{}
	add := func(target string, ip netip.Addr, number uint16) {
		a.rcode = miekg.RcodeSuccess
		if !wanted {
			return
		}
		if !seen[place{target, number}] {
			seen[place{target, number}] = true
			a.answer = append(a.answer, &miekg.SRV{
				Hdr: header(name, miekg.TypeSRV), Weight: 100, Port: number, Target: target,
			})
		}
		a.extra = append(a.extra, addressRecord(target, ip))
	}
	for _, p := range e.ports {
		for _, ip := range e.ips {
			if p.name == portName && p.protocol == protocol {
				add(base, ip, p.number)
			}
		}
	}
	for _, ep := range e.endpoints {
		for _, p := range ep.ports {
			if p.name == portName && p.protocol == protocol {
				add(ep.hostname+"."+base, ep.ip, p.number)
			}
		}
	}
	return a
}

// hasProtocol reports whether some name lies below _protocol.
func (e *entry) hasProtocol(protocol string) bool {
	is := func(p port) bool { return p.protocol == protocol }
	return slices.ContainsFunc(e.ports, is) ||
		slices.ContainsFunc(e.endpoints, func(ep endpoint) bool { return slices.ContainsFunc(ep.ports, is) })
}

// names returns the names of an address below the domain, sorted.
func (r *Records) names(ip netip.Addr, domain string) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []string
	for _, name := range r.reverse[ip] {
		out = append(out, name+".svc."+domain)
	}
	slices.Sort(out)
	return out
}

func (r *Records) isSynced() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.synced
}

// asksFor reports whether an address is a record of the query type.
func asksFor(qtype uint16, ip netip.Addr) bool {
	switch qtype {
	case miekg.TypeA:
		return ip.Is4()
	case miekg.TypeAAAA:
		return ip.Is6()
	}
	return qtype == miekg.TypeANY
}

// reverseAddress reads the address that a name below in-addr.arpa or ip6.arpa stands for.
func reverseAddress(name string) (netip.Addr, bool) {
	if nibbles, ok := strings.CutSuffix(name, ".ip6.arpa."); ok {
		return reverseAddress6(nibbles)
	}
	digits, ok := strings.CutSuffix(name, ".in-addr.arpa.")
	if !ok {
		return netip.Addr{}, false
	}
	parts := strings.Split(digits, ".")
	if len(parts) != 4 {
		return netip.Addr{}, false
	}
	var b [4]byte
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != p {
			return netip.Addr{}, false
		}
		b[3-i] = byte(n)
	}
	return netip.AddrFrom4(b), true
}

// reverseAddress6 reads 32 nibbles, the last first.
func reverseAddress6(nibbles string) (netip.Addr, bool) {
	parts := strings.Split(nibbles, ".")
	if len(parts) != 32 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 16, 4)
		if err != nil || len(p) != 1 {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}

func header(name string, rrtype uint16) miekg.RR_Header {
	return miekg.RR_Header{Name: name, Rrtype: rrtype, Class: miekg.ClassINET, Ttl: ttl}
}

func addressRecord(name string, ip netip.Addr) miekg.RR {
	if ip.Is6() {
		return &miekg.AAAA{Hdr: header(name, miekg.TypeAAAA), AAAA: net.IP(ip.AsSlice())}
	}
	return &miekg.A{Hdr: header(name, miekg.TypeA), A: net.IP(ip.AsSlice())}
}

// soa is the record of negative responses, which has their time to live.
func soa(zone string) *miekg.SOA {
	return &miekg.SOA{
		Hdr:     header(zone, miekg.TypeSOA),
		Ns:      fmt.Sprintf("ns.dns.%s", zone),
		Mbox:    fmt.Sprintf("hostmaster.%s", zone),
		Serial:  1,
		Refresh: 7200,
		Retry:   1800,
		Expire:  86400,
		Minttl:  ttl,
	}
}
