package datapath

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/xebec-project/xebec/agent/bpf"
)

// form reads and writes maps in the form that the programs of one family of
// addresses have them in.
type form interface {
	putBackends(*ebpf.Map, []placedBackend) error
	putServices(*ebpf.Map, []servedFrontend) error
	removeServices(*ebpf.Map, []Frontend) error
	services(*ebpf.Map) (map[Frontend]serviceValue, error)
	service(*ebpf.Map, Frontend) (serviceValue, error)
	// backends returns the zero AddrPort for one whose key is another's.
	backends(*ebpf.Map) (map[bpf.SocketLBBackendKey]netip.AddrPort, error)
	backend(*ebpf.Map, bpf.SocketLBBackendKey) (netip.AddrPort, error)
	// kept is the choice of a client outside, and when it was used last.
	kept(*ebpf.Map, netip.Addr, Frontend) (backend netip.AddrPort, slot int, used time.Duration, err error)
	peers(io.Reader) ([]connectedPeer, error)
	// noted are the sockets that the programs noted, without their addresses and namespaces.
	noted(*ebpf.Map) ([]connectedPeer, error)
	datagrams(*ebpf.Map) ([]Socket, error)
	traffic(*ebpf.Map) ([]Traffic, error)
	sweep(*ebpf.Map, time.Duration) (total, removed int, err error)
	flows(*ebpf.Map, time.Duration) ([]Flow, error)
}

// serviceValue is what the kernel has of a frontend.
type serviceValue struct {
	set, count, affinity, flags uint32
	damaged                     bool // it is another frontend's
}

// connectedPeer is a socket that is connected by UDP through a service.
type connectedPeer struct {
	frontend, backend, local, remote netip.AddrPort
	cookie                           uint64
	netns                            uint32
}

// formOf is the form with these frontends, addresses with ports, and tuples.
type formOf[F, A, T comparable] struct {
	frontend   func(Frontend) F
	frontendOf func(F) Frontend
	address    func(netip.AddrPort) A
	addressOf  func(A) netip.AddrPort
	tupleOf    func(T) tuple
	answerTo   func(T) T
}

// tuple is what packets of one direction of a flow have in common.
type tuple struct {
	protocol Protocol
	from, to netip.AddrPort
}

var form4 = formOf[bpf.SocketLBFrontend, bpf.SocketLBAddress, bpf.UplinkTuple]{
	frontend: func(f Frontend) bpf.SocketLBFrontend {
		return bpf.SocketLBFrontend{
			Addr:     [1]uint32(words(f.Addr())),
			Port:     bits.ReverseBytes16(f.Port()),
			Protocol: uint8(f.Protocol),
			Scope:    f.scope(),
		}
	},
	frontendOf: func(k bpf.SocketLBFrontend) Frontend { return frontendOf(k.Addr[:], k.Port, k.Protocol, k.Scope) },
	address: func(a netip.AddrPort) bpf.SocketLBAddress {
		return bpf.SocketLBAddress{Addr: [1]uint32(words(a.Addr())), Port: bits.ReverseBytes16(a.Port())}
	},
	addressOf: func(a bpf.SocketLBAddress) netip.AddrPort { return addrPort(a.Addr[:], a.Port) },
	tupleOf: func(t bpf.UplinkTuple) tuple {
		return tuple{Protocol(t.Protocol), addrPort(t.Saddr[:], t.Sport), addrPort(t.Daddr[:], t.Dport)}
	},
	answerTo: func(t bpf.UplinkTuple) bpf.UplinkTuple {
		return bpf.UplinkTuple{Saddr: t.Daddr, Daddr: t.Saddr, Sport: t.Dport, Dport: t.Sport, Protocol: t.Protocol}
	},
}

var form6 = formOf[bpf.SocketLB6Frontend, bpf.SocketLB6Address, bpf.Uplink6Tuple]{
	frontend: func(f Frontend) bpf.SocketLB6Frontend {
		return bpf.SocketLB6Frontend{
			Addr:     [4]uint32(words(f.Addr())),
			Port:     bits.ReverseBytes16(f.Port()),
			Protocol: uint8(f.Protocol),
			Scope:    f.scope(),
		}
	},
	frontendOf: func(k bpf.SocketLB6Frontend) Frontend { return frontendOf(k.Addr[:], k.Port, k.Protocol, k.Scope) },
	address: func(a netip.AddrPort) bpf.SocketLB6Address {
		return bpf.SocketLB6Address{Addr: [4]uint32(words(a.Addr())), Port: bits.ReverseBytes16(a.Port())}
	},
	addressOf: func(a bpf.SocketLB6Address) netip.AddrPort { return addrPort(a.Addr[:], a.Port) },
	tupleOf: func(t bpf.Uplink6Tuple) tuple {
		return tuple{Protocol(t.Protocol), addrPort(t.Saddr[:], t.Sport), addrPort(t.Daddr[:], t.Dport)}
	},
	answerTo: func(t bpf.Uplink6Tuple) bpf.Uplink6Tuple {
		return bpf.Uplink6Tuple{Saddr: t.Daddr, Daddr: t.Saddr, Sport: t.Dport, Dport: t.Sport, Protocol: t.Protocol}
	},
}

