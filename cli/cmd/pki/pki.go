// Package pki holds the commands that manage authorities and certificates.
package pki

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/ipalloc"
	"github.com/xebec-project/xebec/internal/pki"
)

// Command returns the command pki.
func Command(s *session.Session) *cobra.Command {
	c := command.Family("pki", "Make a cluster's authorities and certificates", initCommand(s), issueCommand(s), rotateCommand(s))
	c.Long = "Make the authorities of a cluster and the certificates of its hosts, in a directory that stays on the host from\n" +
		"which the cluster is installed."
	return c
}

func initCommand(s *session.Session) *cobra.Command {
	var dir, cluster string
	cmd := &cobra.Command{
		Use: "init --dir DIR", Short: "Make the two authorities of a new cluster",
		Long:    "Make the authority of the cluster and that of its etcd. What is there already is kept.",
		Example: "  xebec pki init --dir pki --cluster production", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if dir == "" {
				return exit.Usagef("--dir says where the authorities' keys are to be")
			}
			made, err := pki.InitStore(dir, cluster)
			for _, a := range made {
				s.Printf("made %s\n", filepath.Join(dir, string(a)+".crt"))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory of the authorities and certificates")
	cmd.Flags().StringVar(&cluster, "cluster", "xebec", "name of the cluster, for people who look at a certificate")
	return cmd
}

func rotateCommand(s *session.Session) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "rotate prepare|switch|finish --dir DIR", Short: "Replace the two authorities, step by step",
		Long: "Replace the authorities of the cluster and of its etcd by new ones, in three steps:\n\n" +
			"  prepare  makes the new ones; they are trusted beside the old ones from then on\n" +
			"  switch   lets the new ones sign; the old ones' keys are gone, and their certificates still trusted\n" +
			"  finish   ends the trust in the old ones\n\n" +
			"After each step run 'xebec pki issue' and bring what it changed to every host before you take the next one: then no host\n" +
			"meets a certificate that it does not trust. A step that was taken already does nothing.",
		Example: "  xebec pki rotate prepare --dir pki", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			step := pki.RotationStep(args[0])
			switch {
			case dir == "":
				return exit.Usagef("--dir says where the authorities are")
			case !slices.Contains(pki.RotationSteps(), step):
				return exit.Usagef("there is no step %q; there are prepare, switch and finish", args[0])
			}
			taken, err := pki.Rotate(dir, step)
			for _, a := range taken {
				s.Printf("%s %s\n", step, filepath.Join(dir, string(a)+".crt"))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory that 'xebec pki init' made")
	return cmd
}

// issueOptions say for whom `xebec pki issue` makes certificates.
type issueOptions struct {
	dir                                    string
	masters, etcd, nodes, admins, monitors []string
	services                               []string
	domain, serviceCIDR                    string
	renewal                                pki.Renewal
}

func issueCommand(s *session.Session) *cobra.Command {
	var o issueOptions
	cmd := &cobra.Command{
		Use: "issue --dir DIR", Short: "Issue the certificates of hosts, administrators and monitors",
		Long: "Issue every certificate that the named hosts need: for each master one per service towards the cluster and one\n" +
			"towards etcd, for each etcd member one, for each node one. Below DIR, hosts/<host>/<service>/ is what belongs into\n" +
			"that host's /etc/xebec/<service>/. Certificates that are as they should be are kept, so that a second run does\n" +
			"nothing; each new one is printed with its reason.",
		Example: "  xebec pki issue --dir pki --master m1=10.0.0.11 --etcd m1=10.0.0.11 --node n1=10.0.0.21 --admin ann",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return issue(s, o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.dir, "dir", "", "directory that 'xebec pki init' made")
	flags.StringArrayVar(&o.masters, "master", nil, "master, as name=address[,address]; may be repeated")
	flags.StringArrayVar(&o.etcd, "etcd", nil, "host with a member of etcd, as name=address[,address]; may be repeated")
	flags.StringArrayVar(&o.nodes, "node", nil, "node, as name=address[,address]; may be repeated")
	flags.StringArrayVar(&o.admins, "admin", nil, "person who may do everything; may be repeated")
	flags.StringArrayVar(&o.monitors, "monitor", nil, "program that may read the metrics of every process and nothing else; may be repeated")
	flags.StringSliceVar(&o.services, "services", []string{"apiserver", "auth", "gateway", "scheduler", "workloads", "nodes", "endpoints", "collector", "cloud"},
		"services on every master")
	flags.StringVar(&o.serviceCIDR, "service-cidr", "10.96.0.0/16", "addresses that services get: pods call the gateways at the first")
	flags.StringVar(&o.domain, "cluster-domain", "cluster.local", "DNS domain of the cluster's services")
	flags.DurationVar(&o.renewal.Before, "renew-before", 30*24*time.Hour, "replace certificates that end sooner than this")
	flags.BoolVar(&o.renewal.Always, "renew-all", false, "replace all certificates")
	return cmd
}

// host is a name with the addresses that its certificates are good for.
type host struct {
	name string
	ips  []net.IP
}

// parseHosts reads name=address[,address].
func parseHosts(flag string, texts []string) ([]host, error) {
	var hosts []host
	for _, text := range texts {
		name, addresses, _ := strings.Cut(text, "=")
		h := host{name: name}
		if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
			return nil, exit.Usagef("--%s %s: %q is not a host name: %s", flag, text, name, problems[0])
		}
		for address := range strings.SplitSeq(addresses, ",") {
			ip := net.ParseIP(address)
			if ip == nil {
				return nil, exit.Usagef("--%s %s: %q is not an IP address; write name=address", flag, text, address)
			}
			h.ips = append(h.ips, ip)
		}
		if slices.ContainsFunc(hosts, func(o host) bool { return o.name == name }) {
			return nil, exit.Usagef("--%s: %s is there twice", flag, name)
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

func issue(s *session.Session, o issueOptions) error {
	if o.dir == "" {
		return exit.Usagef("--dir says where the authorities are")
	}
	masters, err := parseHosts("master", o.masters)
	if err != nil {
		return err
	}
	members, err := parseHosts("etcd", o.etcd)
	if err != nil {
		return err
	}
	nodes, err := parseHosts("node", o.nodes)
	if err != nil {
		return err
	}
	cidrs, err := ipalloc.ParseFamilies(o.serviceCIDR)
	if err != nil {
		return exit.Usagef("--service-cidr: %v", err)
	}
	if problems := validation.IsDNS1123Subdomain(o.domain); len(problems) > 0 {
		return exit.Usagef("--cluster-domain %q: %s", o.domain, problems[0])
	}
	store, err := pki.OpenStore(o.dir)
	if err != nil {
		return fmt.Errorf("%w; 'xebec pki init' makes the authorities", err)
	}
	i := &issuer{s: s, store: store, options: o}
	for _, h := range masters {
		for _, service := range o.services {
			dir, own := filepath.Join("hosts", h.name, service), pki.ServiceRequest(service, h.name, h.ips...)
			if service == "gateway" {
				own = pki.GatewayRequest(h.name, o.domain, ipalloc.First(cidrs[0]), h.ips...)
			}
			i.pair(dir, "ca.crt", "tls", pki.ClusterAuthority, own)
			// Towards etcd every service is a client with a certificate of etcd's own authority.
			i.pair(dir, "etcd-ca.crt", "etcd", pki.EtcdAuthority, pki.EtcdClientRequest(service, h.name))
		}
	}
	for _, h := range members {
		i.pair(filepath.Join("hosts", h.name, "etcd"), "ca.crt", "tls", pki.EtcdAuthority, pki.EtcdMemberRequest(h.name, h.ips...))
	}
	for _, h := range nodes {
		i.pair(filepath.Join("hosts", h.name, "agent"), "ca.crt", "tls", pki.ClusterAuthority, pki.NodeRequest(h.name, h.ips...))
	}
	for _, name := range o.admins {
		i.pair(filepath.Join("admins", name), "ca.crt", "tls", pki.ClusterAuthority, pki.AdminRequest(name))
	}
	for _, name := range o.monitors {
		i.pair(filepath.Join("monitors", name), "ca.crt", "tls", pki.ClusterAuthority, pki.MonitorRequest(name))
	}
	return i.err
}

// issuer issues until the first error, which it keeps.
type issuer struct {
	s       *session.Session
	store   *pki.Store
	options issueOptions
	err     error
}

// pair writes a certificate, its key and the authority to trust into a directory of the store.
func (i *issuer) pair(dir, trust, name string, by pki.Authority, request pki.Request) {
	if i.err != nil {
		return
	}
	var reason string
	if reason, i.err = i.store.Ensure(filepath.Join(dir, name), by, request, i.options.renewal); i.err != nil {
		return
	}
	if reason != "" {
		i.s.Printf("issued %s: %s\n", filepath.Join(dir, name+".crt"), reason)
	}
	var written bool
	if written, i.err = i.store.Trust(filepath.Join(dir, trust), by); written {
		i.s.Printf("wrote %s\n", filepath.Join(dir, trust))
	}
}
