package podnet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// repairEvery is how often the routes are compared with what they should be.
const repairEvery = 30 * time.Second

// NodeRoute says which node has which pods. A node with pods of both address
// families has a route for each.
type NodeRoute struct {
	// PodCIDR is the node's.
	PodCIDR netip.Prefix
	// NodeIP is the node's IPv4 address. Encapsulated packets go there.
	NodeIP netip.Addr
	// NodeIP6 is the node's IPv6 address, if it has one. Without, its IPv6 pods
	// can be reached through the overlay only.
	NodeIP6 netip.Addr
}

// hop is how another node's pods are reached.
type hop struct {
	via netip.Addr
	// overlay says that packets are encapsulated, and go to the node.
	overlay bool
	node    netip.Addr
}

// SetNodes makes the routes to other nodes' pods those given and no others; the
// node's own is left out. Routes of other protocols are not touched. One that
// cannot be set does not keep the others from being set.
func (n *Network) SetNodes(nodes []NodeRoute) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	routes, err := n.wanted(nodes)
	n.routes, n.known = routes, true
	return errors.Join(err, n.repairRoutes())
}

// Reached returns the networks of the pods that the node has a way to: its own and those of the
// nodes that SetNodes could make routes to.
func (n *Network) Reached() []netip.Prefix {
	n.mu.Lock()
	defer n.mu.Unlock()
	reached := slices.Collect(maps.Keys(n.routes))
	for _, own := range []netip.Prefix{n.cfg.PodCIDR, n.cfg.PodCIDR6} {
		if own.IsValid() {
			reached = append(reached, own.Masked())
		}
	}
	return reached
}

// RestoreNodes adds the routes that are missing and removes none: those that an
// earlier agent left in the kernel may be newer than what is remembered. After
// SetNodes it does nothing.
func (n *Network) RestoreNodes(nodes []NodeRoute) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known {
		return nil
	}
	routes, err := n.wanted(nodes)
	have, listErr := n.listRoutes()
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	for cidr, r := range have {
		if r.hop.overlay || r.direct {
			routes[cidr] = r.hop
		}
	}
	n.routes, n.known = routes, true
	return errors.Join(err, n.repairRoutes())
}

// wanted returns how the other nodes' pods are reached, and an error that names
// those that cannot be.
func (n *Network) wanted(nodes []NodeRoute) (map[netip.Prefix]hop, error) {
	routes := make(map[netip.Prefix]hop, len(nodes))
	var errs []error
	for _, r := range nodes {
		if r.PodCIDR == n.cfg.PodCIDR || r.NodeIP == n.cfg.NodeIP || !r.PodCIDR.IsValid() || !r.NodeIP.Is4() {
			continue
		}
		if r.PodCIDR.Addr().Is6() && !n.cfg.dualStack() {
			continue // no host here could answer
		}
		h, err := n.hopTo(r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		routes[r.PodCIDR.Masked()] = h
	}
	return routes, errors.Join(errs...)
}

// hopTo decides how a node's pods are reached.
func (n *Network) hopTo(r NodeRoute) (hop, error) {
	if r.PodCIDR.Addr().Is6() {
		return n.hopTo6(r)
	}
	if n.Encapsulates(r.NodeIP) {
		return hop{via: r.NodeIP, overlay: true, node: r.NodeIP}, nil
	}
	if !n.uplink.Contains(r.NodeIP) {
		return hop{}, fmt.Errorf(
			"the pods %v of the node %v are unreachable: the node is not on this node's network %v, and the overlay is disabled",
			r.PodCIDR,
			r.NodeIP,
			n.uplink,
		)
	}
	return hop{via: r.NodeIP, node: r.NodeIP}, nil
}

// kernelRoute is a route to another node's pods as the kernel has it.
type kernelRoute struct {
	netlink.Route
	hop hop
	// direct tells that it goes by way of the node's own network.
	direct bool
}

// listRoutes returns our routes to other nodes' pods. One that is neither direct
// nor through the overlay as we would have it has to go.
func (n *Network) listRoutes() (map[netip.Prefix]kernelRoute, error) {
	out := make(map[netip.Prefix]kernelRoute)
	families := []int{unix.AF_INET}
	if n.cfg.dualStack() {
		families = append(families, unix.AF_INET6)
	}
	var list []netlink.Route
	for _, family := range families {
		routes, err := n.node.RouteListFiltered(family, &netlink.Route{Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN},
			netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("listing routes: %w", err)
		}
		list = append(list, routes...)
	}
	for _, r := range list {
		if r.Gw == nil || r.Dst == nil {
			continue // a pod's own, or an unreachable rest
		}
		via, _ := netip.AddrFromSlice(r.Gw)
		via = via.Unmap()
		k := kernelRoute{Route: r, hop: hop{via: via, node: via}}
		if via.Is6() {
			// A direct route does not name its node; the next hop identifies it.
			k.hop.node = nodeOfGateway6(via)
		}
		if n.overlayIndex != 0 && r.LinkIndex == n.overlayIndex {
			k.hop.overlay = n.isOurs(r) && k.hop.node.IsValid()
		} else {
			k.direct = true
		}
		out[prefix(r)] = k
	}
	return out, nil
}

// isOurs reports whether a route through the overlay has the source that we give it.
func (n *Network) isOurs(r netlink.Route) bool {
	src, ok := netip.AddrFromSlice(r.Src)
	return ok && src.Unmap() == n.overlaySource(prefix(r))
}

// repairRoutes writes what differs. The caller holds n.mu.
func (n *Network) repairRoutes() error {
	if !n.known {
		return nil
	}
	n.cfg.Metrics.routes.Set(float64(len(n.routes)))
	errs := []error{n.ensureOverlay()}
	have, err := n.listRoutes()
	if err != nil {
		return err
	}
	wantPeers, havePeers := n.wantedPeers(), peers{}
	if n.overlayIndex != 0 {
		if havePeers, err = n.listPeers(wantPeers); err != nil {
			return err
		}
		errs = append(errs, n.addPeers(havePeers, wantPeers))
	}
	for cidr, r := range have {
		if _, wanted := n.routes[cidr]; wanted {
			continue // another next hop is replaced below, without a gap
		}
		if err := n.node.RouteDel(&r.Route); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("deleting the route to %v: %w", cidr, err))
		}
	}
	for cidr, want := range n.routes {
		if r, ok := have[cidr]; ok && r.hop.via == want.via && r.hop.overlay == want.overlay && (r.direct || want.overlay) {
			continue
		}
		if err := n.node.RouteReplace(n.route(cidr, want)); err != nil {
			errs = append(errs, fmt.Errorf("adding the route to %v via %v: %w", cidr, want.via, err))
		}
	}
	if err := errors.Join(append(errs, n.removePeers(havePeers, wantPeers))...); err != nil {
		return err
	}
	return n.dropOverlay()
}

