package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
)

// Listing is a way to find the UDP sockets that are connected to services.
type Listing string

const (
	// ListByIterator reads the sockets' storage by a BPF iterator, which is a tracing program.
	ListByIterator Listing = "iterator"
	// ListByDiag asks sock_diag in each network namespace, for sockets that the programs noted.
	ListByDiag Listing = "sock_diag"
)

// Sever closes the connected UDP sockets, in all network namespaces, whose
// endpoint is no longer one of its service's, and returns how many those were.
// The application's next read fails with ECONNABORTED, and writes with EDESTADDRREQ until it
// connects the socket again. Sockets that are connected past services are let be, and those that
// are not connected leave an endpoint by themselves. Where the kernel closes no sockets, as
// Features tells, Sever does nothing.
func (d *Datapath) Sever() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.support.closes() {
		return 0, nil
	}
	stale := make(map[uint32][]connectedPeer) // by namespace
	for _, f := range d.families {
		if err := f.refresh(); err != nil {
			return 0, err
		}
		found, err := f.stalePeers()
		if err != nil {
			return 0, fmt.Errorf("listing the connected sockets: %w", err)
		}
		for _, p := range found {
			stale[p.netns] = append(stale[p.netns], p)
		}
	}
	n, err := severIn(stale)
	d.cfg.Metrics.closed.Add(float64(n))
	return n, err
}

// serves reports whether the socket's endpoint is one of its service's.
func (c *contents) serves(p connectedPeer) bool {
	service, exists := c.services[Frontend{AddrPort: p.frontend, Protocol: UDP}]
	return exists && slices.Contains(service.backends, p.backend)
}

// connectedPeers returns the sockets that are connected by way of a service, and have not
// been connected elsewhere since.
func (f *family) connectedPeers() ([]connectedPeer, error) {
	if f.diag {
		noted, err := f.noted()
		if err != nil {
			return nil, err
		}
		return connectedOf(noted)
	}
	return f.iterate()
}

// stalePeers returns those of them whose endpoint is no longer one of the service's.
func (f *family) stalePeers() ([]connectedPeer, error) {
	if !f.diag {
		all, err := f.iterate()
		return slices.DeleteFunc(all, f.contents.serves), err
	}
	noted, err := f.noted()
	if err != nil {
		return nil, err
	}
	// Only what is stale is worth looking through all namespaces.
	stale := slices.DeleteFunc(noted, f.contents.serves)
	found, err := connectedOf(stale)
	if err != nil {
		return found, err
	}
	return found, f.forgetMissing(stale, found)
}

// forgetMissing removes the notes of stale sockets that two listings in a row did not find: a
// socket that was just about to connect is in the second.
func (f *family) forgetMissing(stale, found []connectedPeer) error {
	missing := make(map[uint64]bool)
	for _, p := range stale {
		missing[p.cookie] = true
	}
	for _, p := range found {
		delete(missing, p.cookie)
	}
	var errs []error
	for cookie := range missing {
		if !f.missed[cookie] {
			continue
		}
		if err := f.table(bpf.SocketLBMapConnected).Delete(cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("deleting the entry of a socket: %w", err))
		}
		delete(missing, cookie)
	}
	f.missed = missing
	return errors.Join(errs...)
}

// noted returns the sockets that the programs noted, without their addresses and namespaces.
func (f *family) noted() ([]connectedPeer, error) {
	return f.form.noted(f.table(bpf.SocketLBMapConnected))
}

func (f *family) iterate() ([]connectedPeer, error) {
	if f.peers == nil {
		return nil, nil
	}
	all, err := readIterator(f.peers, f.table(bpf.SocketLBMapPeers), f.form)
	return slices.DeleteFunc(all, func(p connectedPeer) bool { return p.remote != p.backend }), err
}

func readIterator(program *ebpf.Program, peers *ebpf.Map, form form) ([]connectedPeer, error) {
	it, err := link.AttachIter(link.IterOptions{Program: program, Map: peers})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	file, err := it.Open()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return form.peers(file)
}

// loadIterator loads the iterator over connected sockets and has it run once, over a map of its
// own.
func (f *family) loadIterator() error {
	spec, err := f.loadPeers()
	if err != nil {
		return fmt.Errorf("reading the iterator over connected sockets: %w", err)
	}
	sockets, err := f.loadSockets()
	if err != nil {
		return fmt.Errorf("reading the socket programs: %w", err)
	}
	if f.peers, err = ebpf.NewProgram(spec.Programs[bpf.StalePeersProgConnectedPeers]); err != nil {
		return err
	}
	scratch := sockets.Maps[bpf.SocketLBMapPeers+f.suffix].Copy()
	scratch.Pinning = ebpf.PinNone
	m, err := ebpf.NewMap(scratch)
	if err != nil {
		return fmt.Errorf("creating a map to test the iterator: %w", err)
	}
	defer m.Close()
	_, err = readIterator(f.peers, m, f.form)
	return err
}

// severIn closes sockets by network namespace. A namespace is entered through a process in it: a
// socket in a namespace without processes has no reader.
func severIn(stale map[uint32][]connectedPeer) (int, error) {
	if len(stale) == 0 {
		return 0, nil
	}
	severed := 0
	err := inNamespaces(func(netns uint32) bool { return stale[netns] != nil }, func(netns uint32) error {
		n, err := destroy(stale[netns])
		severed += n
		return err
	})
	return severed, err
}

// destroy closes sockets of the thread's network namespace.
func destroy(list []connectedPeer) (int, error) {
	severed := 0
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
	return severed, errors.Join(errs...)
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
