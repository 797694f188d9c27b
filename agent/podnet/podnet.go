// Package podnet gives pods their network: an address from the node's pod CIDR,
// a veth pair, and routes between the nodes. Pods reach each other without
// translation. Nothing here filters or rewrites packets.
//
// A pod has a /32 address and routes everything through a link-local gateway
// that exists as a permanent neighbour entry only. The node routes the /32 to
// the pod's veth and checks that the pod sends from it. What is in the cluster's
// ranges and nowhere to be found is unreachable at once, so that it never
// leaves by the default route.
package podnet

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/failpoint"
	"github.com/xebec-project/xebec/internal/osthread"
)

// LinkPrefix begins the names of the pods' interfaces on the node.
const LinkPrefix = "xeb-"

const (
	// routeProtocol marks the agent's routes; no other program uses this number.
	routeProtocol = 88
	// podLink is the name of a pod's interface.
	podLink = "eth0"
	// dnsLabel marks the cluster DNS address on lo.
	dnsLabel = "lo:xebec-dns"

	netlinkTimeout = 10 * time.Second
	// linkTimeout is for a new link to come up, which takes milliseconds.
	linkTimeout = 5 * time.Second
)

var (
	// gateway is where pods send everything to.
	gateway = netip.AddrFrom4([4]byte{169, 254, 1, 1})
	// hostMAC is the hardware address of every veth's end on the node.
	hostMAC = net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
)

// Config describes one node's place in the cluster's network.
type Config struct {
	// PodCIDR is where the node's pods get their addresses from.
	PodCIDR netip.Prefix
	// ClusterCIDR holds the pods of all nodes.
	ClusterCIDR netip.Prefix
	// ServiceCIDR holds the cluster IPs. Invalid: no route keeps strays in.
	ServiceCIDR netip.Prefix
	// PodCIDR6, ClusterCIDR6 and ServiceCIDR6 are the same for IPv6, which pods
	// have beside IPv4. Invalid: they have not.
	PodCIDR6, ClusterCIDR6, ServiceCIDR6 netip.Prefix
	// NodeIP is the node's own address, on the network that joins the nodes.
	NodeIP netip.Addr
	// NodeIP6 is its IPv6 address. Invalid: it has none, and IPv6 packets to other
	// nodes' pods go through the overlay.
	NodeIP6 netip.Addr
	// DNSIP is made an address of the node, so that the agent can answer DNS
	// there. Invalid: none is.
	DNSIP netip.Addr
	// Overlay says when packets to other nodes' pods are encapsulated. Empty is
	// OverlayNever.
	Overlay Overlay
	// OverlayGrace is how long the overlay's interface stays when it is not needed any
	// more. Zero is ten minutes.
	OverlayGrace time.Duration
	// MTU of the pods' interfaces. Zero is that of the interface with NodeIP, less
	// what encapsulation adds where there is an overlay.
	MTU int
	// StateDir remembers which pod has which address.
	StateDir string
	// Metrics count addresses and routes, and measure the setup of pods. Nil: there are none.
	Metrics *Metrics
}

func (c Config) validate() error {
	switch {
	case !c.PodCIDR.IsValid() || !c.PodCIDR.Addr().Is4() || c.PodCIDR.Masked() != c.PodCIDR:
		return fmt.Errorf("pod CIDR %v is not an IPv4 network", c.PodCIDR)
	case c.PodCIDR.Bits() > 30:
		return fmt.Errorf("pod CIDR %v is too small for pods", c.PodCIDR)
	case !c.ClusterCIDR.IsValid() || !c.ClusterCIDR.Contains(c.PodCIDR.Addr()) || c.ClusterCIDR.Bits() > c.PodCIDR.Bits():
		return fmt.Errorf("pod CIDR %v is not within the cluster CIDR %v", c.PodCIDR, c.ClusterCIDR)
	case c.ServiceCIDR.IsValid() && c.ServiceCIDR.Overlaps(c.ClusterCIDR):
		return fmt.Errorf("service CIDR %v overlaps the cluster CIDR %v", c.ServiceCIDR, c.ClusterCIDR)
	case !c.NodeIP.Is4():
		return fmt.Errorf("node address %v is not IPv4", c.NodeIP)
	case c.Overlay != "" && !c.Overlay.Valid():
		return fmt.Errorf("unknown overlay mode %q: want %s, %s or %s", c.Overlay, OverlayAuto, OverlayAlways, OverlayNever)
	case c.StateDir == "":
		return errors.New("no state directory")
	}
	return c.validate6()
}

