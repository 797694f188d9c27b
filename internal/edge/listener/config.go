package listener

import (
	"errors"
	"fmt"
	"net"

	"github.com/xebec-project/xebec/internal/allowlist"
)

// Config says where a gateway listens besides its own address, and from where connections are taken
// unless a GatewayAccess says otherwise.
type Config struct {
	// Private is the listener at the gateway's own address, `listen`, for the cluster's own network.
	Private ListenerConfig `yaml:"private"`
	// Public is the listener for the world outside.
	Public PublicConfig `yaml:"public"`
	// Keep is a file in which the gateway keeps the GatewayAccess it saw last, for a start while no
	// apiserver answers. Empty keeps it nowhere: such a start goes by the configuration.
	Keep string `yaml:"keep" help:"file that keeps the last GatewayAccess, for a start while no apiserver answers"`
}

// ListenerConfig says who is admitted at a listener.
type ListenerConfig struct {
	// Closed takes no connections but the masters' own.
	Closed bool `yaml:"closed" help:"take no connections but the masters' own"`
	// Allow lists the sources that connections are taken from, as prefixes without host bits and
	// overlaps, at most 40; empty for everywhere.
	Allow []string `yaml:"allow" help:"prefixes that connections are taken from, at most 40; everywhere when empty"`
	// Proxies lists the load balancers, as prefixes, that put a PROXY protocol header (send-proxy-v2)
	// before each connection. A connection of theirs without one is refused; the header of anyone else
	// counts for nothing.
	Proxies []string `yaml:"proxies" help:"prefixes of load balancers that send a PROXY protocol header, which tells the client's address"`
}

// PublicConfig is the listener for the world outside.
type PublicConfig struct {
	// Listen is its address, such as 203.0.113.10:6443. Empty for no such listener.
	Listen string `yaml:"listen" help:"address of the public listener, none when empty"`
	// ListenerConfig says who is admitted.
	ListenerConfig `yaml:",inline"`
}

// Validate returns all problems.
func (c *Config) Validate() error {
	var problems []error
	lists := func(name string, l ListenerConfig) {
		for key, entries := range map[string][]string{"allow": l.Allow, "proxies": l.Proxies} {
			_, wrong := allowlist.Parse(entries)
			for _, problem := range wrong {
				problems = append(problems, fmt.Errorf("access.%s.%s: %w", name, key, problem))
			}
		}
		if l.Closed && len(l.Allow) > 0 {
			problems = append(problems, fmt.Errorf("access.%s.allow: must be empty where the listener is closed", name))
		}
	}
	lists("private", c.Private)
	lists("public", c.Public.ListenerConfig)
	if c.Public.Listen == "" {
		if c.Public.Closed || len(c.Public.Allow) > 0 || len(c.Public.Proxies) > 0 {
			problems = append(problems, errors.New("access.public.listen: required where the public listener has other settings"))
		}
	} else if _, _, err := net.SplitHostPort(c.Public.Listen); err != nil {
		problems = append(problems, fmt.Errorf("access.public.listen: %w", err))
	}
	if c.Private.Closed && (c.Public.Listen == "" || c.Public.Closed) {
		problems = append(problems, errors.New("access: one listener must take connections"))
	}
	return errors.Join(problems...)
}

// rule returns what the configuration, which is valid, says of a listener.
func (l ListenerConfig) rule() Rule {
	list, _ := allowlist.Parse(l.Allow)
	return Rule{Closed: l.Closed, Allowed: list}
}

func (l ListenerConfig) proxies() allowlist.List {
	list, _ := allowlist.Parse(l.Proxies)
	return list
}
