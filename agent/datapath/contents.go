package datapath

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/xebec-project/xebec/agent/bpf"
)

// contents mirrors one family's maps of services and backends, so that a change is
// computed without asking the kernel.
type contents struct {
	services map[Frontend]programmed
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
	newBackends     []placedBackend
	newSources      []sourceRange
	newTables       []setTable
	services        []servedFrontend
	deletedServices []Frontend
	oldBackends     []bpf.SocketLBBackendKey
	oldSources      []sourceRange
	oldTables       []uint32
}

// placedBackend is a backend at its place in a set.
type placedBackend struct {
	at      bpf.SocketLBBackendKey
	address netip.AddrPort
}

// servedFrontend is a frontend and what it is to have.
type servedFrontend struct {
	frontend Frontend
	programmed
}

// put plans the contents of one frontend and takes them into the mirror.
func (c *contents) put(p *plan, s *Service) {
	affinity := uint32(min(s.Affinity/time.Second, 1<<31))
	was, exists := c.services[s.Frontend]
	now := programmed{set: was.set, affinity: affinity, backends: was.backends}
	if len(s.Backends) > 0 && s.Frontend.Outside { // what has no endpoint refuses all
		now.maglev, now.sources = s.Maglev, s.Sources
	}
	sameSet := exists && !was.damaged && was.maglev == now.maglev && slices.Equal(was.sources, now.sources) &&
		sameBackends(was.backends, s.Backends)
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
			p.newSources = append(p.newSources, sourceRange{now.set, n})
		}
		if now.maglev {
			p.newTables = append(p.newTables, setTable{now.set, maglevTable(now.backends)})
		}
		for slot, b := range now.backends {
			p.newBackends = append(p.newBackends, placedBackend{bpf.SocketLBBackendKey{Set: now.set, Slot: uint32(slot)}, b})
		}
	}
	c.backends += len(now.backends) - len(was.backends)
	c.services[s.Frontend] = now
	p.services = append(p.services, servedFrontend{s.Frontend, now})
}

// remove plans that a frontend goes.
func (c *contents) remove(p *plan, f Frontend) {
	was, exists := c.services[f]
	if !exists {
		return
	}
	c.retire(p, was)
	c.backends -= len(was.backends)
	delete(c.services, f)
	p.deletedServices = append(p.deletedServices, f)
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
		p.oldSources = append(p.oldSources, sourceRange{was.set, n})
	}
	if was.maglev {
		p.oldTables = append(p.oldTables, was.set)
	}
}

// replace makes the services among those wanted that are of the family the whole
// contents of its maps, writing only what differs.
func (f *family) replace(wanted []Service) error {
	if err := f.refresh(); err != nil {
		return err
	}
	var p plan
	c := &f.contents
	keep := make(map[Frontend]struct{}, len(wanted))
	for i := range wanted {
		if f.has(wanted[i].Frontend.Addr()) {
			keep[wanted[i].Frontend] = struct{}{}
			c.put(&p, &wanted[i])
		}
	}
	for k := range c.services {
		if _, ok := keep[k]; !ok {
			c.remove(&p, k)
		}
	}
	p.oldBackends = append(p.oldBackends, c.orphans...)
	for _, k := range c.orphans {
		delete(c.sets, k.Set)
	}
	c.orphans = nil
	if err := f.sweepSets(); err != nil {
		return err
	}
	return f.write(&p)
}

// update writes what a change says of the family's services.
func (f *family) update(c Change) error {
	if err := f.refresh(); err != nil {
		return err
	}
	var p plan
	for i := range c.Put {
		if f.has(c.Put[i].Frontend.Addr()) {
			f.contents.put(&p, &c.Put[i])
		}
	}
	for _, k := range c.Delete {
		if f.has(k.Addr()) {
			f.contents.remove(&p, k)
		}
	}
	return f.write(&p)
}

// Replace makes the wanted services the whole contents of the maps, writing
// only what differs, and attaches the programs if they are not yet. After an
// error the contents are some of the old and some of the new; each frontend has
// the one or the other.
func (d *Datapath) Replace(wanted []Service) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.families {
		if err := f.replace(wanted); err != nil {
			return err
		}
	}
	d.cfg.Metrics.hold(d.families)
	if !d.attached {
		return d.attach()
	}
	return nil
}