// Network is the pod network of one node. Its methods may be called
// concurrently, those on one pod one after the other.
type Network struct {
	cfg       Config
	node      *netlink.Handle
	namespace *os.File // the node's
	addresses *addresses

	// uplink is the network that the node's address is on, uplink6 that of its IPv6
	// address; name and MTU are the interface's.
	uplink, uplink6 netip.Prefix
	uplinkName      string
	uplinkMTU       int

	mu sync.Mutex
	// overlayIndex is of the overlay's interface, 0 where there is none.
	overlayIndex int
	unneeded     time.Time            // since when nothing needs the overlay; zero: something does
	routes       map[netip.Prefix]hop // wanted, by pod CIDR
	// known is set once the routes are: until then those in the kernel are an earlier agent's, and
	// stay.
	known bool
}

// Result is what a pod's network came to.
type Result struct {
	// IP is the pod's address, IP6 its IPv6 address, invalid if it has none.
	IP, IP6 netip.Addr
	// Index is the number of the interface on the node that leads to the pod.
	Index int
}

// New prepares the network namespace that the calling thread is in as a node:
// forwarding, the routes that keep strays in, the DNS address. It can be called
// again after the agent restarts.
func New(cfg Config) (*Network, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	cfg.Overlay, cfg.OverlayGrace = cmp.Or(cfg.Overlay, OverlayNever), cmp.Or(cfg.OverlayGrace, overlayGrace)
	runtime.LockOSThread() // one namespace, from opening it to using it
	defer runtime.UnlockOSThread()
	namespace, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("opening the node's network namespace: %w", err)
	}
	node, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		namespace.Close()
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	n := &Network{cfg: cfg, node: node, namespace: namespace}
	if err := n.prepare(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Network) prepare() error {
	if err := n.node.SetSocketTimeout(netlinkTimeout); err != nil {
		return fmt.Errorf("setting the netlink timeout: %w", err)
	}
	var err error
	n.addresses, err = openAddresses(filepath.Join(n.cfg.StateDir, "addresses"), n.cfg.PodCIDR)
	if err != nil {
		return err
	}
	n.cfg.Metrics.hold(n.addresses)
	if err := n.findUplink(); err != nil {
		return err
	}
	if n.cfg.MTU == 0 {
		n.cfg.MTU = n.uplinkMTU
		if n.cfg.Overlay != OverlayNever {
			n.cfg.MTU -= overlayBytes
		}
	}
	if err := writeSysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	if err := n.prepare6(); err != nil {
		return err
	}
	if err := n.ensureBase(); err != nil {
		return err
	}
	return nil
}

// ensureBase puts what every pod needs in place: it is safe to repeat.
func (n *Network) ensureBase() error {
	for _, cidr := range []netip.Prefix{n.cfg.ClusterCIDR, n.cfg.ServiceCIDR, n.cfg.ClusterCIDR6, n.cfg.ServiceCIDR6} {
		if !cidr.IsValid() {
			continue
		}
		r := &netlink.Route{Dst: ipNet(cidr), Type: unix.RTN_UNREACHABLE, Protocol: routeProtocol}
		if err := n.node.RouteReplace(r); err != nil {
			return fmt.Errorf("adding the unreachable route for %v: %w", cidr, err)
		}
	}
	if err := n.ensureOverlay(); err != nil {
		return err
	}
	if !n.cfg.DNSIP.IsValid() {
		return nil
	}
	lo, err := n.node.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := n.node.LinkSetUp(lo); err != nil {
		return fmt.Errorf("setting lo up: %w", err)
	}
	// Host scope: the kernel must not pick it as the source of other traffic.
	addr := &netlink.Addr{IPNet: ipNet(single(n.cfg.DNSIP)), Label: dnsLabel, Scope: unix.RT_SCOPE_HOST}
	if err := n.node.AddrReplace(lo, addr); err != nil {
		return fmt.Errorf("adding the cluster DNS address %v: %w", n.cfg.DNSIP, err)
	}
	return nil
}

