// Package hook puts eBPF programs at their places in the kernel such that they
// stay there: by links that are pinned or, on interfaces where the kernel has no
// tcx, by filters. An agent that comes later finds them, and puts its own
// programs into them in one step.
package hook

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Pinned is a program at its place in the kernel.
type Pinned struct {
	Pin     string
	Program *ebpf.Program
	// Belongs reports whether a link is to the place, and not to an earlier one that is gone or has
	// become another.
	Belongs func(*link.Info) bool
	Attach  func() (link.Link, error)
}

// Ensure attaches the program unless it is. With renew, it also puts this program
// into a link that is.
func (p Pinned) Ensure(renew bool) error {
	ok, err := p.reuse(renew)
	if ok || err != nil {
		return err
	}
	l, err := p.Attach()
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Pin(p.Pin); err != nil {
		return fmt.Errorf("pinning the link: %w", err)
	}
	return nil
}

// reuse reports whether the pin holds a link to the place. One that does not is unpinned.
func (p Pinned) reuse(renew bool) (bool, error) {
	l, err := link.LoadPinnedLink(p.Pin, nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening the pinned link: %w", err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("inspecting the pinned link: %w", err)
	}
	if !p.Belongs(info) {
		if err := l.Unpin(); err != nil {
			return false, fmt.Errorf("unpinning a link to another hook: %w", err)
		}
		return false, nil
	}
	if renew {
		if err := l.Update(p.Program); err != nil {
			return false, fmt.Errorf("replacing the program: %w", err)
		}
	}
	return true, nil
}

// Detach unpins a link. The kernel detaches its program with the last reference.
func Detach(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return fmt.Errorf("opening the pinned link: %w", err)
	}
	defer l.Close()
	if err := l.Unpin(); err != nil {
		return fmt.Errorf("unpinning the link: %w", err)
	}
	return nil
}

// filterPriority tells our filters from others' where the kernel has no tcx.
const filterPriority = 88

// Interface is a program on an interface of the calling thread's network
// namespace.
type Interface struct {
	// Pin is where the link is pinned; a filter needs none.
	Pin string
	// Name is the program's, by which filters are known.
	Name    string
	Program *ebpf.Program
	// Index is the interface's.
	Index int
	// Egress is for packets that leave by the interface, rather than come in.
	Egress bool
	// Filter tells filters on one side of an interface apart. Zero is 1.
	Filter uint32
	// Classic makes it a filter also where the kernel has tcx.
	Classic bool
}

// Ensure attaches the program unless it is. With renew, it also puts this program
// in place of one that is.
func (i Interface) Ensure(renew bool) error {
	err := link.ErrNotSupported
	if !i.Classic {
		at := ebpf.AttachTCXIngress
		if i.Egress {
			at = ebpf.AttachTCXEgress
		}
		err = Pinned{
			Pin: i.Pin, Program: i.Program,
			Belongs: func(info *link.Info) bool { return info.TCX() != nil && info.TCX().Ifindex == uint32(i.Index) },
			Attach: func() (link.Link, error) {
				return link.AttachTCX(link.TCXOptions{Interface: i.Index, Program: i.Program, Attach: at})
			},
		}.Ensure(renew)
	}
	if errors.Is(err, link.ErrNotSupported) {
		err = i.ensureFilter()
	}
	if err != nil {
		return fmt.Errorf("attaching %s to interface %d: %w", i.Name, i.Index, err)
	}
	return nil
}

// ensureFilter does what tcx does, on kernels before 6.6: a filter stays with
// its interface and needs no pin.
func (i Interface) ensureFilter() error {
	qdisc := &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: i.Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding clsact: %w", err)
	}
	return netlink.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: i.Index, Parent: i.parent(), Handle: max(i.Filter, 1), Priority: filterPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: i.Program.FD(), Name: i.Name, DirectAction: true,
	})
}

func (i Interface) parent() uint32 {
	if i.Egress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

// Remove detaches the program, if it is attached.
func (i Interface) Remove() error {
	if err := Detach(i.Pin); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("detaching %s from interface %d: %w", i.Name, i.Index, err)
	}
	l, err := netlink.LinkByIndex(i.Index)
	if err != nil {
		return nil //nolint:nilerr // the link is gone, and with it what was attached
	}
	return removeFilters(l, i.Name)
}

// RemoveFilters removes the filters of these names from all interfaces.
func RemoveFilters(names ...string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("listing interfaces: %w", err)
	}
	for _, l := range links {
		if err := removeFilters(l, names...); err != nil {
			return err
		}
	}
	return nil
}

func removeFilters(l netlink.Link, names ...string) error {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(l, parent)
		if err != nil {
			continue // without clsact there are none
		}
		for _, f := range filters {
			b, ok := f.(*netlink.BpfFilter)
			if !ok || b.Priority != filterPriority {
				continue
			}
			for _, name := range names {
				if b.Name != name {
					continue
				}
				if err := netlink.FilterDel(f); err != nil {
					return fmt.Errorf("removing a filter from %s: %w", l.Attrs().Name, err)
				}
			}
		}
	}
	return nil
}
