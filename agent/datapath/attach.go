package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/xebec-project/xebec/agent/bpf"
)

// hooks are the programs in the order in which they are attached: the way back
// first, so that no reply shows an endpoint where the application expects the
// service.
var hooks = []struct {
	program string
	attach  ebpf.AttachType
}{
	{bpf.SocketLBProgRecvmsg4, ebpf.AttachCGroupUDP4Recvmsg},
	{bpf.SocketLBProgRecvmsg6, ebpf.AttachCGroupUDP6Recvmsg},
	{bpf.SocketLBProgGetpeername4, ebpf.AttachCgroupInet4GetPeername},
	{bpf.SocketLBProgGetpeername6, ebpf.AttachCgroupInet6GetPeername},
	{bpf.SocketLBProgSendmsg4, ebpf.AttachCGroupUDP4Sendmsg},
	{bpf.SocketLBProgSendmsg6, ebpf.AttachCGroupUDP6Sendmsg},
	{bpf.SocketLBProgConnect4, ebpf.AttachCGroupInet4Connect},
	{bpf.SocketLBProgConnect6, ebpf.AttachCGroupInet6Connect},
}

// attach puts every program in place, replacing an earlier agent's atomically,
// and then drops what earlier layouts left. The caller holds d.mu or is the
// only one to know d.
func (d *Datapath) attach() error {
	if err := d.eachHook(true); err != nil {
		return err
	}
	d.attached = true
	return d.removeOtherLayouts()
}

// eachHook makes sure that each hook's link is pinned and attached to the
// cgroup, or the uplink. With renew, it also puts this agent's program into a link that is.
func (d *Datapath) eachHook(renew bool) error {
	dir, err := os.Open(d.cfg.CgroupPath)
	if err != nil {
		return fmt.Errorf("opening the cgroup: %w", err)
	}
	defer dir.Close()
	st, err := dir.Stat()
	if err != nil {
		return fmt.Errorf("opening the cgroup: %w", err)
	}
	id := st.Sys().(*syscall.Stat_t).Ino // in cgroup v2 a directory's inode number is the cgroup's id
	for _, h := range hooks {
		program := d.objects.Programs[h.program]
		err := pinnedLink{
			pin:     filepath.Join(d.cfg.PinPath, linksDir, h.program),
			program: program,
			belongs: func(i *link.Info) bool { return i.Cgroup() != nil && i.Cgroup().CgroupId == id },
			attach: func() (link.Link, error) {
				return link.AttachRawLink(link.RawLinkOptions{Target: int(dir.Fd()), Program: program, Attach: h.attach})
			},
		}.ensure(renew)
		if err != nil {
			return fmt.Errorf("attaching %s to %s: %w", h.program, d.cfg.CgroupPath, err)
		}
	}
	return d.eachUplinkHook(renew)
}

// pinnedLink is a program at its place in the kernel.
type pinnedLink struct {
	pin     string
	program *ebpf.Program
	// belongs tells whether a link is to the place, and not to an earlier one
	// that is gone or has become another.
	belongs func(*link.Info) bool
	attach  func() (link.Link, error)
}

// ensure attaches the program unless it is. With renew, it also puts this
// program into a link that is.
func (p pinnedLink) ensure(renew bool) error {
	ok, err := p.reuse(renew)
	if ok || err != nil {
		return err
	}
	l, err := p.attach()
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Pin(p.pin); err != nil {
		return fmt.Errorf("pinning the link: %w", err)
	}
	return nil
}

// reuse tells whether the pin holds a link to the place. One that does not is
// unpinned.
func (p pinnedLink) reuse(renew bool) (bool, error) {
	l, err := link.LoadPinnedLink(p.pin, nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening the pinned link: %w", err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("asking the pinned link: %w", err)
	}
	if !p.belongs(info) {
		if err := l.Unpin(); err != nil {
			return false, fmt.Errorf("unpinning a link to another place: %w", err)
		}
		return false, nil
	}
	if renew {
		if err := l.Update(p.program); err != nil {
			return false, fmt.Errorf("replacing the program: %w", err)
		}
	}
	return true, nil
}

// detach unpins a link. The kernel detaches its program with the last reference.
func detach(pin string) error {
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