// findUplink looks for the interface with the node's address.
func (n *Network) findUplink() error {
	addrs, err := n.node.AddrList(nil, unix.AF_INET)
	if err != nil {
		return fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); !ok || ip != n.cfg.NodeIP {
			continue
		}
		link, err := n.node.LinkByIndex(a.LinkIndex)
		if err != nil {
			return fmt.Errorf("finding the interface with %v: %w", n.cfg.NodeIP, err)
		}
		bits, _ := a.Mask.Size()
		n.uplink, n.uplinkName, n.uplinkMTU = netip.PrefixFrom(n.cfg.NodeIP, bits), link.Attrs().Name, link.Attrs().MTU
		return n.findUplink6()
	}
	return fmt.Errorf("no interface has the node's address %v", n.cfg.NodeIP)
}

// Close lets go of the node's namespace. The network stays as it is.
func (n *Network) Close() error {
	n.node.Close()
	return n.namespace.Close()
}

// Setup connects the network namespace at the path as the pod's. It is idempotent: called again for
// a pod it repairs what is missing and returns the same address, also after a restart of the agent
// or the node.
func (n *Network) Setup(ctx context.Context, podUID, netnsPath string) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	began := time.Now()
	result, err := n.setup(ctx, podUID, netnsPath)
	n.cfg.Metrics.setUp(began, err)
	n.cfg.Metrics.hold(n.addresses)
	return result, err
}

func (n *Network) setup(ctx context.Context, podUID, netnsPath string) (Result, error) {
	ip, err := n.addresses.allocate(podUID)
	if err != nil {
		return Result{}, err
	}
	index, err := n.connect(ctx, podUID, netnsPath, ip)
	if err != nil {
		return Result{}, fmt.Errorf("connecting pod %s (%v): %w", podUID, ip, err)
	}
	return Result{IP: ip, IP6: n.IP6(ip), Index: index}, nil
}

func (n *Network) connect(ctx context.Context, podUID, netnsPath string, ip netip.Addr) (index int, err error) {
	ns, err := netns.GetFromPath(netnsPath)
	if err != nil {
		return 0, fmt.Errorf("opening the network namespace: %w", err)
	}
	defer ns.Close()
	pod, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return 0, fmt.Errorf("entering the network namespace: %w", err)
	}
	defer pod.Close()
	if err := pod.SetSocketTimeout(netlinkTimeout); err != nil {
		return 0, fmt.Errorf("setting the netlink timeout: %w", err)
	}

	hostSide, podSide, err := n.ensurePair(linkName(podUID), pod, ns, podMAC(ip))
	if err != nil {
		return 0, err
	}
	if err := n.configurePod(pod, int(ns), podSide, ip); err != nil {
		return 0, fmt.Errorf("inside the pod: %w", err)
	}
	failpoint.Hit("pod-interface-set-up")
	if err := n.configureHost(hostSide, ip); err != nil {
		return 0, fmt.Errorf("on the node: %w", err)
	}
	failpoint.Hit("pod-routed")
	for _, end := range []struct {
		handle *netlink.Handle
		link   netlink.Link
	}{{pod, podSide}, {n.node, hostSide}} {
		if err := awaitUp(ctx, end.handle, end.link); err != nil {
			return 0, err
		}
	}
	return hostSide.Attrs().Index, nil
}

