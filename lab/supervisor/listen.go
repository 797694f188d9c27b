package supervisor

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// listeners returns the TCP addresses that a process listens on, sorted, none when it has ended.
func listeners(pid int) []string {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return nil
	}
	inodes := make(map[uint32]bool)
	for _, e := range entries {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
		if text, ok := strings.CutPrefix(target, "socket:["); err == nil && ok {
			if inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 32); err == nil {
				inodes[uint32(inode)] = true
			}
		}
	}
	var addrs []netip.AddrPort
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		messages, err := listening(pid, family)
		if err != nil {
			continue
		}
		for _, m := range messages {
			if addr, inode, ok := parseListener(m); ok && inodes[inode] {
				addrs = append(addrs, addr)
			}
		}
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare)
	var out []string
	for _, addr := range slices.Compact(addrs) {
		out = append(out, addr.String())
	}
	return out
}

// tcpListen is the kernel's TCP_LISTEN.
const tcpListen = 10

// listening asks the kernel for the listening sockets of the network namespace that a process is
// in. /proc/net/tcp would tell as well, but to do so it walks through the connections of all
// namespaces, which takes milliseconds each time.
func listening(pid int, family uint8) ([][]byte, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	socket, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_INET_DIAG: {Socket: socket}}
	req.AddData(listenersOf(family))
	return req.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
}

// listenersOf is the kernel's struct inet_diag_req_v2 that asks for TCP's listening sockets of an
// address family.
type listenersOf uint8

func (listenersOf) Len() int { return 56 }

func (l listenersOf) Serialize() []byte {
	b := make([]byte, l.Len())
	b[0], b[1] = byte(l), unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], 1<<tcpListen)
	return b
}

// parseListener reads an inet_diag_msg: the address and the inode of a socket that listens.
func parseListener(m []byte) (addr netip.AddrPort, inode uint32, ok bool) {
	const length = 72
	if len(m) < length || m[1] != tcpListen {
		return addr, 0, false
	}
	size := 4
	if m[0] == unix.AF_INET6 {
		size = 16
	}
	ip, _ := netip.AddrFromSlice(m[8 : 8+size])
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(m[4:])), binary.NativeEndian.Uint32(m[68:]), true
}
