package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/xebec-project/xebec/agent/bpf"
)

// contents mirrors the maps of services and backends, so that a change is
// computed without asking the kernel.
type contents struct {
	services map[bpf.SocketLBFrontend]programmed
	sets     map[uint32]struct{} // in use
	backends int                 // in all sets
	lastSet  uint32
	// orphans are backends that no service names: a writer died halfway.
	orphans []bpf.SocketLBBackendKey
	// orphanSets have sources or tables, and no service names them.
	orphanSets []uint32
}

type programmed struct {
	set      uint32
	affinity uint32
	maglev   bool
	sources  []netip.Prefix
	backends []netip.AddrPort // by slot
	damaged  bool             // a backend, or the table, is missing in the kernel
}

// newSet returns an identifier that no set in the kernel has. Identifiers are
// not used again for as long as the counter takes to come round.
func (c *contents) newSet() uint32 {
	for {
		c.lastSet++
		if _, used := c.sets[c.lastSet]; !used && c.lastSet != 0 {
			c.sets[c.lastSet] = struct{}{}
			return c.lastSet
		}
	}
}

// plan is what is written to the kernel, in this order.
type plan struct {
	newBackendKeys  []bpf.SocketLBBackendKey
	newBackends     []bpf.SocketLBBackend
	newSources      []bpf.UplinkSourceRange
	newTables       []setTable
	serviceKeys     []bpf.SocketLBFrontend
	services        []bpf.SocketLBService
	deletedServices []bpf.SocketLBFrontend
	oldBackends     []bpf.SocketLBBackendKey
	oldSources      []bpf.UplinkSourceRange
	oldTables       []uint32
}

// put plans the contents of one frontend and takes them into the mirror.
func (c *contents) put(p *plan, s *Service) {
	k := frontendKey(s.Frontend)
	affinity := uint32(min(s.Affinity/time.Second, 1<<31))
	was, exists := c.services[k]
	now := programmed{set: was.set, affinity: affinity, backends: was.backends}
	if len(s.Backends) > 0 && s.Frontend.Outside { // what has no endpoint refuses all
		now.maglev, now.sources = s.Maglev, s.Sources
	}
	sameSet := exists && !was.damaged && was.maglev == now.maglev && slices.Equal(was.sources, now.sources) && sameBackends(was.backends, s.Backends)
	if sameSet && was.affinity == affinity {
		return
	}
	if !sameSet {
		c.retire(p, was)
		now.set, now.backends = 0, assignSlots(was.backends, s.Backends)
		if len(now.backends) > 0 {
			now.set = c.newSet()
		}
		for _, n := range now.sources {
			p.newSources = append(p.newSources, sourceKey(now.set, n))
		}
		if now.maglev {
			p.newTables = append(p.newTables, setTable{now.set, maglevTable(now.backends)})
		}
		for slot, b := range now.backends {
			bk := bpf.SocketLBBackendKey{Set: now.set, Slot: uint32(slot)}
			p.newBackendKeys = append(p.newBackendKeys, bk)
			p.newBackends = append(p.newBackends, bpf.SocketLBBackend{
				Address: bpf.SocketLBAddress{Addr: networkOrder(b.Addr()), Port: bits.ReverseBytes16(b.Port())},
				Key:     bk,
			})
		}
	}
	c.backends += len(now.backends) - len(was.backends)
	c.services[k] = now
	p.serviceKeys = append(p.serviceKeys, k)
	p.services = append(p.services, bpf.SocketLBService{
		Set: now.set, Count: uint32(len(now.backends)), Frontend: k, AffinitySeconds: affinity, Flags: now.flags(),
	})
}

// remove plans that a frontend goes.
func (c *contents) remove(p *plan, k bpf.SocketLBFrontend) {
	was, exists := c.services[k]
	if !exists {
		return
	}
	c.retire(p, was)
	c.backends -= len(was.backends)
	delete(c.services, k)
	p.deletedServices = append(p.deletedServices, k)
}

func (c *contents) retire(p *plan, was programmed) {
	if was.damaged {
		return // what is left of it is among the orphans
	}
	delete(c.sets, was.set)
	for slot := range was.backends {
		p.oldBackends = append(p.oldBackends, bpf.SocketLBBackendKey{Set: was.set, Slot: uint32(slot)})
	}
	for _, n := range was.sources {
		p.oldSources = append(p.oldSources, sourceKey(was.set, n))
	}
	if was.maglev {
		p.oldTables = append(p.oldTables, was.set)
	}
}