// The maps' values, and keys, that have others in them: those of services.h and
// flows.h.
type (
	kernelService[F any] struct {
		Frontend                    F
		Set, Count, Affinity, Flags uint32
	}
	kernelBackend[A any] struct {
		Key     bpf.SocketLBBackendKey
		Address A
	}
	kernelChoice[A any] struct {
		Backend A
		Slot    uint32
		Zero    uint32
	}
	kernelAffinityKey[F any] struct {
		Client   uint64
		Frontend F
	}
	kernelAffinity[A any] struct {
		LastUsed uint64
		Choice   kernelChoice[A]
	}
	kernelPeer[A any] struct {
		Frontend, Backend, Local, Remote A
		Cookie                           uint64
		Netns, Zero                      uint32
	}
	kernelDatagrams[A any] struct {
		Cookie  uint64
		Address A
	}
	kernelPath[F, A any] struct {
		Frontend F
		Backend  A
	}
	kernelFlow[T any] struct {
		Becomes                       T
		Seen, Slot, Link              uint32
		Way, Closed, Unanswered, Zero uint8
	}
)

func (x formOf[F, A, T]) putBackends(m *ebpf.Map, list []placedBackend) error {
	keys, values := make([]bpf.SocketLBBackendKey, 0, len(list)), make([]kernelBackend[A], 0, len(list))
	for _, b := range list {
		keys, values = append(keys, b.at), append(values, kernelBackend[A]{b.at, x.address(b.address)})
	}
	return put(m, keys, values)
}

func (x formOf[F, A, T]) putServices(m *ebpf.Map, list []servedFrontend) error {
	keys, values := make([]F, 0, len(list)), make([]kernelService[F], 0, len(list))
	for _, s := range list {
		k := x.frontend(s.frontend)
		keys, values = append(keys, k), append(values, kernelService[F]{k, s.set, uint32(len(s.backends)), s.affinity, s.flags()})
	}
	return put(m, keys, values)
}

func (x formOf[F, A, T]) removeServices(m *ebpf.Map, list []Frontend) error {
	keys := make([]F, 0, len(list))
	for _, f := range list {
		keys = append(keys, x.frontend(f))
	}
	return remove(m, keys)
}

func (x formOf[F, A, T]) services(m *ebpf.Map) (map[Frontend]serviceValue, error) {
	out := make(map[Frontend]serviceValue)
	err := eachEntry(m, func(k F, v kernelService[F]) {
		out[x.frontendOf(k)] = serviceValue{v.Set, v.Count, v.Affinity, v.Flags, v.Frontend != k}
	})
	return out, err
}

func (x formOf[F, A, T]) service(m *ebpf.Map, f Frontend) (serviceValue, error) {
	var v kernelService[F]
	err := m.Lookup(x.frontend(f), &v)
	return serviceValue{set: v.Set, count: v.Count, affinity: v.Affinity, flags: v.Flags}, err
}

func (x formOf[F, A, T]) backends(m *ebpf.Map) (map[bpf.SocketLBBackendKey]netip.AddrPort, error) {
	out := make(map[bpf.SocketLBBackendKey]netip.AddrPort)
	err := eachEntry(m, func(k bpf.SocketLBBackendKey, v kernelBackend[A]) {
		if out[k] = (netip.AddrPort{}); v.Key == k {
			out[k] = x.addressOf(v.Address)
		}
	})
	return out, err
}

func (x formOf[F, A, T]) backend(m *ebpf.Map, k bpf.SocketLBBackendKey) (netip.AddrPort, error) {
	var v kernelBackend[A]
	err := m.Lookup(k, &v)
	return x.addressOf(v.Address), err
}

func (x formOf[F, A, T]) kept(m *ebpf.Map, client netip.Addr, f Frontend) (netip.AddrPort, int, time.Duration, error) {
	var v kernelAffinity[A]
	err := m.Lookup(kernelAffinityKey[F]{identity(client), x.frontend(f)}, &v)
	return x.addressOf(v.Choice.Backend), int(v.Choice.Slot), time.Duration(v.LastUsed), err
}

