// Package netlab gives tests hosts to play with: network namespaces on a wire of
// their own, a cgroup and a bpf file system. Namespaces have no names and are
// held by file descriptors, so that nothing of them outlives the test, however
// it ends, and nothing is made in the machine's own network namespace.
package netlab

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/osthread"
)

// Namespace is a network namespace.
type Namespace struct {
	file *os.File
}

// Lab is a wire and the hosts on it.
type Lab struct {
	t        testing.TB
	wire     *Namespace
	hosts    int
	segments []netip.Prefix // with the router's addresses
}

// New returns a lab that lasts as long as the test. It skips the test when it
// may not make namespaces, except in CI, where it fails it.
func New(t testing.TB) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root")
	}
	l := &Lab{t: t, wire: newNamespace(t)}
	l.must(l.wire.withHandle(func(h *netlink.Handle) error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "wire"}}
		if err := h.LinkAdd(bridge); err != nil {
			return err
		}
		return h.LinkSetUp(bridge)
	}))
	return l
}

// Missing skips the test for want of something, or fails it in CI.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}

// Namespace returns an empty network namespace with lo up.
func (l *Lab) Namespace() *Namespace {
	l.t.Helper()
	return newNamespace(l.t)
}

// Segments adds networks that are wires of their own. A router, whose address on
// each is given, joins them: it passes on what comes from an address of theirs
// and drops the rest. Hosts that are made from now on hang on the segment that
// has their address and use the router.
func (l *Lab) Segments(routers ...netip.Prefix) {
	l.t.Helper()
	l.must(l.wire.withHandle(func(h *netlink.Handle) error {
		for _, r := range routers {
			l.segments = append(l.segments, r)
			bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprint("wire", len(l.segments))}}
			if err := h.LinkAdd(bridge); err != nil {
				return err
			}
			if err := h.AddrAdd(bridge, &netlink.Addr{IPNet: ipNet(r), Flags: unix.IFA_F_NODAD}); err != nil {
				return err
			}
			if err := h.LinkSetUp(bridge); err != nil {
				return err
			}
		}
		return nil
	}))
	l.must(l.wire.Do(func() error {
		for file, value := range map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/conf/all/rp_filter": "1"} {
			if err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	}))
}

// segment returns the bridge for an address and the router's address on it.
func (l *Lab) segment(addr netip.Prefix) (string, netip.Addr) {
	for i, s := range l.segments {
		if s.Contains(addr.Addr()) {
			return fmt.Sprint("wire", i+1), s.Addr()
		}
	}
	return "wire", netip.Addr{}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Host returns a namespace whose eth0 has the address and hangs on the wire.
func (l *Lab) Host(addr netip.Prefix) *Namespace {
	l.t.Helper()
	wire, router := l.segment(addr)
	host := newNamespace(l.t)
	l.hosts++
	port := fmt.Sprintf("port%d", l.hosts)
	l.must(l.wire.withHandle(func(h *netlink.Handle) error {
		bridge, err := h.LinkByName(wire)
		if err != nil {
			return err
		}
		veth := &netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: port, MasterIndex: bridge.Attrs().Index},
			PeerName:      "eth0",
			PeerNamespace: netlink.NsFd(int(host.file.Fd())),
		}
		if err := h.LinkAdd(veth); err != nil {
			return err
		}
		return h.LinkSetUp(veth)
	}))
	l.must(host.withHandle(func(h *netlink.Handle) error {
		eth0, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := h.AddrAdd(eth0, &netlink.Addr{IPNet: ipNet(addr)}); err != nil {
			return err
		}
		if err := h.LinkSetUp(eth0); err != nil || !router.IsValid() {
			return err
		}
		return h.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: router.AsSlice()})
	}))
	return host
}

func (l *Lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// Path names the namespace for as long as this process holds it.
func (n *Namespace) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
}

// Do runs f on a thread inside the namespace. Sockets that f makes stay there.
func (n *Namespace) Do(f func() error) error {
	return osthread.Do(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
}

// Handle returns a netlink handle inside the namespace. The caller closes it.
func (n *Namespace) Handle() (*netlink.Handle, error) {
	return netlink.NewHandleAt(netns.NsHandle(n.file.Fd()), unix.NETLINK_ROUTE)
}

func (n *Namespace) withHandle(f func(*netlink.Handle) error) error {
	h, err := n.Handle()
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}

func newNamespace(t testing.TB) *Namespace {
	t.Helper()
	var file *os.File
	err := osthread.Do(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatalf("making a network namespace: %v", err)
	}
	t.Cleanup(func() { file.Close() })
	n := &Namespace{file}
	err = n.withHandle(func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetUp(lo)
	})
	if err != nil {
		t.Fatalf("setting lo up: %v", err)
	}
	return n
}

// JoinCgroup makes a cgroup v2 directory and moves this process into it until
// the test ends.
func JoinCgroup(t testing.TB) string {
	t.Helper()
	root := mountPoint(t, "cgroup2")
	if root == "" {
		Missing(t, "cgroup v2")
	}
	own := ownCgroup(t)
	dir := filepath.Join(root, fmt.Sprintf("xebec-test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "_")))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	move := func(to string) error {
		return os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte("0"), 0)
	}
	t.Cleanup(func() {
		if err := move(filepath.Join(root, own)); err != nil {
			t.Errorf("leaving the cgroup: %v", err)
		}
		if err := removeCgroup(dir); err != nil {
			t.Errorf("removing the cgroup: %v", err)
		}
	})
	if err := move(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// removeCgroup removes a cgroup that has been left. Threads that were ending then do not
// leave it with the others, and it is busy until they are gone.
func removeCgroup(dir string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		err := os.Remove(dir)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

// BPFFS mounts a bpf file system until the test ends.
func BPFFS(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "xebec-test-bpf-")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		os.Remove(dir)
		Missing(t, "a bpf file system")
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
		os.Remove(dir)
	})
	return dir
}

func mountPoint(t testing.TB, fstype string) string {
	t.Helper()
	for _, line := range readLines(t, "/proc/self/mounts") {
		if f := strings.Fields(line); len(f) > 2 && f[2] == fstype {
			return f[1]
		}
	}
	return ""
}

func ownCgroup(t testing.TB) string {
	t.Helper()
	for _, line := range readLines(t, "/proc/self/cgroup") {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return path
		}
	}
	return "/"
}

func readLines(t testing.TB, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		lines = append(lines, s.Text())
	}
	return lines
}
