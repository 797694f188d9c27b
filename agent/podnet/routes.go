package podnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// repairEvery is how often the routes are compared with what they should be.
const repairEvery = 30 * time.Second

// NodeRoute says which node has which pods.
type NodeRoute struct {
	// PodCIDR is the node's.
	PodCIDR netip.Prefix
	// NodeIP is the node's address, on the same network as our own.
	NodeIP netip.Addr
}

// SetNodes makes the routes to other nodes' pods those given and no others; the
// node's own is left out. Routes of other protocols are not touched. One that
// cannot be set does not keep the others from being set.
func (n *Network) SetNodes(nodes []NodeRoute) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.routes, n.known = n.wanted(nodes), true
	return n.repairRoutes()
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
	routes := n.wanted(nodes)
	have, err := n.listRoutes()
	if err != nil {
		return err
	}
	for _, r := range have {
		if r.Gw != nil && r.Dst != nil {
			routes[prefix(r)] = addr(r)
		}
	}
	n.routes, n.known = routes, true
	return n.repairRoutes()
}

// wanted returns the gateways of the other nodes' pods.
func (n *Network) wanted(nodes []NodeRoute) map[netip.Prefix]netip.Addr {
	routes := make(map[netip.Prefix]netip.Addr, len(nodes))
	for _, r := range nodes {
		if r.PodCIDR == n.cfg.PodCIDR || r.NodeIP == n.cfg.NodeIP || !r.PodCIDR.IsValid() || !r.NodeIP.Is4() {
			continue
		}
		routes[r.PodCIDR.Masked()] = r.NodeIP
	}
	return routes
}

func (n *Network) listRoutes() ([]netlink.Route, error) {
	have, err := n.node.RouteListFiltered(unix.AF_INET, &netlink.Route{Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN},
		netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	return have, nil
}

// repairRoutes writes what differs. The caller holds n.mu.
func (n *Network) repairRoutes() error {
	if !n.known {
		return nil
	}
	n.cfg.Metrics.routes.Set(float64(len(n.routes)))
	have, err := n.listRoutes()
	if err != nil {
		return err
	}
	var errs []error
	missing := make(map[netip.Prefix]netip.Addr, len(n.routes))
	for cidr, via := range n.routes {
		missing[cidr] = via
	}
	for _, r := range have {
		if r.Gw == nil || r.Dst == nil {
			continue // a pod's own, or an unreachable rest
		}
		cidr, via := prefix(r), addr(r)
		if want, ok := n.routes[cidr]; ok {
			if want == via {
				delete(missing, cidr)
			}
			continue // another gateway is replaced below, without a gap
		}
		if err := n.node.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("deleting the route to %v: %w", cidr, err))
		}
	}
	for cidr, via := range missing {
		r := &netlink.Route{Dst: ipNet(cidr), Gw: via.AsSlice(), Protocol: routeProtocol}
		if err := n.node.RouteReplace(r); err != nil {
			errs = append(errs, fmt.Errorf("adding the route to %v via %v: %w", cidr, via, err))
		}
	}
	return errors.Join(errs...)
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
			log.Warn("Could not repair the node's routes", zap.Error(err))
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
				waiting = u.Flags&unix.IFF_RUNNING == 0 || strings.HasPrefix(u.Attrs().Name, linkPrefix)
			case <-tick.C:
				waiting = false
			}
		}
	}
}

func prefix(r netlink.Route) netip.Prefix {
	a, _ := netip.AddrFromSlice(r.Dst.IP.To4())
	bits, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(a, bits)
}

func addr(r netlink.Route) netip.Addr {
	a, _ := netip.AddrFromSlice(r.Gw.To4())
	return a
}
