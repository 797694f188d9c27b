package datapath

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/internal/osthread"
)

// loadPeers loads the iterator over connected sockets. Nil means that the kernel
// has none, or does not describe its types: connected UDP sockets then keep
// endpoints that are gone, and all else works.
func loadPeers() (*ebpf.Program, error) {
	spec, err := bpf.LoadStalePeers()
	if err != nil {
		return nil, fmt.Errorf("reading the iterator over connected sockets: %w", err)
	}
	p, err := ebpf.NewProgram(spec.Programs[bpf.StalePeersProgConnectedPeers])
	if err != nil {
		return nil, nil
	}
	return p, nil
}

// Sever closes the connected UDP sockets, in all network namespaces, whose
// endpoint is no longer one of its service's, and returns how many those were.
// The application's next read fails with ECONNABORTED, and writes with
// EDESTADDRREQ until it connects the socket again. Sockets that are connected past services are let be, and those
// that are not connected leave an endpoint by themselves.
func (d *Datapath) Sever() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.peers == nil {
		return 0, nil
	}
	if err := d.refresh(); err != nil {
		return 0, err
	}
	all, err := d.connectedPeers()
	if err != nil {
		return 0, fmt.Errorf("listing the connected sockets: %w", err)
	}
	stale := make(map[uint32][]bpf.StalePeersConnectedPeer) // by namespace
	for _, p := range all {
		if p.Remote == p.Peer.Backend && !d.contents.serves(p) {
			stale[p.Netns] = append(stale[p.Netns], p)
		}
	}
	return severIn(stale)
}

// serves tells whether the socket's endpoint is one of its service's.
func (c *contents) serves(p bpf.StalePeersConnectedPeer) bool {
	service, exists := c.services[bpf.SocketLBFrontend{Addr: p.Peer.Frontend.Addr, Port: p.Peer.Frontend.Port, Protocol: uint8(UDP)}]
	return exists && slices.Contains(service.backends, netip.AddrPortFrom(address(p.Peer.Backend.Addr), bits.ReverseBytes16(p.Peer.Backend.Port)))
}

func (d *Datapath) connectedPeers() ([]bpf.StalePeersConnectedPeer, error) {
	it, err := link.AttachIter(link.IterOptions{Program: d.peers, Map: d.objects.Maps[bpf.SocketLBMapPeers]})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	f, err := it.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []bpf.StalePeersConnectedPeer
	for r := bufio.NewReaderSize(f, 1<<16); ; {
		var p bpf.StalePeersConnectedPeer
		err := binary.Read(r, binary.NativeEndian, &p)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
}

// severIn closes sockets by network namespace. A namespace is entered by way of
// a process in it: a socket without one has nobody to tell.
func severIn(stale map[uint32][]bpf.StalePeersConnectedPeer) (int, error) {
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
func destroy(ns *os.File, list []bpf.StalePeersConnectedPeer) (int, error) {
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
type destroyRequest bpf.StalePeersConnectedPeer

// Len is part of nl.NetlinkRequestData.
func (r *destroyRequest) Len() int { return 56 }

// Serialize is part of nl.NetlinkRequestData.
func (r *destroyRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0], b[1] = unix.AF_INET, unix.IPPROTO_UDP
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // any state
	binary.NativeEndian.PutUint16(b[8:], r.Local.Port)
	binary.NativeEndian.PutUint16(b[10:], r.Remote.Port)
	binary.NativeEndian.PutUint32(b[12:], r.Local.Addr)
	binary.NativeEndian.PutUint32(b[28:], r.Remote.Addr)
	binary.NativeEndian.PutUint32(b[48:], uint32(r.Cookie))
	binary.NativeEndian.PutUint32(b[52:], uint32(r.Cookie>>32))
	return b
}
