// Package datapath routes services on one node. Its pure part, Table, turns
// services and endpoint slices into the contents that the eBPF maps should
// have. Its kernel part, Datapath, loads and pins the programs of package bpf
// and writes what differs into the maps. Syncer joins the two.
//
// Maps and links are pinned: connections are made and kept while no agent runs,
// and the next agent finds what the last one left.
package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/hook"
)

// layout names the directory of the pinned maps. It changes whenever a map's
// key, value, type or size does: the new agent then fills maps of its own and
// switches the programs over once they are full.
const layout = "maps-v2"

// linksDir holds the pinned links, which outlive a change of layout.
const linksDir = "links"

// Config says where a node's datapath lives.
type Config struct {
	// PinPath is a directory on a bpf file system, the datapath's alone. It is
	// created when it does not exist.
	PinPath string
	// CgroupPath is the directory in cgroup v2 whose processes' sockets are
	// balanced: the root on a host of its own.
	CgroupPath string
	// NodeIP is the node's address, which node ports are opened at. The interface
	// that has it, in the network namespace of the calling thread, is the uplink.
	// Invalid: nothing is done to what arrives from elsewhere or leaves.
	NodeIP netip.Addr
	// PodCIDR is where the node's pods have their addresses. What they send to
	// other networks than SetClusterNetworks names leaves with the node's
	// address. Invalid: it leaves as it is.
	PodCIDR netip.Prefix
	// ClusterCIDR holds the pods of all nodes. It counts as named until
	// SetClusterNetworks is called.
	ClusterCIDR netip.Prefix
	// OverlayLink is the interface through which packets to other networks' nodes
	// are encapsulated, which is there only while there are such nodes. OverlayIP is
	// the node's address there, from which it sends what arrives for pods behind it.
	// Empty: there is no overlay.
	OverlayLink string
	OverlayIP   netip.Addr
	// OverlayPort is the UDP port of encapsulated packets, which are taken from other
	// nodes only: see SetOverlayNodes.
	OverlayPort uint16
	// OverlayNodes are the addresses of the other nodes as far as they are known before
	// SetOverlayNodes is called. They are used if no earlier agent left any.
	OverlayNodes []netip.Addr
	// PodLinkPrefix begins the names of the pods' interfaces on the node.
	PodLinkPrefix string
	// IPv6 balances sockets that talk IPv6 as well: the cluster is dual-stack.
	// Without, frontends with IPv6 addresses are passed over.
	IPv6 bool
	// NodeIP6, PodCIDR6, ClusterCIDR6 and OverlayIP6 are for IPv6 what those above are
	// for IPv4.
	NodeIP6                netip.Addr
	PodCIDR6, ClusterCIDR6 netip.Prefix
	OverlayIP6             netip.Addr
	// ClassicTC attaches the uplink's programs as clsact filters, as is done on
	// kernels before 6.6, also where the kernel has tcx.
	ClassicTC bool
	// Listing is how connected UDP sockets are found. Empty: by the best method that the
	// kernel allows.
	Listing Listing
	// PolicyMaps are those of the network policies of the node's pods, by which what
	// goes into a pod straight from the uplink is judged. Nil: nothing is.
	PolicyMaps map[string]*ebpf.Map
	// Metrics report the contents of the maps. Nil: there are none.
	Metrics *Metrics
}

// Datapath is the loaded datapath of a node. Its methods may be called
// concurrently. Only one Datapath at a time may use a PinPath.
type Datapath struct {
	cfg     Config
	support *support

	// families has IPv4 first, and IPv6 where the cluster has it.
	families []*family
	overlay  *overlay // nil: there is none

	mu        sync.Mutex
	announcer announcer
	// attached is set once the programs are in place.
	attached bool
	fresh    bool
}

// Load opens the maps that an earlier agent pinned, or makes them, and attaches
// the programs. Where the pinned maps are of another layout, the old programs
// stay in place until the first Replace.
func Load(cfg Config) (*Datapath, error) {
	if err := checkFilesystem(cfg.CgroupPath, unix.CGROUP2_SUPER_MAGIC, "a cgroup v2 directory"); err != nil {
		return nil, err
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raising the limit of locked memory: %w", err)
	}
	if err := probe(); err != nil {
		return nil, err
	}
	maps := filepath.Join(cfg.PinPath, layout)
	links := filepath.Join(cfg.PinPath, linksDir)
	_, err := os.Stat(filepath.Join(maps, bpf.SocketLBMapServices))
	found := err == nil
	for _, dir := range []string{maps, links} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("creating the directory for pins: %w", err)
		}
	}
	if err := checkFilesystem(cfg.PinPath, unix.BPF_FS_MAGIC, "on a bpf file system (mount -t bpf)"); err != nil {
		return nil, err
	}

	d := &Datapath{cfg: cfg, fresh: !found}
	d.families = append(d.families, &family{
		programs: programs4, node: cfg.NodeIP, overlay: cfg.OverlayIP, pods: cfg.PodCIDR, cluster: cfg.ClusterCIDR, reload: true,
	})
	if cfg.IPv6 {
		d.families = append(d.families, &family{
			programs: programs6, node: cfg.NodeIP6, overlay: cfg.OverlayIP6, pods: cfg.PodCIDR6, cluster: cfg.ClusterCIDR6, reload: true,
		})
	}
	d.support, err = probeSupport(cfg.Listing, d.families)
	for _, f := range d.families {
		if err != nil {
			break
		}
		err = f.load(maps, cfg.PolicyMaps, d.support, cfg.overlayPort())
	}
	if err == nil {
		d.overlay, err = loadOverlay(&d.cfg, maps)
	}
	if err == nil {
		err = d.start(found, links)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	cfg.Metrics.provide(d.Features())
	cfg.Metrics.source.Store(d)
	return d, nil
}

