package datapath

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/hook"
)

// hooks6 are the programs for IPv6, in the order of hooks.
var hooks6 = []struct {
	program string
	attach  ebpf.AttachType
}{
	{bpf.SocketLB6ProgRecvmsgIp6, ebpf.AttachCGroupUDP6Recvmsg},
	{bpf.SocketLB6ProgGetpeernameIp6, ebpf.AttachCgroupInet6GetPeername},
	{bpf.SocketLB6ProgSendmsgIp6, ebpf.AttachCGroupUDP6Sendmsg},
	{bpf.SocketLB6ProgConnectIp6, ebpf.AttachCGroupInet6Connect},
}

// sockets6 balances sockets that talk IPv6. It has programs and maps of its own,
// which work like those for IPv4, and no part in what passes the uplink. Nil:
// the node has no IPv6, and nothing is done. Its methods are called under the
// Datapath's lock.
type sockets6 struct {
	objects *ebpf.Collection
	// services and sets mirror the maps. They are read anew while reload is set.
	services map[bpf.SocketLB6Frontend6]programmed
	sets     map[uint32]bool
	orphans  []bpf.SocketLB6BackendKey6
	lastSet  uint32
	reload   bool
}

func loadSockets6(maps string) (*sockets6, error) {
	spec, err := bpf.LoadSocketLB6()
	if err != nil {
		return nil, fmt.Errorf("reading the socket programs for IPv6: %w", err)
	}
	if features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnSetRetval) == nil {
		if err := spec.Variables[bpf.SocketLB6VarCanSetRetval6].Set(uint8(1)); err != nil {
			return nil, fmt.Errorf("configuring the socket programs for IPv6: %w", err)
		}
	}
	objects, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: maps}})
	if err != nil {
		return nil, fmt.Errorf("loading the socket programs for IPv6 (maps pinned in %s): %w", maps, err)
	}
	return &sockets6{objects: objects, reload: true}, nil
}

func (s *sockets6) close() {
	if s != nil {
		s.objects.Close()
	}
}

// doubt has the maps read anew before the next write.
func (s *sockets6) doubt() {
	if s != nil {
		s.reload = true
	}
}

