package datapath

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

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

// eachHook makes sure that each hook's link is pinned and attached to the cgroup, the uplink, or
// what guards the overlay. With renew, it also puts this agent's program into a link that is.
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
	links := filepath.Join(d.cfg.PinPath, linksDir)
	for _, f := range d.families {
		if err := f.attachSockets(links, dir, id, renew); err != nil {
			return err
		}
	}
	for _, f := range d.families {
		if err := d.attachUplink(f, links, renew); err != nil {
			return err
		}
	}
	return d.overlay.attach(links, renew)
}
