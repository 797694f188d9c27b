package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
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
	peers   *ebpf.Program    // the iterator over connected sockets; nil: it is not in use
	maglev  *ebpf.MapSpec    // the lookup table of a set

	// diag is set where connected sockets are listed by sock_diag. missed are the stale ones
	// that the last listing did not find.
	diag   bool
	missed map[uint64]bool

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

// has reports whether the address is of the family.
func (f *family) has(a netip.Addr) bool { return a.BitLen() == 8*f.bytes }

// table returns one of the maps that sockets' programs know, by its name for IPv4.
func (f *family) table(name string) *ebpf.Map { return f.sockets.Maps[name+f.suffix] }

// uplinkTable returns one of the maps that the uplink's programs know; there has to be an uplink.
func (f *family) uplinkTable(name string) *ebpf.Map { return f.uplink.Maps[name+f.suffix] }

// load loads the programs, with maps pinned in a directory. Policies are the maps
// that they have in common with those of network policies.
func (f *family) load(maps string, policies map[string]*ebpf.Map, kernel *support, overlayPort uint16) error {
	spec, err := f.loadSockets()
	if err != nil {
		return fmt.Errorf("reading the socket programs: %w", err)
	}
	if err := f.configureSockets(spec, maps, kernel); err != nil {
		return fmt.Errorf("configuring the socket programs: %w", err)
	}
	f.maglev = spec.Maps[bpf.SocketLBMapMaglev+f.suffix].InnerMap
	f.sockets, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: maps}})
	if err != nil {
		return fmt.Errorf("loading the socket programs (maps pinned in %s): %w", maps, err)
	}
	if f.node.IsValid() {
		return f.loadUplinkPrograms(maps, policies, overlayPort)
	}
	return nil
}

func (f *family) configureSockets(spec *ebpf.CollectionSpec, maps string, kernel *support) error {
	set := func(name string, value any) error { return spec.Variables[name].Set(value) }
	err := set(bpf.SocketLBVarHostNetns, kernel.netns)
	if kernel.retval == nil {
		err = errors.Join(err, set(bpf.SocketLBVarCanSetRetval, uint8(1)))
	}
	if f.diag {
		return errors.Join(err, set(bpf.SocketLBVarKeepConnected, uint8(1)))
	}
	name := bpf.SocketLBMapConnected + f.suffix
	spec.Maps[name].MaxEntries, spec.Maps[name].Pinning = 1, ebpf.PinNone
	if removed := os.Remove(filepath.Join(maps, name)); !errors.Is(removed, fs.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	return err
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
