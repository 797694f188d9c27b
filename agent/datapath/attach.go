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
// cgroup. With renew, it also puts this agent's program into a link that is.
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
		pin := filepath.Join(d.cfg.PinPath, linksDir, h.program)
		if err := ensureLink(pin, dir, id, d.objects.Programs[h.program], h.attach, renew); err != nil {
			return fmt.Errorf("attaching %s to %s: %w", h.program, d.cfg.CgroupPath, err)
		}
	}
	return nil
}

func ensureLink(pin string, cgroup *os.File, id uint64, program *ebpf.Program, at ebpf.AttachType, renew bool) error {
	ok, err := reuseLink(pin, id, program, renew)
	if ok || err != nil {
		return err
	}
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(cgroup.Fd()), Program: program, Attach: at})
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("pinning the link: %w", err)
	}
	return nil
}

// reuseLink tells whether the pin holds a link to the cgroup with this id. One
// whose cgroup is gone, or is another, is unpinned.
func reuseLink(pin string, id uint64, program *ebpf.Program, renew bool) (bool, error) {
	l, err := link.LoadPinnedLink(pin, nil)
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
	if cg := info.Cgroup(); cg == nil || cg.CgroupId != id {
		if err := l.Unpin(); err != nil {
			return false, fmt.Errorf("unpinning a link to another cgroup: %w", err)
		}
		return false, nil
	}
	if renew {
		if err := l.Update(program); err != nil {
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
