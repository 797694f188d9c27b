package dns

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// The limits of common resolvers, which ignore or reject the rest.
const (
	maxNameservers  = 3
	maxSearches     = 32
	maxSearchLength = 2048
)

// resolvedConf is where systemd-resolved names the resolvers behind its stub.
const resolvedConf = "/run/systemd/resolve/resolv.conf"

// ResolvConf is the contents of a resolv.conf file.
type ResolvConf struct {
	// Nameservers are addresses in order of preference.
	Nameservers []netip.Addr
	// Searches are the domains tried for short names, in order.
	Searches []string
	// Options are as they stand in the file, such as "ndots:5".
	Options []string
}

// ReadHostResolvConf reads the node's resolv.conf at the path. Where that names
// only systemd-resolved's stub on the loopback, which pods cannot reach, it
// reads the resolvers behind it. A file that does not exist names none.
func ReadHostResolvConf(path string) (ResolvConf, error) {
	conf, err := readResolvConf(path)
	if err != nil {
		return ResolvConf{}, err
	}
	if slices.ContainsFunc(conf.Nameservers, func(a netip.Addr) bool { return !a.IsLoopback() }) {
		return conf, nil
	}
	behind, err := readResolvConf(resolvedConf)
	if err == nil && len(behind.Nameservers) > 0 {
		return behind, nil
	}
	return conf, nil
}

func readResolvConf(path string) (ResolvConf, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return ResolvConf{}, nil
	}
	if err != nil {
		return ResolvConf{}, fmt.Errorf("reading resolv.conf: %w", err)
	}
	defer f.Close()
	return ParseResolvConf(f)
}

// ParseResolvConf reads a resolv.conf as resolvers do: invalid lines are skipped, and the last
// search line counts.
func ParseResolvConf(r io.Reader) (ResolvConf, error) {
	var c ResolvConf
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil {
				c.Nameservers = append(c.Nameservers, a)
			}
		case "search", "domain":
			c.Searches = words[1:]
		case "options":
			c.Options = append(c.Options, words[1:]...)
		}
	}
	if err := lines.Err(); err != nil {
		return ResolvConf{}, fmt.Errorf("reading resolv.conf: %w", err)
	}
	return c, nil
}

// Upstreams returns where to forward questions to.
func (c ResolvConf) Upstreams() []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(c.Nameservers))
	for _, a := range c.Nameservers {
		out = append(out, netip.AddrPortFrom(a, 53))
	}
	return out
}

// String returns the file's contents.
func (c ResolvConf) String() string {
	var b strings.Builder
	for _, a := range c.Nameservers {
		fmt.Fprintf(&b, "nameserver %v\n", a)
	}
	if len(c.Searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.Searches, " "))
	}
	if len(c.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(c.Options, " "))
	}
	return b.String()
}

// PodResolvConf has what determines the resolv.conf of a pod.
type PodResolvConf struct {
	// Namespace is the pod's.
	Namespace string
	// Policy is the pod's dnsPolicy; empty is ClusterFirst.
	Policy string
	// HostNetwork reports whether the pod shares the node's network.
	HostNetwork bool
	// Config is the pod's dnsConfig, or nil.
	Config *corev1.PodDNSConfig
	// ClusterDomain and ClusterDNS are the cluster's.
	ClusterDomain string
	ClusterDNS    netip.Addr
	// Host is the node's own resolv.conf.
	Host ResolvConf
}

// Build returns the pod's resolv.conf. As in Kubernetes, ClusterFirst means
// Default for a pod on the node's network, and what the dnsConfig says is added
// to, or for options put in place of, what the policy gives.
func (p PodResolvConf) Build() (ResolvConf, error) {
	var c ResolvConf
	switch policy := cmp.Or(p.Policy, "ClusterFirst"); {
	case policy == "None":
		if len(p.Config.GetNameservers()) == 0 {
			return ResolvConf{}, errors.New("dnsPolicy None requires a nameserver in dnsConfig")
		}
	case policy == "Default", policy == "ClusterFirst" && p.HostNetwork:
		c = ResolvConf{
			Nameservers: slices.Clone(p.Host.Nameservers),
			Searches:    slices.Clone(p.Host.Searches),
			Options:     slices.Clone(p.Host.Options),
		}
	case policy == "ClusterFirst", policy == "ClusterFirstWithHostNet":
		domain := strings.Trim(p.ClusterDomain, ".")
		c = ResolvConf{
			Nameservers: []netip.Addr{p.ClusterDNS},
			Searches:    []string{p.Namespace + ".svc." + domain, "svc." + domain, domain},
			// The server is on the pod's own node and answers immediately, or is restarting: resolvers retry
			// soon instead of after 5 s, so that a lookup survives the restart or upgrade of the agent.
			Options: []string{"ndots:5", "timeout:1", "attempts:5"},
		}
		c.Searches = append(c.Searches, p.Host.Searches...)
	default:
		return ResolvConf{}, fmt.Errorf("unknown dnsPolicy %q", policy)
	}
	for _, text := range p.Config.GetNameservers() {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return ResolvConf{}, fmt.Errorf("nameserver in dnsConfig: %w", err)
		}
		c.Nameservers = append(c.Nameservers, a)
	}
	c.Searches = append(c.Searches, p.Config.GetSearches()...)
	for _, o := range p.Config.GetOptions() {
		option := o.GetName()
		c.Options = slices.DeleteFunc(c.Options, func(have string) bool {
			name, _, _ := strings.Cut(have, ":")
			return name == option
		})
		if o.GetValue() != "" {
			option += ":" + o.GetValue()
		}
		c.Options = append(c.Options, option)
	}
	c.limit()
	return c, nil
}

// limit drops duplicates and what is beyond what resolvers take.
func (c *ResolvConf) limit() {
	c.Nameservers = unique(c.Nameservers)
	c.Nameservers = c.Nameservers[:min(len(c.Nameservers), maxNameservers)]
	c.Searches = unique(c.Searches)
	c.Searches = c.Searches[:min(len(c.Searches), maxSearches)]
	length := 0
	for i, s := range c.Searches {
		if length += len(s) + 1; length > maxSearchLength {
			c.Searches = c.Searches[:i]
			break
		}
	}
}

// unique keeps the first of each.
func unique[T comparable](in []T) []T {
	seen := make(map[T]bool, len(in))
	return slices.DeleteFunc(in, func(v T) bool {
		dup := seen[v]
		seen[v] = true
		return dup
	})
}
