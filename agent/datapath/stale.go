package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/internal/osthread"
)

// Sever closes the connected UDP sockets, in all network namespaces, whose
// endpoint is no longer one of its service's, and returns how many those were.
// The application's next read fails with ECONNABORTED, and writes with
// EDESTADDRREQ until it connects the socket again. Sockets that are connected past services are let be, and those
// that are not connected leave an endpoint by themselves.
func (d *Datapath) Sever() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	stale := make(map[uint32][]connectedPeer) // by namespace
	for _, f := range d.families {
		if err := f.refresh(); err != nil {
			return 0, err
		}
		all, err := f.connectedPeers()
		if err != nil {
			return 0, fmt.Errorf("listing the connected sockets: %w", err)
		}
		for _, p := range all {
			if !f.contents.serves(p) {
				stale[p.netns] = append(stale[p.netns], p)
			}
		}
	}
	return severIn(stale)
}

// serves tells whether the socket's endpoint is one of its service's.
func (c *contents) serves(p connectedPeer) bool {
	service, exists := c.services[Frontend{AddrPort: p.frontend, Protocol: UDP}]
	return exists && slices.Contains(service.backends, p.backend)
}

// connectedPeers returns the sockets that are connected by way of a service, and have not
// been connected elsewhere since.
func (f *family) connectedPeers() ([]connectedPeer, error) {
	if f.peers == nil {
		return nil, nil
	}
	it, err := link.AttachIter(link.IterOptions{Program: f.peers, Map: f.table(bpf.SocketLBMapPeers)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	file, err := it.Open()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	all, err := f.form.peers(file)
	return slices.DeleteFunc(all, func(p connectedPeer) bool { return p.remote != p.backend }), err
}

// severIn closes sockets by network namespace. A namespace is entered by way of
// a process in it: a socket without one has nobody to tell.
func severIn(stale map[uint32][]connectedPeer) (int, error) {
	if len(stale) == 0 {
		return 0, nil
	}
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return 0, err
	}
	severed := 0
	var errs []error
	for _, path := range paths {
		if len(stale) == 0 {
			break
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || stale[uint32(st.Ino)] == nil {
			continue
		}
		ns, err := os.Open(path)
		if err != nil {
			continue // the process has ended; another one may be there
		}
		n, err := destroy(ns, stale[uint32(st.Ino)])
		severed += n
		errs = append(errs, err, ns.Close())
		delete(stale, uint32(st.Ino))
	}
	return severed, errors.Join(errs...)
}

// destroy closes sockets of one network namespace.
func destroy(ns *os.File, list []connectedPeer) (int, error) {
	severed := 0
	err := osthread.Do(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		var errs []error
		for _, p := range list {
			req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
			req.AddData((*destroyRequest)(&p))
			switch _, err := req.Execute(unix.NETLINK_INET_DIAG, 0); {
			case err == nil:
				severed++
			case !errors.Is(err, unix.ENOENT): // it was closed meanwhile
				errs = append(errs, fmt.Errorf("closing a socket: %w", err))
			}
		}
		return errors.Join(errs...)
	})
	return severed, err
}

// destroyRequest asks for the end of one socket: struct inet_diag_req_v2.
type destroyRequest connectedPeer

// Len is part of nl.NetlinkRequestData.
func (r *destroyRequest) Len() int { return 56 }

// Serialize is part of nl.NetlinkRequestData.
func (r *destroyRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0], b[1] = unix.AF_INET, unix.IPPROTO_UDP
	if r.local.Addr().Is6() {
		b[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // any state
	binary.BigEndian.PutUint16(b[8:], r.local.Port())
	binary.BigEndian.PutUint16(b[10:], r.remote.Port())
	copy(b[12:28], r.local.Addr().AsSlice())
	copy(b[28:44], r.remote.Addr().AsSlice())
	binary.NativeEndian.PutUint32(b[48:], uint32(r.cookie))
	binary.NativeEndian.PutUint32(b[52:], uint32(r.cookie>>32))
	return b
}
