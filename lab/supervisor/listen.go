package supervisor

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// listeners returns the TCP addresses that a process listens on, sorted, none when it has ended.
func listeners(pid int) []string {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return nil
	}
	inodes := make(map[string]bool)
	for _, e := range entries {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
		if inode, ok := strings.CutPrefix(target, "socket:["); err == nil && ok {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var addrs []netip.AddrPort
	for _, table := range []string{"tcp", "tcp6"} {
		file, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if addr, inode, ok := parseListener(lines.Text()); ok && inodes[inode] {
				addrs = append(addrs, addr)
			}
		}
		file.Close()
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare)
	var out []string
	for _, addr := range slices.Compact(addrs) {
		out = append(out, addr.String())
	}
	return out
}

// parseListener reads a line of /proc/net/tcp or tcp6 and says whether it is a listening socket's.
func parseListener(line string) (addr netip.AddrPort, inode string, ok bool) {
	const listen = "0A"
	fields := strings.Fields(line)
	if len(fields) < 10 || fields[3] != listen {
		return addr, "", false
	}
	host, port, _ := strings.Cut(fields[1], ":")
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw)%4 != 0 {
		return addr, "", false
	}
	// The kernel prints each 32-bit word in its own byte order.
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	ip, valid := netip.AddrFromSlice(raw)
	number, err := strconv.ParseUint(port, 16, 16)
	if !valid || err != nil {
		return addr, "", false
	}
	return netip.AddrPortFrom(ip, uint16(number)), fields[9], true
}