// identity stands for a client outside, as in endpoints.h.
func identity(client netip.Addr) uint64 {
	const outsider, spread = 1 << 63, 0x9e3779b97f4a7c15
	var all uint64
	for _, w := range words(client) {
		all = all*spread ^ uint64(w)
	}
	return all | outsider
}

func (x formOf[F, A, T]) peers(from io.Reader) ([]connectedPeer, error) {
	var out []connectedPeer
	for r := bufio.NewReaderSize(from, 1<<16); ; {
		var p kernelPeer[A]
		err := binary.Read(r, binary.NativeEndian, &p)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, connectedPeer{
			frontend: x.addressOf(p.Frontend), backend: x.addressOf(p.Backend), local: x.addressOf(p.Local), remote: x.addressOf(p.Remote),
			cookie: p.Cookie, netns: p.Netns,
		})
	}
}

func (x formOf[F, A, T]) noted(m *ebpf.Map) ([]connectedPeer, error) {
	var out []connectedPeer
	var cookie uint64
	var peer struct{ Frontend, Backend A }
	it := m.Iterate()
	for it.Next(&cookie, &peer) {
		out = append(out, connectedPeer{frontend: x.addressOf(peer.Frontend), backend: x.addressOf(peer.Backend), cookie: cookie})
	}
	return out, ended(it)
}

func (x formOf[F, A, T]) datagrams(m *ebpf.Map) ([]Socket, error) {
	var out []Socket
	var k kernelDatagrams[A]
	var v kernelChoice[A]
	it := m.Iterate()
	for it.Next(&k, &v) {
		out = append(out, Socket{Cookie: k.Cookie, Service: x.addressOf(k.Address), Backend: x.addressOf(v.Backend)})
	}
	return out, ended(it)
}

func (x formOf[F, A, T]) traffic(m *ebpf.Map) ([]Traffic, error) {
	var out []Traffic
	var k kernelPath[F, A]
	var perCPU []bpf.UplinkTraffic
	it := m.Iterate()
	for it.Next(&k, &perCPU) {
		t := Traffic{Frontend: x.frontendOf(k.Frontend), Backend: x.addressOf(k.Backend)}
		for _, v := range perCPU {
			t.Connections += v.Connections
			t.Packets += v.Packets
		}
		out = append(out, t)
	}
	return out, ended(it)
}

// ended tells what went wrong with a walk through a map. Entries that come and go
// can end it early; what was seen counts.
func ended(it *ebpf.MapIterator) error {
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return err
	}
	return nil
}

func put[K, V any](m *ebpf.Map, keys []K, values []V) error {
	if len(keys) == 0 {
		return nil
	}
	_, err := m.BatchUpdate(keys, values, nil)
	return err
}

func remove[K any](m *ebpf.Map, keys []K) error {
	for len(keys) > 0 {
		n, err := m.BatchDelete(keys, nil)
		if err == nil {
			return nil
		}
		// A batch stops at a key that was deleted meanwhile.
		if !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		keys = keys[min(n+1, len(keys)):]
	}
	return nil
}

// readChunk is how many elements one system call reads. It has to hold the
// fullest hash bucket.
const readChunk = 4096

// eachEntry calls f for every entry of a map. What is entered or removed meanwhile
// may be missed, or come twice.
func eachEntry[K, V any](m *ebpf.Map, f func(K, V)) error {
	keys, values := make([]K, readChunk), make([]V, readChunk)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		for i := range n {
			f(keys[i], values[i])
		}
		if err != nil { // the end
			return nil //nolint:nilerr // the end of the map
		}
	}
}

// outside is the scope of frontends for packets from elsewhere, as the programs
// have it.
const outside = 1

func (f Frontend) scope() uint8 {
	if f.Outside {
		return outside
	}
	return 0
}

func frontendOf(addr []uint32, port uint16, protocol, scope uint8) Frontend {
	return Frontend{AddrPort: addrPort(addr, port), Protocol: Protocol(protocol), Outside: scope == outside}
}

func addrPort(addr []uint32, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(address(addr), bits.ReverseBytes16(port))
}

// words returns the address as the kernel has it in memory: one word, or four.
func words(a netip.Addr) []uint32 {
	b := a.AsSlice()
	w := make([]uint32, len(b)/4)
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

// address is the inverse of words.
func address(w []uint32) netip.Addr {
	b := make([]byte, 4*len(w))
	for i, v := range w {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		panic(fmt.Sprintf("invalid address of %d words", len(w)))
	}
	return a
}