// awaitUp waits until the kernel has noticed that the link's other end is up.
// Until then it drops what is sent, and the pod's first connection would begin
// with a lost packet and a second's wait.
func awaitUp(ctx context.Context, h *netlink.Handle, link netlink.Link) error {
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		now, err := h.LinkByIndex(link.Attrs().Index)
		if err != nil {
			return fmt.Errorf("reading the state of %s: %w", link.Attrs().Name, err)
		}
		if now.Attrs().OperState == netlink.OperUp {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to come up: %w", link.Attrs().Name, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// ensurePair returns both ends of the pod's veth pair, which it creates unless both exist and
// belong together.
func (n *Network) ensurePair(
	name string,
	pod *netlink.Handle,
	ns netns.NsHandle,
	mac net.HardwareAddr,
) (hostSide, podSide netlink.Link, err error) {
	hostSide, err = find(n.node, name)
	if err != nil {
		return nil, nil, err
	}
	podSide, err = find(pod, podLink)
	if err != nil {
		return nil, nil, err
	}
	if hostSide != nil && podSide != nil && hostSide.Attrs().ParentIndex == podSide.Attrs().Index &&
		podSide.Attrs().ParentIndex == hostSide.Attrs().Index && podSide.Attrs().HardwareAddr.String() == mac.String() {
		return hostSide, podSide, errors.Join(n.setMTU(n.node, hostSide), n.setMTU(pod, podSide))
	}
	if podSide != nil {
		if err := pod.LinkDel(podSide); err != nil {
			return nil, nil, fmt.Errorf("deleting a foreign %s: %w", podLink, err)
		}
	}
	if err := n.deleteLink(name); err != nil {
		return nil, nil, err
	}
	veth := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: name, MTU: n.cfg.MTU, HardwareAddr: hostMAC},
		PeerName:         podLink,
		PeerNamespace:    netlink.NsFd(int(ns)),
		PeerHardwareAddr: mac,
		PeerMTU:          uint32(n.cfg.MTU),
	}
	if err := n.node.LinkAdd(veth); err != nil {
		return nil, nil, fmt.Errorf("creating the veth pair: %w", err)
	}
	failpoint.Hit("veth-made")
	if hostSide, err = n.node.LinkByName(name); err != nil {
		return nil, nil, fmt.Errorf("finding %s: %w", name, err)
	}
	if podSide, err = pod.LinkByName(podLink); err != nil {
		return nil, nil, fmt.Errorf("finding the pod's %s: %w", podLink, err)
	}
	return hostSide, podSide, nil
}

// setMTU changes the MTU of an interface from before the overlay was there, or
// was not.
func (n *Network) setMTU(h *netlink.Handle, link netlink.Link) error {
	if link.Attrs().MTU == n.cfg.MTU {
		return nil
	}
	if err := h.LinkSetMTU(link, n.cfg.MTU); err != nil {
		return fmt.Errorf("setting the MTU of %s: %w", link.Attrs().Name, err)
	}
	return nil
}

func (n *Network) configurePod(pod *netlink.Handle, ns int, eth0 netlink.Link, ip netip.Addr) error {
	ip6 := n.IP6(ip)
	if ip6.IsValid() {
		if err := allowIPv6(ns); err != nil {
			return err
		}
	}
	lo, err := pod.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	for _, l := range []netlink.Link{lo, eth0} {
		if err := pod.LinkSetUp(l); err != nil {
			return fmt.Errorf("setting %s up: %w", l.Attrs().Name, err)
		}
	}
	if err := pod.AddrReplace(eth0, &netlink.Addr{IPNet: ipNet(single(ip))}); err != nil {
		return fmt.Errorf("adding the address: %w", err)
	}
	index := eth0.Attrs().Index
	if err := pod.NeighSet(neighbour(index, gateway, hostMAC)); err != nil {
		return fmt.Errorf("adding the gateway's neighbour entry: %w", err)
	}
	for _, r := range []*netlink.Route{
		{LinkIndex: index, Dst: ipNet(single(gateway)), Scope: unix.RT_SCOPE_LINK},
		{LinkIndex: index, Dst: ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)), Gw: gateway.AsSlice()},
	} {
		if err := pod.RouteReplace(r); err != nil {
			return fmt.Errorf("adding the route to %v: %w", r.Dst, err)
		}
	}
	if ip6.IsValid() {
		return configurePod6(pod, eth0, ip6)
	}
	return nil
}

