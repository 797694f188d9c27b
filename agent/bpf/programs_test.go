package bpf_test

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/agent/policy"
	"github.com/xebec-project/xebec/internal/netlab"
)

type load func() (*ebpf.CollectionSpec, error)

// Agents load and attach every program, in each way in which nodes differ: variables
// decide which parts of a program the kernel looks at.
func TestPrograms(t *testing.T) {
	nodes := []struct {
		name string
		// sockets is a node without an uplink.
		sockets, ipv6, overlay, classic bool
		want                            []load
	}{
		{name: "sockets", sockets: true, want: []load{bpf.LoadSocketLB}},
		{name: "sockets of both families", sockets: true, ipv6: true, want: []load{bpf.LoadSocketLB, bpf.LoadSocketLB6}},
		{name: "node", want: []load{bpf.LoadSocketLB, bpf.LoadUplink, bpf.LoadPolicy}},
		{name: "node with overlay", overlay: true, want: []load{bpf.LoadSocketLB, bpf.LoadUplink, bpf.LoadPolicy, bpf.LoadOverlay}},
		{
			name: "node of both families with overlay", ipv6: true, overlay: true,
			want: []load{bpf.LoadSocketLB, bpf.LoadSocketLB6, bpf.LoadUplink, bpf.LoadUplink6, bpf.LoadPolicy, bpf.LoadOverlay},
		},
		{
			name: "clsact", ipv6: true, overlay: true, classic: true,
			want: []load{bpf.LoadSocketLB, bpf.LoadSocketLB6, bpf.LoadUplink, bpf.LoadUplink6, bpf.LoadPolicy, bpf.LoadOverlay},
		},
	}
	for _, tt := range nodes {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t, tt.ipv6)
			cfg := datapath.Config{PinPath: n.pins, CgroupPath: netlab.JoinCgroup(t), IPv6: tt.ipv6, ClassicTC: tt.classic}
			if !tt.sockets {
				n.connect(&cfg, tt.overlay)
			}
			n.load(cfg)
			got := n.attached()
			for _, load := range tt.want {
				for _, name := range names(t, load) {
					if verified, ok := got[name]; ok {
						t.Logf("%s: %d instructions looked at", name, verified)
					} else {
						t.Errorf("%s is not attached; these are: %v", name, slices.Sorted(maps.Keys(got)))
					}
				}
			}
		})
	}
}

// The datapath uses sock_diag instead where the kernel refuses these.
func TestIterators(t *testing.T) {
	if os.Geteuid() != 0 {
		netlab.Missing(t, "root")
	}
	version, err := features.LinuxVersionCode()
	if err != nil {
		t.Fatal(err)
	}
	for name, load := range map[string]load{"IPv4": bpf.LoadStalePeers, "IPv6": bpf.LoadStalePeers6} {
		t.Run(name, func(t *testing.T) {
			spec, err := load()
			if err != nil {
				t.Fatal(err)
			}
			program, err := ebpf.NewProgram(spec.Programs[bpf.StalePeersProgConnectedPeers])
			if err == nil {
				program.Close()
				return
			}
			if version >= 5<<16|12<<8 && !errors.Is(err, unix.EPERM) {
				refused(t, err)
			}
			// Before Linux 5.12 iterators get no cookies of sockets; some hosts refuse all tracing programs.
			n := newNode(t, name == "IPv6")
			d := n.load(datapath.Config{PinPath: n.pins, CgroupPath: netlab.JoinCgroup(t), IPv6: n.ipv6})
			i := slices.IndexFunc(d.Features(), func(f datapath.Feature) bool { return f.Name == datapath.FeatureStaleSockets })
			if f := d.Features()[i]; f.Method != string(datapath.ListByDiag) {
				t.Fatalf("the kernel refuses the iterator, and the datapath has no other method: %+v", f)
			}
			t.Skipf("this kernel refuses the iterator, sockets are listed by sock_diag: %v", err)
		})
	}
}

// refused ends the test with what the kernel said last of a program.
func refused(t *testing.T, err error) {
	t.Helper()
	if verdict, ok := errors.AsType[*ebpf.VerifierError](err); ok {
		t.Fatalf("%v\n%-30v", err, verdict)
	}
	t.Fatal(err)
}

func names(t *testing.T, load load) []string {
	t.Helper()
	spec, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(spec.Programs))
}

const (
	nodeIP  = "192.0.2.1"
	nodeIP6 = "2001:db8::1"
)

// node is a host with one pod.
type node struct {
	*netlab.Namespace
	t    *testing.T
	pins string
	ipv6 bool
	pod  *netlab.Namespace
}