// Replace makes the wanted services the whole contents of the maps, writing
// only what differs, and attaches the programs if they are not yet. After an
// error the contents are some of the old and some of the new; each frontend has
// the one or the other.
func (d *Datapath) Replace(wanted []Service) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refresh(); err != nil {
		return err
	}
	var p plan
	keep := make(map[bpf.SocketLBFrontend]struct{}, len(wanted))
	for i := range wanted {
		if wanted[i].Frontend.Addr().Is6() {
			continue
		}
		keep[frontendKey(wanted[i].Frontend)] = struct{}{}
		d.contents.put(&p, &wanted[i])
	}
	for k := range d.contents.services {
		if _, ok := keep[k]; !ok {
			d.contents.remove(&p, k)
		}
	}
	p.oldBackends = append(p.oldBackends, d.contents.orphans...)
	for _, k := range d.contents.orphans {
		delete(d.contents.sets, k.Set)
	}
	d.contents.orphans = nil
	if err := d.sweepSets(); err != nil {
		return err
	}
	if err := d.write(&p); err != nil {
		return err
	}
	if err := d.six.replace(wanted); err != nil {
		return err
	}
	if !d.attached {
		return d.attach()
	}
	return nil
}

// Update writes a change. After an error some of it may be written; Replace
// mends it.
func (d *Datapath) Update(c Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refresh(); err != nil {
		return err
	}
	var p plan
	for i := range c.Put {
		if c.Put[i].Frontend.Addr().Is4() {
			d.contents.put(&p, &c.Put[i])
		}
	}
	for _, f := range c.Delete {
		if f.Addr().Is4() {
			d.contents.remove(&p, frontendKey(f))
		}
	}
	if err := d.write(&p); err != nil {
		return err
	}
	return d.six.update(c)
}

// Verify reads the maps anew, so that the next Replace mends what others did to
// them, and attaches what was detached.
func (d *Datapath) Verify() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reload = true
	d.six.doubt()
	if err := d.refresh(); err != nil {
		return err
	}
	if err := d.Sweep(); err != nil {
		return err
	}
	if !d.attached {
		return nil
	}
	return d.eachHook(false)
}

// Dump returns what the maps really hold, sorted by frontend. The backends are
// in the order of their slots; one that is missing is the zero AddrPort.
func (d *Datapath) Dump() ([]Service, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, err := d.read()
	if err != nil {
		return nil, err
	}
	six, err := d.six.dump()
	if err != nil {
		return nil, err
	}
	out := make([]Service, 0, len(now.services)+len(six))
	out = append(out, six...)
	for k, p := range now.services {
		out = append(out, Service{
			Frontend: frontendOf(k),
			Affinity: time.Duration(p.affinity) * time.Second,
			Maglev:   p.maglev,
			Sources:  p.sources,
			Backends: p.backends,
		})
	}
	slices.SortFunc(out, func(a, b Service) int {
		return a.Frontend.compare(b.Frontend)
	})
	return out, nil
}

// write carries the plan out. The mirror is ahead of the kernel while it does,
// and no longer to be trusted when it fails.
func (d *Datapath) write(p *plan) error {
	backends, services := d.objects.Maps[bpf.SocketLBMapBackends], d.objects.Maps[bpf.SocketLBMapServices]
	d.reload = true
	if err := put(backends, p.newBackendKeys, p.newBackends); err != nil {
		return fmt.Errorf("writing backends: %w", err)
	}
	if err := d.writeSets(p); err != nil {
		return err
	}
	if err := put(services, p.serviceKeys, p.services); err != nil {
		return fmt.Errorf("writing services: %w", err)
	}
	if err := remove(services, p.deletedServices); err != nil {
		return fmt.Errorf("deleting services: %w", err)
	}
	if err := remove(backends, p.oldBackends); err != nil {
		return fmt.Errorf("deleting backends: %w", err)
	}
	if err := d.dropSets(p.oldSources, p.oldTables); err != nil {
		return err
	}
	d.reload = false
	d.cfg.Metrics.hold(len(d.contents.services), d.contents.backends, d.objects.Maps)
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
		// A batch stops at a key that somebody else has deleted.
		if !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		keys = keys[min(n+1, len(keys)):]
	}
	return nil
}

func (d *Datapath) refresh() error {
	if !d.reload {
		return nil
	}
	return d.readContents()
}

