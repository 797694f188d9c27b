package datapath

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/hook"
)

// family is the part of the datapath that is about addresses of one family. It has
// programs and maps of its own; counters and drops are of both together. Its methods
// are called under the Datapath's lock, unless they only read maps.
type family struct {
	programs
	node, overlay netip.Addr
	pods, cluster netip.Prefix

	sockets *ebpf.Collection
	uplink  *ebpf.Collection // nil: nothing is done to what arrives from elsewhere or leaves
	peers   *ebpf.Program    // nil: the kernel cannot
	maglev  *ebpf.MapSpec    // the lookup table of a set

	contents contents
	// reload is set while contents may differ from what the kernel holds.
	reload bool
}

// programs are those of one family, and how their maps are read.
type programs struct {
	form                               form
	suffix                             string // of maps' names
	bytes                              int    // of an address
	loadSockets, loadUplink, loadPeers func() (*ebpf.CollectionSpec, error)
	socketHooks                        []socketHook
	toUplink, fromUplink, overlayPin   string
	filter                             uint32 // of the programs that are filters
}

type socketHook struct {
	program string
	attach  ebpf.AttachType
}

// Hooks of sockets are in the order in which they are attached: the way back
// first, so that no reply shows an endpoint where the application expects the
// service.
var (
	programs4 = programs{
		form: form4, bytes: 4, loadSockets: bpf.LoadSocketLB, loadUplink: bpf.LoadUplink, loadPeers: bpf.LoadStalePeers,
		socketHooks: []socketHook{
			{bpf.SocketLBProgRecvmsg4, ebpf.AttachCGroupUDP4Recvmsg},
			{bpf.SocketLBProgRecvmsg6, ebpf.AttachCGroupUDP6Recvmsg},
			{bpf.SocketLBProgGetpeername4, ebpf.AttachCgroupInet4GetPeername},
			{bpf.SocketLBProgGetpeername6, ebpf.AttachCgroupInet6GetPeername},
			{bpf.SocketLBProgSendmsg4, ebpf.AttachCGroupUDP4Sendmsg},
			{bpf.SocketLBProgSendmsg6, ebpf.AttachCGroupUDP6Sendmsg},
			{bpf.SocketLBProgConnect4, ebpf.AttachCGroupInet4Connect},
			{bpf.SocketLBProgConnect6, ebpf.AttachCGroupInet6Connect},
		},
		toUplink: bpf.UplinkProgToUplink, fromUplink: bpf.UplinkProgFromUplink, overlayPin: "from_overlay", filter: 1,
	}
	programs6 = programs{
		form: form6, suffix: "6", bytes: 16, loadSockets: bpf.LoadSocketLB6, loadUplink: bpf.LoadUplink6, loadPeers: bpf.LoadStalePeers6,
		socketHooks: []socketHook{
			{bpf.SocketLB6ProgRecvmsgIp6, ebpf.AttachCGroupUDP6Recvmsg},
			{bpf.SocketLB6ProgGetpeernameIp6, ebpf.AttachCgroupInet6GetPeername},
			{bpf.SocketLB6ProgSendmsgIp6, ebpf.AttachCGroupUDP6Sendmsg},
			{bpf.SocketLB6ProgConnectIp6, ebpf.AttachCGroupInet6Connect},
		},
		toUplink: bpf.Uplink6ProgToUplink6, fromUplink: bpf.Uplink6ProgFromUplink6, overlayPin: "from_overlay6", filter: 2,
	}
)

// has tells whether the address is of the family.
func (f *family) has(a netip.Addr) bool { return a.BitLen() == 8*f.bytes }

// table returns one of the maps that sockets' programs know, by its name for IPv4.
func (f *family) table(name string) *ebpf.Map { return f.sockets.Maps[name+f.suffix] }

// uplinkTable returns one of the maps that the uplink's programs know; there has to be an uplink.
func (f *family) uplinkTable(name string) *ebpf.Map { return f.uplink.Maps[name+f.suffix] }

// load loads the programs, with maps pinned in a directory. Policies are the maps
// that they have in common with those of network policies.
func (f *family) load(maps string, policies map[string]*ebpf.Map) error {
	spec, err := f.loadSockets()
	if err != nil {
		return fmt.Errorf("reading the socket programs: %w", err)
	}
	if features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnSetRetval) == nil {
		if err := spec.Variables[bpf.SocketLBVarCanSetRetval].Set(uint8(1)); err != nil {
			return fmt.Errorf("configuring the socket programs: %w", err)
		}
	}
	if err := spec.Variables[bpf.SocketLBVarHostNetns].Set(netnsCookie()); err != nil {
		return fmt.Errorf("configuring the socket programs: %w", err)
	}
	f.maglev = spec.Maps[bpf.SocketLBMapMaglev+f.suffix].InnerMap
	f.sockets, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: maps}})
	if err != nil {
		return fmt.Errorf("loading the socket programs (maps pinned in %s): %w", maps, err)
	}
	if spec, err = f.loadPeers(); err != nil {
		return fmt.Errorf("reading the iterator over connected sockets: %w", err)
	}
	// Where the kernel has no such iterator, or does not describe its types, connected
	// UDP sockets keep endpoints that are gone, and all else works.
	f.peers, _ = ebpf.NewProgram(spec.Programs[bpf.StalePeersProgConnectedPeers])
	if f.node.IsValid() {
		return f.loadUplinkPrograms(maps, policies)
	}
	return nil
}

func (f *family) close() {
	if f.sockets != nil {
		f.sockets.Close()
	}
	if f.uplink != nil {
		f.uplink.Close()
	}
	f.peers.Close()
}

// attachSockets makes sure that each hook's link is pinned and attached to the cgroup.
func (f *family) attachSockets(links string, cgroup *os.File, id uint64, renew bool) error {
	for _, h := range f.socketHooks {
		program := f.sockets.Programs[h.program]
		err := hook.Pinned{
			Pin:     filepath.Join(links, h.program),
			Program: program,
			Belongs: func(i *link.Info) bool { return i.Cgroup() != nil && i.Cgroup().CgroupId == id },
			Attach: func() (link.Link, error) {
				return link.AttachRawLink(link.RawLinkOptions{Target: int(cgroup.Fd()), Program: program, Attach: h.attach})
			},
		}.Ensure(renew)
		if err != nil {
			return fmt.Errorf("attaching %s to %s: %w", h.program, cgroup.Name(), err)
		}
	}
	return nil
}