func (n *Network) configureHost(veth netlink.Link, ip netip.Addr) error {
	name, index := veth.Attrs().Name, veth.Attrs().Index
	// A pod may send from its own address only.
	if err := n.inside(func() error { return writeSysctl("net/ipv4/conf/"+name+"/rp_filter", "1") }); err != nil {
		return err
	}
	if err := n.node.LinkSetUp(veth); err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	if err := n.node.NeighSet(neighbour(index, ip, podMAC(ip))); err != nil {
		return fmt.Errorf("adding the pod's neighbour entry: %w", err)
	}
	r := &netlink.Route{LinkIndex: index, Dst: ipNet(single(ip)), Scope: unix.RT_SCOPE_LINK, Protocol: routeProtocol}
	if err := n.node.RouteReplace(r); err != nil {
		return fmt.Errorf("adding the route to the pod: %w", err)
	}
	if ip6 := n.IP6(ip); ip6.IsValid() {
		return n.configureHost6(veth, ip, ip6)
	}
	return nil
}

// Teardown disconnects the pod and frees its address. It is no error when there
// is nothing to tear down.
func (n *Network) Teardown(ctx context.Context, podUID string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := n.deleteLink(linkName(podUID)); err != nil {
		return fmt.Errorf("disconnecting pod %s: %w", podUID, err)
	}
	failpoint.Hit("veth-deleted")
	defer n.cfg.Metrics.hold(n.addresses)
	return n.addresses.release(podUID)
}

// Retain tears down all pods but those named: what an earlier agent left when it
// died.
func (n *Network) Retain(ctx context.Context, podUIDs []string) error {
	keep := make(map[string]bool, len(podUIDs))
	for _, uid := range podUIDs {
		keep[uid] = true
		keep[linkName(uid)] = true
	}
	var errs []error
	for _, uid := range n.addresses.owners() {
		if !keep[uid] {
			errs = append(errs, n.Teardown(ctx, uid))
		}
	}
	links, err := n.node.LinkList()
	if err != nil {
		return fmt.Errorf("listing interfaces: %w", err)
	}
	for _, l := range links {
		if name := l.Attrs().Name; strings.HasPrefix(name, LinkPrefix) && !keep[name] {
			errs = append(errs, n.deleteLink(name))
		}
	}
	return errors.Join(errs...)
}

func (n *Network) deleteLink(name string) error {
	link, err := find(n.node, name)
	if err != nil || link == nil {
		return err
	}
	// The pod's namespace may take the pair along at any time.
	if err := n.node.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("deleting %s: %w", name, err)
	}
	return nil
}

// inside runs f on a thread in the node's namespace, whatever the caller's is:
// sysctls are reached by path, and the path leads to the thread's own.
func (n *Network) inside(f func() error) error {
	return osthread.Do(func() error {
		if err := unix.Setns(int(n.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
}

func writeSysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
		return fmt.Errorf("setting a sysctl: %w", err)
	}
	return nil
}

// find returns nil when there is no such link.
func find(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", name, err)
	}
	return link, nil
}

// linkName fits the kernel's limit of 15 characters.
func linkName(podUID string) string {
	return fmt.Sprintf("%s%x", LinkPrefix, sha256.Sum256([]byte(podUID)))[:15]
}

// podMAC is a locally administered address that carries the pod's own.
func podMAC(ip netip.Addr) net.HardwareAddr {
	b := ip.As4()
	return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
}

func neighbour(link int, ip netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: link, State: netlink.NUD_PERMANENT, Family: family(ip), IP: ip.AsSlice(), HardwareAddr: mac}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