// Update writes a change. After an error a part of it may be written; Replace repairs that.
func (d *Datapath) Update(c Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.families {
		if err := f.update(c); err != nil {
			return err
		}
	}
	d.cfg.Metrics.hold(d.families)
	return nil
}

// Verify reads the maps again, so that the next Replace repairs changes by others, and attaches
// programs that were detached.
func (d *Datapath) Verify() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.families {
		f.reload = true
		if err := f.refresh(); err != nil {
			return err
		}
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
	var out []Service
	for _, f := range d.families {
		now, err := f.read()
		if err != nil {
			return nil, err
		}
		for k, p := range now.services {
			out = append(out, Service{
				Frontend: k,
				Affinity: time.Duration(p.affinity) * time.Second,
				Maglev:   p.maglev,
				Sources:  p.sources,
				Backends: p.backends,
			})
		}
	}
	slices.SortFunc(out, func(a, b Service) int {
		return a.Frontend.compare(b.Frontend)
	})
	return out, nil
}

// write carries the plan out. The mirror is ahead of the kernel while it does,
// and no longer to be trusted when it fails.
func (f *family) write(p *plan) error {
	backends, services := f.table(bpf.SocketLBMapBackends), f.table(bpf.SocketLBMapServices)
	f.reload = true
	if err := f.form.putBackends(backends, p.newBackends); err != nil {
		return fmt.Errorf("writing backends: %w", err)
	}
	if err := f.writeSets(p); err != nil {
		return err
	}
	if err := f.form.putServices(services, p.services); err != nil {
		return fmt.Errorf("writing services: %w", err)
	}
	if err := f.form.removeServices(services, p.deletedServices); err != nil {
		return fmt.Errorf("deleting services: %w", err)
	}
	if err := remove(backends, p.oldBackends); err != nil {
		return fmt.Errorf("deleting backends: %w", err)
	}
	if err := f.dropSets(p.oldSources, p.oldTables); err != nil {
		return err
	}
	f.reload = false
	return nil
}

// refresh reads the mirror again if it is not current.
func (f *family) refresh() error {
	if !f.reload {
		return nil
	}
	now, err := f.read()
	if err != nil {
		return err
	}
	// An identifier just retired must not come back at once.
	now.lastSet = max(now.lastSet, f.contents.lastSet)
	f.contents = now
	f.reload = false
	return nil
}

// read builds a mirror of what the kernel holds.
func (f *family) read() (contents, error) {
	services, err := f.form.services(f.table(bpf.SocketLBMapServices))
	if err != nil {
		return contents{}, fmt.Errorf("reading services: %w", err)
	}
	backends, err := f.form.backends(f.table(bpf.SocketLBMapBackends))
	if err != nil {
		return contents{}, fmt.Errorf("reading backends: %w", err)
	}
	sources, tables, err := f.readSets()
	if err != nil {
		return contents{}, err
	}
	c := contents{
		services: make(map[Frontend]programmed, len(services)),
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
		p := programmed{set: s.set, affinity: s.affinity, damaged: s.damaged, maglev: s.flags&flagMaglev != 0, sources: sources[s.set]}
		p.damaged = p.damaged || p.maglev && !tables[s.set] || s.flags != p.flags()
		for slot := range s.count {
			b := backends[bpf.SocketLBBackendKey{Set: s.set, Slot: slot}]
			p.damaged = p.damaged || !b.IsValid()
			p.backends = append(p.backends, b)
		}
		if !p.damaged {
			for slot := range s.count {
				delete(backends, bpf.SocketLBBackendKey{Set: s.set, Slot: slot})
			}
			delete(sources, s.set)
			delete(tables, s.set)
		}
		c.services[k] = p
		c.backends += len(p.backends)
	}
	c.orphans = slices.Collect(maps.Keys(backends))
	maps.Copy(tables, boolsOf(sources))
	c.orphanSets = slices.Collect(maps.Keys(tables))
	return c, nil
}

// sameBackends reports whether the slots hold exactly the wanted backends.
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
