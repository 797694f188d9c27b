package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/osthread"
)

// inNamespaces calls f once for each wanted network namespace in which a process is, on a thread in
// that namespace, with the namespace's inode number. An error ends nothing but the call.
func inNamespaces(wanted func(netns uint32) bool, f func(netns uint32) error) error {
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return err
	}
	return osthread.Do(func() error {
		seen := make(map[uint32]bool)
		var errs []error
		for _, path := range paths {
			var st unix.Stat_t
			if unix.Stat(path, &st) != nil || seen[uint32(st.Ino)] || !wanted(uint32(st.Ino)) {
				continue
			}
			ns, err := os.Open(path)
			if err != nil {
				continue // the process has ended; another one may be there
			}
			seen[uint32(st.Ino)] = true
			if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				err = os.NewSyscallError("setns", err)
			} else {
				err = f(uint32(st.Ino))
			}
			errs = append(errs, err, ns.Close())
		}
		return errors.Join(errs...)
	})
}

// connectedOf completes the sockets that are still connected to their backend by what sock_diag
// tells, in all network namespaces, and leaves the others out.
func connectedOf(noted []connectedPeer) ([]connectedPeer, error) {
	if len(noted) == 0 {
		return nil, nil
	}
	byCookie := make(map[uint64]connectedPeer, len(noted))
	for _, p := range noted {
		byCookie[p.cookie] = p
	}
	var out []connectedPeer
	err := inNamespaces(func(uint32) bool { return true }, func(netns uint32) error {
		return listUDP(func(s socket) {
			if p, ok := byCookie[s.cookie]; ok && p.backend == s.remote {
				p.local, p.remote, p.netns = s.local, s.remote, netns
				out = append(out, p)
			}
		})
	})
	return out, err
}

// socket is a UDP socket as sock_diag tells of it. IPv4 addresses of IPv6 sockets are those of
// IPv4.
type socket struct {
	local, remote netip.AddrPort
	cookie        uint64
}

// listUDP passes on the UDP sockets of the thread's network namespace.
func listUDP(f func(socket)) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		list, err := netlink.SocketDiagUDP(family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return fmt.Errorf("listing UDP sockets: %w", err)
		}
		for _, s := range list {
			local, _ := netip.AddrFromSlice(s.ID.Source)
			remote, _ := netip.AddrFromSlice(s.ID.Destination)
			f(socket{
				local: netip.AddrPortFrom(local.Unmap(), s.ID.SourcePort), remote: netip.AddrPortFrom(remote.Unmap(), s.ID.DestinationPort),
				cookie: uint64(s.ID.Cookie[1])<<32 | uint64(s.ID.Cookie[0]),
			})
		}
	}
	return nil
}

// probeDiag opens a socket, looks for it by sock_diag and closes it by SOCK_DESTROY. It returns the
// errors of the latter two.
func probeDiag() (listing, closing error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		err = fmt.Errorf("opening a socket: %w", err)
		return err, err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
		err = fmt.Errorf("binding a socket: %w", err)
		return err, err
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		err = fmt.Errorf("reading the cookie of a socket: %w", err)
		return err, err
	}
	var found *socket
	listing = listUDP(func(s socket) {
		if s.cookie == cookie {
			found = &s
		}
	})
	if listing == nil && found == nil {
		listing = errors.New("sock_diag does not list an existing socket")
	}
	if listing != nil {
		return listing, fmt.Errorf("finding the socket to close: %w", listing)
	}
	n, closing := destroy([]connectedPeer{{local: found.local, remote: found.remote, cookie: cookie}})
	if closing == nil && n != 1 {
		closing = errors.New("closing a socket: socket not found by the kernel")
	}
	return nil, closing
}