func (d *Datapath) readContents() error {
	now, err := d.read()
	if err != nil {
		return err
	}
	// An identifier just retired must not come back at once.
	now.lastSet = max(now.lastSet, d.contents.lastSet)
	d.contents = now
	d.reload = false
	return nil
}

// read builds a mirror of what the kernel holds.
func (d *Datapath) read() (contents, error) {
	services, err := readAll[bpf.SocketLBFrontend, bpf.SocketLBService](d.objects.Maps[bpf.SocketLBMapServices])
	if err != nil {
		return contents{}, fmt.Errorf("reading services: %w", err)
	}
	backends, err := readAll[bpf.SocketLBBackendKey, bpf.SocketLBBackend](d.objects.Maps[bpf.SocketLBMapBackends])
	if err != nil {
		return contents{}, fmt.Errorf("reading backends: %w", err)
	}
	sources, tables, err := d.readSets()
	if err != nil {
		return contents{}, err
	}
	c := contents{
		services: make(map[bpf.SocketLBFrontend]programmed, len(services)),
		sets:     make(map[uint32]struct{}, len(services)),
	}
	use := func(set uint32) {
		c.sets[set] = struct{}{}
		c.lastSet = max(c.lastSet, set)
	}
	for k := range backends {
		use(k.Set)
	}
	for set := range sources {
		use(set)
	}
	for set := range tables {
		use(set)
	}
	for k, s := range services {
		p := programmed{
			set: s.Set, affinity: s.AffinitySeconds, damaged: s.Frontend != k,
			maglev: s.Flags&flagMaglev != 0, sources: sources[s.Set],
		}
		p.damaged = p.damaged || p.maglev && !tables[s.Set] || s.Flags != p.flags()
		for slot := range s.Count {
			bk := bpf.SocketLBBackendKey{Set: s.Set, Slot: slot}
			b, ok := backends[bk]
			if !ok || b.Key != bk {
				p.damaged = true
				p.backends = append(p.backends, netip.AddrPort{})
				continue
			}
			p.backends = append(p.backends, netip.AddrPortFrom(address(b.Address.Addr), bits.ReverseBytes16(b.Address.Port)))
		}
		if !p.damaged {
			for slot := range s.Count {
				delete(backends, bpf.SocketLBBackendKey{Set: s.Set, Slot: slot})
			}
			delete(sources, s.Set)
			delete(tables, s.Set)
		}
		c.services[k] = p
		c.backends += len(p.backends)
	}
	c.orphans = slices.Collect(maps.Keys(backends))
	maps.Copy(tables, boolsOf(sources))
	c.orphanSets = slices.Collect(maps.Keys(tables))
	return c, nil
}

// readChunk is how many elements one system call reads. It has to hold the
// fullest hash bucket.
const readChunk = 4096

func readAll[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	out := make(map[K]V)
	keys, values := make([]K, readChunk), make([]V, readChunk)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, err
		}
		for i := range n {
			out[keys[i]] = values[i]
		}
		if err != nil { // the end
			return out, nil
		}
	}
}

// sameBackends tells whether the slots hold exactly the wanted backends.
func sameBackends(slots, wanted []netip.AddrPort) bool {
	if len(slots) != len(wanted) {
		return false
	}
	for _, b := range slots {
		if _, found := slices.BinarySearchFunc(wanted, b, netip.AddrPort.Compare); !found {
			return false
		}
	}
	return true
}

// outside is the scope of frontends for packets from elsewhere, as the programs
// have it.
const outside = 1

func frontendKey(f Frontend) bpf.SocketLBFrontend {
	k := bpf.SocketLBFrontend{Addr: networkOrder(f.Addr()), Port: bits.ReverseBytes16(f.Port()), Protocol: uint8(f.Protocol)}
	if f.Outside {
		k.Scope = outside
	}
	return k
}

func frontendOf(k bpf.SocketLBFrontend) Frontend {
	return Frontend{AddrPort: netip.AddrPortFrom(address(k.Addr), bits.ReverseBytes16(k.Port)), Protocol: Protocol(k.Protocol), Outside: k.Scope == outside}
}

// networkOrder returns the address as four bytes in memory, which is how the
// kernel has it. The zero address stands for none.
func networkOrder(a netip.Addr) uint32 {
	if !a.Is4() {
		return 0
	}
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func address(v uint32) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}
