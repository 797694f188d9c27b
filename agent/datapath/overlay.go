package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/hook"
)

// podFilter is the guard's number among the filters of a pod's interface, whose others are
// those of policies.
const podFilter = 3

// overlay guards the node's end of the overlay: only other nodes may send encapsulated packets.
type overlay struct {
	cfg     *Config
	objects *ebpf.Collection
}

// overlayPort returns the overlay's port as programs have it; 0: there is no overlay.
func (c *Config) overlayPort() uint16 {
	if c.OverlayLink == "" {
		return 0
	}
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, c.OverlayPort))
}

// loadOverlay loads the guards, with maps pinned in a directory. It returns nil if there is no
// overlay.
func loadOverlay(cfg *Config, maps string) (*overlay, error) {
	if cfg.OverlayLink == "" || !cfg.NodeIP.IsValid() {
		return nil, nil
	}
	if cfg.OverlayPort == 0 {
		return nil, errors.New("the overlay has no port")
	}
	spec, err := bpf.LoadOverlay()
	if err != nil {
		return nil, fmt.Errorf("reading the overlay's programs: %w", err)
	}
	if err := spec.Variables[bpf.OverlayVarOverlayPort].Set(cfg.overlayPort()); err != nil {
		return nil, fmt.Errorf("configuring the overlay's programs: %w", err)
	}
	objects, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: maps}})
	if err != nil {
		return nil, fmt.Errorf("loading the overlay's programs (maps pinned in %s): %w", maps, err)
	}
	o := &overlay{cfg: cfg, objects: objects}
	have, err := o.nodes()
	if err == nil && len(have) == 0 {
		// Before the programs are in place: otherwise an agent that is the first to guard the overlay
		// would cut it until it knows the nodes.
		err = o.setNodes(cfg.OverlayNodes)
	}
	if err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *overlay) close() {
	if o != nil {
		o.objects.Close()
	}
}

// nodes returns the addresses that the map holds.
func (o *overlay) nodes() (map[netip.Addr]bool, error) {
	out := make(map[netip.Addr]bool)
	var k [4]byte
	var v uint8
	it := o.objects.Maps[bpf.OverlayMapOverlayNodes].Iterate()
	for it.Next(&k, &v) {
		out[netip.AddrFrom4(k)] = true
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("listing the overlay's nodes: %w", err)
	}
	return out, nil
}

func (o *overlay) setNodes(all []netip.Addr) error {
	m := o.objects.Maps[bpf.OverlayMapOverlayNodes]
	gone, err := o.nodes()
	if err != nil {
		return err
	}
	for _, a := range all {
		if !a.Is4() || a == o.cfg.NodeIP {
			continue
		}
		delete(gone, a)
		if err := m.Put(a.As4(), uint8(1)); err != nil {
			return fmt.Errorf("adding %v to the nodes of the overlay: %w", a, err)
		}
	}
	for a := range gone {
		if err := m.Delete(a.As4()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("removing %v from the nodes of the overlay: %w", a, err)
		}
	}
	return nil
}

// attach makes sure that the guards are at the network namespace of the calling thread, and
// at the interfaces of its pods.
func (o *overlay) attach(links string, renew bool) error {
	if o == nil {
		return removeOverlayGuards(links, renew)
	}
	if err := o.attachNamespace(links, renew); err != nil {
		return err
	}
	all, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("listing interfaces: %w", err)
	}
	exists := make(map[int]bool, len(all))
	for _, l := range all {
		exists[l.Attrs().Index] = true
		if o.cfg.PodLinkPrefix == "" || !strings.HasPrefix(l.Attrs().Name, o.cfg.PodLinkPrefix) {
			continue
		}
		err := o.pod(links, l.Attrs().Index).Ensure(renew)
		if _, findErr := netlink.LinkByIndex(l.Attrs().Index); err != nil && findErr == nil {
			return err // otherwise the pod has gone meanwhile
		}
	}
	return unpinGuards(links, func(index int) bool { return !exists[index] })
}

func (o *overlay) attachNamespace(links string, renew bool) error {
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("opening the network namespace: %w", err)
	}
	defer ns.Close()
	st, err := ns.Stat()
	if err != nil {
		return fmt.Errorf("opening the network namespace: %w", err)
	}
	inode := uint32(st.Sys().(*syscall.Stat_t).Ino)
	program := o.objects.Programs[bpf.OverlayProgOverlayGuard]
	err = hook.Pinned{
		Pin: filepath.Join(links, bpf.OverlayProgOverlayGuard), Program: program,
		Belongs: func(i *link.Info) bool { return i.NetNs() != nil && i.NetNs().NetnsInode == inode },
		Attach:  func() (link.Link, error) { return link.AttachNetNs(int(ns.Fd()), program) },
	}.Ensure(renew)
	if err != nil {
		return fmt.Errorf("attaching %s to the network namespace: %w", bpf.OverlayProgOverlayGuard, err)
	}
	return nil
}

// pod is the guard at a pod's interface on the node.
func (o *overlay) pod(links string, index int) hook.Interface {
	return hook.Interface{
		Pin: filepath.Join(links, fmt.Sprintf("%s-%d", bpf.OverlayProgPodOverlay, index)), Name: bpf.OverlayProgPodOverlay,
		Program: o.objects.Programs[bpf.OverlayProgPodOverlay], Index: index, Filter: podFilter, Classic: o.cfg.ClassicTC,
	}
}

// unpinGuards unpins the guards of interfaces.
func unpinGuards(links string, gone func(index int) bool) error {
	pins, err := os.ReadDir(links)
	if err != nil {
		return fmt.Errorf("listing the pinned links: %w", err)
	}
	for _, pin := range pins {
		text, is := strings.CutPrefix(pin.Name(), bpf.OverlayProgPodOverlay+"-")
		if index, err := strconv.Atoi(text); !is || err != nil || !gone(index) {
			continue
		}
		if err := hook.Detach(filepath.Join(links, pin.Name())); err != nil {
			return err
		}
	}
	return nil
}

// removeOverlayGuards removes what an agent that had an overlay attached.
func removeOverlayGuards(links string, filters bool) error {
	if filters {
		if err := hook.RemoveFilters(bpf.OverlayProgPodOverlay); err != nil {
			return err
		}
	}
	if err := unpinGuards(links, func(int) bool { return true }); err != nil {
		return err
	}
	if err := hook.Detach(filepath.Join(links, bpf.OverlayProgOverlayGuard)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// SetOverlayNodes says from which addresses encapsulated packets are taken: those of the other
// nodes. It does nothing if there is no overlay.
func (d *Datapath) SetOverlayNodes(nodes []netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.overlay == nil {
		return nil
	}
	return d.overlay.setNodes(nodes)
}

// GuardPod drops encapsulated packets that the pod behind an interface sends, before anything of
// the pod runs. The interface is in the network namespace of the calling thread.
func (d *Datapath) GuardPod(index int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.overlay == nil {
		return nil
	}
	return d.overlay.pod(filepath.Join(d.cfg.PinPath, linksDir), index).Ensure(false)
}

// AttachOverlay puts the programs in place at the overlay's interface, which comes and goes with
// the nodes that it leads to.
func (d *Datapath) AttachOverlay() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.attached {
		return nil
	}
	for _, f := range d.families {
		if err := d.attachOverlay(f, filepath.Join(d.cfg.PinPath, linksDir), false); err != nil {
			return err
		}
	}
	return nil
}
