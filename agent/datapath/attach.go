package datapath

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/hook"
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
		err := hook.Pinned{
			Pin:     filepath.Join(d.cfg.PinPath, linksDir, h.program),
			Program: program,
			Belongs: func(i *link.Info) bool { return i.Cgroup() != nil && i.Cgroup().CgroupId == id },
			Attach: func() (link.Link, error) {
				return link.AttachRawLink(link.RawLinkOptions{Target: int(dir.Fd()), Program: program, Attach: h.attach})
			},
		}.Ensure(renew)
		if err != nil {
			return fmt.Errorf("attaching %s to %s: %w", h.program, d.cfg.CgroupPath, err)
		}
	}
	if err := d.six.attach(filepath.Join(d.cfg.PinPath, linksDir), dir, id, renew); err != nil {
		return err
	}
	return d.eachUplinkHook(renew)
}