func newNode(t *testing.T, ipv6 bool) *node {
	lab := netlab.New(t)
	n := &node{Namespace: lab.Host(netip.MustParsePrefix(nodeIP + "/24")), t: t, ipv6: ipv6, pod: lab.Namespace()}
	n.pins = filepath.Join(netlab.BPFFS(t), "xebec")
	return n
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// do runs f on a thread inside the node.
func (n *node) do(f func() error) {
	n.t.Helper()
	n.must(n.Do(f))
}

// connect connects the node's pod, has it isolated by policies, and adds to the datapath's
// configuration what it needs for an uplink.
func (n *node) connect(cfg *datapath.Config, overlay bool) {
	n.t.Helper()
	pods := podnet.Config{
		PodCIDR: netip.MustParsePrefix("10.244.0.0/24"), ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		NodeIP: netip.MustParseAddr(nodeIP), Overlay: podnet.OverlayNever, StateDir: n.t.TempDir(),
	}
	if n.ipv6 {
		pods.PodCIDR6, pods.ClusterCIDR6 = netip.MustParsePrefix("fd00:10:244::/64"), netip.MustParsePrefix("fd00:10:244::/48")
		pods.NodeIP6 = netip.MustParseAddr(nodeIP6)
		n.do(func() error {
			uplink, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			addr := &net.IPNet{IP: pods.NodeIP6.AsSlice(), Mask: net.CIDRMask(64, 128)}
			return netlink.AddrAdd(uplink, &netlink.Addr{IPNet: addr, Flags: unix.IFA_F_NODAD})
		})
	}
	if overlay {
		pods.Overlay = podnet.OverlayAlways
		cfg.OverlayLink, cfg.OverlayIP, cfg.OverlayPort = podnet.OverlayLink, podnet.OverlayAddress(pods.PodCIDR), podnet.OverlayPort
		cfg.PodLinkPrefix = podnet.LinkPrefix
		if n.ipv6 {
			cfg.OverlayIP6 = podnet.OverlayAddress(pods.PodCIDR6)
		}
	}
	cfg.NodeIP, cfg.PodCIDR, cfg.ClusterCIDR = pods.NodeIP, pods.PodCIDR, pods.ClusterCIDR
	cfg.NodeIP6, cfg.PodCIDR6, cfg.ClusterCIDR6 = pods.NodeIP6, pods.PodCIDR6, pods.ClusterCIDR6

	var network *podnet.Network
	n.do(func() (err error) { network, err = podnet.New(pods); return err })
	n.t.Cleanup(func() { network.Close() })
	if overlay {
		n.must(network.SetNodes([]podnet.NodeRoute{{PodCIDR: netip.MustParsePrefix("10.244.1.0/24"), NodeIP: netip.MustParseAddr("192.0.2.2")}}))
	}
	pod, err := network.Setup(n.t.Context(), "pod", n.pod.Path())
	n.must(err)

	var kernel *policy.Kernel
	err = n.Do(func() (err error) {
		kernel, err = policy.Load(policy.KernelConfig{PinPath: filepath.Join(n.pins, "policy"), ClassicTC: cfg.ClassicTC})
		return err
	})
	if err != nil {
		refused(n.t, err)
	}
	n.t.Cleanup(func() { kernel.Close() })
	none := &policy.Set{Peers: map[netip.Prefix]policy.Ports{netip.MustParsePrefix("::/0"): policy.NoPorts}}
	n.must(kernel.Apply(
		policy.Wanted{Sets: map[string]*policy.Set{"none": none}},
		[]policy.Endpoint{{Index: pod.Index, Netns: n.pod.Path(), Sets: policy.Sets{Ingress: "none", Egress: "none"}}},
	))
	cfg.PolicyMaps = kernel.Maps()
}

func (n *node) load(cfg datapath.Config) *datapath.Datapath {
	n.t.Helper()
	var d *datapath.Datapath
	if err := n.Do(func() (err error) { d, err = datapath.Load(cfg); return err }); err != nil {
		refused(n.t, err)
	}
	n.t.Cleanup(func() {
		d.Close()
		n.do(func() error { return datapath.Remove(n.pins) })
	})
	return d
}

// attached returns the names of the programs that are at work, from the pinned links and from the
// filters of interfaces, with how many instructions the kernel looked at to judge each: 0 before
// Linux 5.16, which does not say.
func (n *node) attached() map[string]uint32 {
	n.t.Helper()
	found := map[string]uint32{}
	note := func(id ebpf.ProgramID) {
		program, err := ebpf.NewProgramFromID(id)
		n.must(err)
		defer program.Close()
		info, err := program.Info()
		n.must(err)
		verified, _ := info.VerifiedInstructions()
		found[info.Name] = verified
	}
	for _, dir := range []string{"links", "policy/links"} {
		pins, err := filepath.Glob(filepath.Join(n.pins, dir, "*"))
		n.must(err)
		for _, pin := range pins {
			l, err := link.LoadPinnedLink(pin, nil)
			n.must(err)
			info, err := l.Info()
			n.must(errors.Join(err, l.Close()))
			note(info.Program)
		}
	}
	n.do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
				filters, err := netlink.FilterList(l, parent)
				if err != nil {
					continue // without clsact there are none
				}
				for _, f := range filters {
					if b, ok := f.(*netlink.BpfFilter); ok {
						note(ebpf.ProgramID(b.Id))
					}
				}
			}
		}
		return nil
	})
	return found
}