func (n *Network) route(cidr netip.Prefix, h hop) *netlink.Route {
	r := &netlink.Route{Dst: ipNet(cidr), Gw: h.via.AsSlice(), Protocol: routeProtocol}
	if h.overlay {
		r.LinkIndex, r.Flags = n.overlayIndex, int(netlink.FLAG_ONLINK)
		r.Src = n.overlaySource(cidr).AsSlice()
	}
	return r
}

// overlaySource is the node's address in the overlay, of the family of a range.
func (n *Network) overlaySource(cidr netip.Prefix) netip.Addr {
	if cidr.Addr().Is6() {
		return OverlayAddress(n.cfg.PodCIDR6)
	}
	return OverlayAddress(n.cfg.PodCIDR)
}

// Run puts back what others, or an interface that went down, took away: the
// routes between the nodes and the addresses and routes of New. It ends with the
// context and returns its error.
func (n *Network) Run(ctx context.Context, log *zap.Logger) error {
	updates := make(chan netlink.LinkUpdate, 64)
	ns := netns.NsHandle(n.namespace.Fd())
	err := netlink.LinkSubscribeWithOptions(updates, ctx.Done(), netlink.LinkSubscribeOptions{
		Namespace:     &ns,
		ErrorCallback: func(err error) { log.Debug("Link subscription failed", zap.Error(err)) },
	})
	if err != nil {
		return fmt.Errorf("watching the node's interfaces: %w", err)
	}
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	for {
		n.mu.Lock()
		err := errors.Join(n.ensureBase(), n.repairRoutes())
		n.mu.Unlock()
		if err != nil {
			n.cfg.Metrics.repairFailures.Inc()
			log.Warn("Failed to repair the node's routes", zap.Error(err))
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case u, ok := <-updates:
				if !ok {
					updates = nil // the subscription broke: the ticker remains
					continue
				}
				switch name := u.Attrs().Name; {
				case name == OverlayLink:
					// Removed, or down: only the agent restores it.
					waiting = u.Header.Type != unix.RTM_DELLINK && u.Flags&unix.IFF_UP != 0
				case strings.HasPrefix(name, LinkPrefix):
				default:
					waiting = u.Flags&unix.IFF_RUNNING == 0
				}
			case <-tick.C:
				waiting = false
			}
		}
	}
}

func prefix(r netlink.Route) netip.Prefix {
	a, _ := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
