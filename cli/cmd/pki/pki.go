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
	c := command.Family(
		"pki",
		"Manage certificate authorities and certificates of a cluster",
		initCommand(s),
		issueCommand(s),
		rotateCommand(s),
	)
	c.Long = "Create the certificate authorities of a cluster and the certificates of its hosts, in a directory on the host from which\n" +
		"the cluster is installed."
	return c
}

func initCommand(s *session.Session) *cobra.Command {
	var dir, cluster string
	cmd := &cobra.Command{
		Use: "init --dir DIR", Short: "Create the two certificate authorities of a new cluster",
		Long:    "Create the certificate authority of the cluster and that of its etcd. Existing files are kept.",
		Example: "  xebec pki init --dir pki --cluster production", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if dir == "" {
				return exit.Usagef("--dir is required: the directory for the keys of the authorities")
			}
			made, err := pki.InitStore(dir, cluster)
			for _, a := range made {
				s.Printf("created %s\n", filepath.Join(dir, string(a)+".crt"))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory of the authorities and certificates")
	cmd.Flags().StringVar(&cluster, "cluster", "xebec", "name of the cluster, shown in certificates")
	return cmd
}

func rotateCommand(s *session.Session) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "rotate prepare|switch|finish --dir DIR", Short: "Replace the two authorities in three steps",
		Long: "Replace the authorities of the cluster and of its etcd in three steps:\n\n" +
			"  prepare  creates the new authorities, which are trusted in addition to the old ones\n" +
			"  switch   signs with the new authorities; the old keys are deleted, the old certificates are still trusted\n" +
			"  finish   ends the trust in the old authorities\n\n" +
			"After each step, run 'xebec pki issue' and install the changed files on every host before the next step, so that no host\n" +
			"receives a certificate that it does not trust. Repeating a step has no effect.",
		Example: "  xebec pki rotate prepare --dir pki", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			step := pki.RotationStep(args[0])
			switch {
			case dir == "":
				return exit.Usagef("--dir is required: the directory of the authorities")
			case !slices.Contains(pki.RotationSteps(), step):
				return exit.Usagef("invalid step %q: want prepare, switch or finish", args[0])
			}
			taken, err := pki.Rotate(dir, step)
			for _, a := range taken {
				s.Printf("%s %s\n", step, filepath.Join(dir, string(a)+".crt"))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory that 'xebec pki init' created")
	return cmd
}

// issueOptions are the subjects of the certificates that `xebec pki issue` issues.
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
		Long: "Issue the certificates of hosts: for each master, one per service for the cluster and one for etcd; for each etcd member\n" +
			"one; for each node one. Install DIR/hosts/<host>/<service>/ as /etc/xebec/<service>/ on that host. Valid certificates\n" +
			"are kept; each new one is printed with its reason.",
		Example: "  xebec pki issue --dir pki --master m1=10.0.0.11 --etcd m1=10.0.0.11 --node n1=10.0.0.21 --admin ann",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return issue(s, o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.dir, "dir", "", "directory that 'xebec pki init' created")
	flags.StringArrayVar(&o.masters, "master", nil, "master, as name=address[,address]; may be repeated")
	flags.StringArrayVar(&o.etcd, "etcd", nil, "host of an etcd member, as name=address[,address]; may be repeated")
	flags.StringArrayVar(&o.nodes, "node", nil, "node, as name=address[,address]; may be repeated")
	flags.StringArrayVar(&o.admins, "admin", nil, "administrator with all rights; may be repeated")
	flags.StringArrayVar(&o.monitors, "monitor", nil, "client that may only read metrics; may be repeated")
	flags.StringSliceVar(
		&o.services,
		"services",
		[]string{"apiserver", "auth", "gateway", "scheduler", "workloads", "nodes", "endpoints", "collector", "cloud"},
		"services on every master",
	)
	flags.StringVar(&o.serviceCIDR, "service-cidr", "10.96.0.0/16", "address range of services; the first address is that of the gateways")
	flags.StringVar(&o.domain, "cluster-domain", "cluster.local", "DNS domain of the cluster's services")
	flags.DurationVar(&o.renewal.Before, "renew-before", 30*24*time.Hour, "replace certificates that expire within this time")
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
			return nil, exit.Usagef("invalid --%s value %q: invalid host name %q: %s", flag, text, name, problems[0])
		}
		for address := range strings.SplitSeq(addresses, ",") {
			ip := net.ParseIP(address)
			if ip == nil {
				return nil, exit.Usagef("invalid --%s value %q: invalid IP address %q: want name=address[,address]", flag, text, address)
			}
			h.ips = append(h.ips, ip)
		}
		if slices.ContainsFunc(hosts, func(o host) bool { return o.name == name }) {
			return nil, exit.Usagef("duplicate --%s value for host %s", flag, name)
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

func issue(s *session.Session, o issueOptions) error {
	if o.dir == "" {
		return exit.Usagef("--dir is required: the directory of the authorities")
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
		return exit.Usagef("invalid --service-cidr value: %v", err)
	}
	if problems := validation.IsDNS1123Subdomain(o.domain); len(problems) > 0 {
		return exit.Usagef("invalid --cluster-domain value %q: %s", o.domain, problems[0])
	}
	store, err := pki.OpenStore(o.dir)
	if err != nil {
		return fmt.Errorf("%w: 'xebec pki init' creates the authorities", err)
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