func (d *Datapath) start(foundMaps bool, links string) error {
	for _, f := range d.families {
		if err := f.refresh(); err != nil {
			return err
		}
	}
	pinned, err := os.ReadDir(links)
	if err != nil {
		return fmt.Errorf("listing the pinned links: %w", err)
	}
	if foundMaps || len(pinned) == 0 {
		return d.attach()
	}
	return nil
}

// Fresh reports whether Load found no maps of an earlier agent: they are empty, and what is
// remembered of the cluster is better than nothing.
func (d *Datapath) Fresh() bool { return d.fresh }

// Close lets go of the maps and programs and leaves them at work.
func (d *Datapath) Close() error {
	d.cfg.Metrics.source.CompareAndSwap(d, nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.families {
		f.close()
	}
	d.overlay.close()
	return d.announcer.leave(nil)
}

// Remove detaches the programs pinned under the path and removes all pins.
// Connections that exist go on. It is no error when there is nothing.
func Remove(pinPath string) error {
	links := filepath.Join(pinPath, linksDir)
	entries, err := os.ReadDir(links)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listing the pinned links: %w", err)
	}
	for _, e := range entries {
		if err := hook.Detach(filepath.Join(links, e.Name())); err != nil {
			return err
		}
	}
	if err := hook.RemoveFilters(
		programs4.toUplink, programs4.fromUplink, programs6.toUplink, programs6.fromUplink, bpf.OverlayProgPodOverlay,
	); err != nil {
		return err
	}
	if err := os.RemoveAll(pinPath); err != nil {
		return fmt.Errorf("removing the pins: %w", err)
	}
	return nil
}

// familyOf returns the family of an address, nil if the node has it not.
func (d *Datapath) familyOf(a netip.Addr) *family {
	for _, f := range d.families {
		if f.has(a) {
			return f
		}
	}
	return nil
}

// retired are maps that earlier agents had in the same layout.
var retired = []string{"counters"}

// removeOtherLayouts drops the maps of earlier agents that this one has not.
func (d *Datapath) removeOtherLayouts() error {
	for _, name := range retired {
		if err := os.Remove(filepath.Join(d.cfg.PinPath, layout, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing an unused map: %w", err)
		}
	}
	entries, err := os.ReadDir(d.cfg.PinPath)
	if err != nil {
		return fmt.Errorf("listing the pins: %w", err)
	}
	for _, e := range entries {
		if e.Name() == layout || !strings.HasPrefix(e.Name(), "maps-") {
			continue
		}
		if err := os.RemoveAll(filepath.Join(d.cfg.PinPath, e.Name())); err != nil {
			return fmt.Errorf("removing maps of another layout: %w", err)
		}
	}
	return nil
}

// probe names what the kernel lacks. What is optional is not asked here.
func probe() error {
	needs := []struct {
		what, since string
		err         func() error
	}{
		{"cgroup socket address programs", "4.17", func() error { return features.HaveProgramType(ebpf.CGroupSockAddr) }},
		{"socket storage", "5.2", func() error { return features.HaveMapType(ebpf.SkStorage) }},
		{"network namespace cookies in socket programs", "5.8", func() error {
			return features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnGetNetnsCookie)
		}},
		{"socket storage in socket programs", "5.8", func() error {
			return features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnSkStorageGet)
		}},
	}
	for _, n := range needs {
		if err := n.err(); err != nil {
			return fmt.Errorf("this kernel has no %s (Linux %s and later do): %w", n.what, n.since, err)
		}
	}
	return nil
}

// netnsCookie tells the thread's network namespace apart from all others, as programs
// do. Before Linux 5.14 there is none: node ports are not reached by loopback then.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening a socket: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("reading the cookie of the network namespace: %w", err)
	}
	return cookie, nil
}

func checkFilesystem(path string, magic int64, what string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if st.Type != magic {
		return fmt.Errorf("%s is not %s", path, what)
	}
	return nil
}