// attach makes sure that the programs are at the cgroup.
func (s *sockets6) attach(links string, cgroup *os.File, id uint64, renew bool) error {
	if s == nil {
		return nil
	}
	for _, h := range hooks6 {
		program := s.objects.Programs[h.program]
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

// plan6 is what is written to the kernel, in this order.
type plan6 struct {
	newBackends     map[bpf.SocketLB6BackendKey6]bpf.SocketLB6Backend6
	services        map[bpf.SocketLB6Frontend6]bpf.SocketLB6Service6
	deletedServices []bpf.SocketLB6Frontend6
	oldBackends     []bpf.SocketLB6BackendKey6
}

// replace makes the IPv6 services among those wanted the whole contents of the
// maps, writing only what differs.
func (s *sockets6) replace(wanted []Service) error {
	if s == nil {
		return nil
	}
	if err := s.refresh(); err != nil {
		return err
	}
	p := s.newPlan()
	keep := make(map[bpf.SocketLB6Frontend6]bool)
	for i := range wanted {
		if wanted[i].Frontend.Addr().Is6() {
			keep[frontendKey6(wanted[i].Frontend)] = true
			s.put(p, &wanted[i])
		}
	}
	for k := range s.services {
		if !keep[k] {
			s.remove(p, k)
		}
	}
	p.oldBackends = append(p.oldBackends, s.orphans...)
	for _, k := range s.orphans {
		delete(s.sets, k.Set)
	}
	s.orphans = nil
	return s.write(p)
}

// update writes what a change says of IPv6 services.
func (s *sockets6) update(c Change) error {
	if s == nil {
		return nil
	}
	if err := s.refresh(); err != nil {
		return err
	}
	p := s.newPlan()
	for i := range c.Put {
		if c.Put[i].Frontend.Addr().Is6() {
			s.put(p, &c.Put[i])
		}
	}
	for _, f := range c.Delete {
		if f.Addr().Is6() {
			s.remove(p, frontendKey6(f))
		}
	}
	return s.write(p)
}

// dump returns what the maps really hold.
func (s *sockets6) dump() ([]Service, error) {
	if s == nil {
		return nil, nil
	}
	s.reload = true
	if err := s.refresh(); err != nil {
		return nil, err
	}
	var out []Service
	for k, p := range s.services {
		out = append(out, Service{Frontend: frontendOf6(k), Affinity: time.Duration(p.affinity) * time.Second, Backends: p.backends})
	}
	return out, nil
}

func (s *sockets6) newPlan() *plan6 {
	return &plan6{newBackends: map[bpf.SocketLB6BackendKey6]bpf.SocketLB6Backend6{}, services: map[bpf.SocketLB6Frontend6]bpf.SocketLB6Service6{}}
}

func (s *sockets6) put(p *plan6, want *Service) {
	k, affinity := frontendKey6(want.Frontend), uint32(min(want.Affinity/time.Second, 1<<31))
	was, exists := s.services[k]
	sameSet := exists && !was.damaged && sameBackends(was.backends, want.Backends)
	if sameSet && was.affinity == affinity {
		return
	}
	now := programmed{set: was.set, affinity: affinity, backends: was.backends}
	if !sameSet {
		s.retire(p, was)
		now.set, now.backends = 0, assignSlots(was.backends, want.Backends)
		if len(now.backends) > 0 {
			now.set = s.newSet()
		}
		for slot, b := range now.backends {
			bk := bpf.SocketLB6BackendKey6{Set: now.set, Slot: uint32(slot)}
			p.newBackends[bk] = bpf.SocketLB6Backend6{Key: bk, Address: bpf.SocketLB6Address6{Addr: words(b.Addr()), Port: bits.ReverseBytes16(b.Port())}}
		}
	}
	s.services[k] = now
	p.services[k] = bpf.SocketLB6Service6{Frontend: k, AffinitySeconds: affinity, Set: now.set, Count: uint32(len(now.backends))}
}

func (s *sockets6) remove(p *plan6, k bpf.SocketLB6Frontend6) {
	was, exists := s.services[k]
	if !exists {
		return
	}
	s.retire(p, was)
	delete(s.services, k)
	p.deletedServices = append(p.deletedServices, k)
}

func (s *sockets6) retire(p *plan6, was programmed) {
	if was.damaged {
		return // what is left of it is among the orphans
	}
	delete(s.sets, was.set)
	for slot := range was.backends {
		p.oldBackends = append(p.oldBackends, bpf.SocketLB6BackendKey6{Set: was.set, Slot: uint32(slot)})
	}
}

// newSet returns an identifier that no set in the kernel has.
func (s *sockets6) newSet() uint32 {
	for {
		s.lastSet++
		if !s.sets[s.lastSet] && s.lastSet != 0 {
			s.sets[s.lastSet] = true
			return s.lastSet
		}
	}
}

// write carries the plan out. The mirror is ahead of the kernel while it does,
// and no longer to be trusted when it fails.
func (s *sockets6) write(p *plan6) error {
	backends, services := s.objects.Maps[bpf.SocketLB6MapBackends6], s.objects.Maps[bpf.SocketLB6MapServices6]
	s.reload = true
	if err := putAll(backends, p.newBackends); err != nil {
		return fmt.Errorf("writing IPv6 backends: %w", err)
	}
	if err := putAll(services, p.services); err != nil {
		return fmt.Errorf("writing IPv6 services: %w", err)
	}
	if err := remove(services, p.deletedServices); err != nil {
		return fmt.Errorf("deleting IPv6 services: %w", err)
	}
	if err := remove(backends, p.oldBackends); err != nil {
		return fmt.Errorf("deleting IPv6 backends: %w", err)
	}
	s.reload = false
	return nil
}

func putAll[K comparable, V any](m *ebpf.Map, entries map[K]V) error {
	keys, values := make([]K, 0, len(entries)), make([]V, 0, len(entries))
	for k, v := range entries {
		keys, values = append(keys, k), append(values, v)
	}
	return put(m, keys, values)
}

// refresh builds the mirror of what the kernel holds, if need be.
func (s *sockets6) refresh() error {
	if !s.reload {
		return nil
	}
	services, err := readAll[bpf.SocketLB6Frontend6, bpf.SocketLB6Service6](s.objects.Maps[bpf.SocketLB6MapServices6])
	if err != nil {
		return fmt.Errorf("reading IPv6 services: %w", err)
	}
	backends, err := readAll[bpf.SocketLB6BackendKey6, bpf.SocketLB6Backend6](s.objects.Maps[bpf.SocketLB6MapBackends6])
	if err != nil {
		return fmt.Errorf("reading IPv6 backends: %w", err)
	}
	s.services, s.sets = make(map[bpf.SocketLB6Frontend6]programmed, len(services)), make(map[uint32]bool, len(services))
	for k := range backends {
		s.sets[k.Set] = true
		s.lastSet = max(s.lastSet, k.Set)
	}
	for k, v := range services {
		p := programmed{set: v.Set, affinity: v.AffinitySeconds, damaged: v.Frontend != k}
		for slot := range v.Count {
			bk := bpf.SocketLB6BackendKey6{Set: v.Set, Slot: slot}
			b, ok := backends[bk]
			if !ok || b.Key != bk {
				p.damaged = true
				p.backends = append(p.backends, netip.AddrPort{})
				continue
			}
			p.backends = append(p.backends, netip.AddrPortFrom(address6(b.Address.Addr), bits.ReverseBytes16(b.Address.Port)))
		}
		if !p.damaged {
			for slot := range v.Count {
				delete(backends, bpf.SocketLB6BackendKey6{Set: v.Set, Slot: slot})
			}
		}
		s.services[k] = p
	}
	s.orphans = slices.SortedFunc(maps.Keys(backends), func(a, b bpf.SocketLB6BackendKey6) int {
		return cmp.Or(cmp.Compare(a.Set, b.Set), cmp.Compare(a.Slot, b.Slot))
	})
	s.reload = false
	return nil
}

func frontendKey6(f Frontend) bpf.SocketLB6Frontend6 {
	return bpf.SocketLB6Frontend6{Addr: words(f.Addr()), Port: bits.ReverseBytes16(f.Port()), Protocol: uint8(f.Protocol)}
}

func frontendOf6(k bpf.SocketLB6Frontend6) Frontend {
	return Frontend{AddrPort: netip.AddrPortFrom(address6(k.Addr), bits.ReverseBytes16(k.Port)), Protocol: Protocol(k.Protocol)}
}

// words returns the address as the kernel has it in memory.
func words(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func address6(w [4]uint32) netip.Addr {
	var b [16]byte
	for i, v := range w {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	return netip.AddrFrom16(b)
}
