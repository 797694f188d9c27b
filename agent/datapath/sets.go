package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/xebec-project/xebec/agent/bpf"
)

// Flags of a service, as the programs have them.
const (
	flagRestricted = 1
	flagMaglev     = 2
)

func (p *programmed) flags() uint32 {
	var flags uint32
	if len(p.sources) > 0 {
		flags |= flagRestricted
	}
	if p.maglev {
		flags |= flagMaglev
	}
	return flags
}

// setTable is the lookup table of a set of backends: the slot of one for each place.
type setTable struct {
	set   uint32
	slots []uint16
}

// sourceRange is a network of clients that a set is for.
type sourceRange struct {
	set     uint32
	network netip.Prefix
}

// setBits is how many bits of a source's key are the set's.
const setBits = 32

// key is struct source_range.
func (r sourceRange) key() []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(setBits+r.network.Bits()))
	b = binary.NativeEndian.AppendUint32(b, r.set)
	return append(b, r.network.Masked().Addr().AsSlice()...)
}

// sourceRangeOf is the inverse of key.
func sourceRangeOf(b []byte) sourceRange {
	addr, _ := netip.AddrFromSlice(b[8:])
	return sourceRange{binary.NativeEndian.Uint32(b[4:]), netip.PrefixFrom(addr, int(binary.NativeEndian.Uint32(b))-setBits)}
}

// writeSets writes what belongs to new sets besides their backends.
func (f *family) writeSets(p *plan) error {
	for _, r := range p.newSources {
		if err := f.table(bpf.SocketLBMapSourceRanges).Put(r.key(), uint8(1)); err != nil {
			return fmt.Errorf("writing the clients of a service: %w", err)
		}
	}
	for _, t := range p.newTables {
		if err := f.writeTable(t); err != nil {
			return fmt.Errorf("writing a lookup table: %w", err)
		}
	}
	return nil
}

func (f *family) writeTable(t setTable) error {
	inner, err := ebpf.NewMap(f.maglev)
	if err != nil {
		return err
	}
	defer inner.Close()
	value := make([]byte, f.maglev.ValueSize)
	for i, slot := range t.slots {
		binary.NativeEndian.PutUint16(value[2*i:], slot)
	}
	if err := inner.Put(uint32(0), value); err != nil {
		return err
	}
	return f.table(bpf.SocketLBMapMaglev).Put(t.set, inner)
}

// dropSets removes what belonged to old sets besides their backends.
func (f *family) dropSets(sources []sourceRange, tables []uint32) error {
	for _, r := range sources {
		if err := f.table(bpf.SocketLBMapSourceRanges).Delete(r.key()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("deleting the clients of a service: %w", err)
		}
	}
	for _, set := range tables {
		if err := f.table(bpf.SocketLBMapMaglev).Delete(set); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("deleting a lookup table: %w", err)
		}
	}
	return nil
}

// sweepSets removes what a writer that died halfway left.
func (f *family) sweepSets() error {
	orphans := f.contents.orphanSets
	if len(orphans) == 0 {
		return nil
	}
	all, _, err := f.readSets()
	if err != nil {
		return err
	}
	var sources []sourceRange
	for _, set := range orphans {
		for _, n := range all[set] {
			sources = append(sources, sourceRange{set, n})
		}
		delete(f.contents.sets, set)
	}
	f.contents.orphanSets = nil
	return f.dropSets(sources, orphans)
}

// readSets returns the sources of each set that is restricted, sorted, and which sets
// have a table.
func (f *family) readSets() (map[uint32][]netip.Prefix, map[uint32]bool, error) {
	sources, tables := make(map[uint32][]netip.Prefix), make(map[uint32]bool)
	var k []byte
	var v uint8
	it := f.table(bpf.SocketLBMapSourceRanges).Iterate()
	for it.Next(&k, &v) {
		r := sourceRangeOf(k)
		sources[r.set] = append(sources[r.set], r.network)
	}
	if err := it.Err(); err != nil {
		return nil, nil, fmt.Errorf("reading the clients of services: %w", err)
	}
	for _, list := range sources {
		slices.SortFunc(list, netip.Prefix.Compare)
	}
	var set, id uint32
	it = f.table(bpf.SocketLBMapMaglev).Iterate()
	for it.Next(&set, &id) {
		tables[set] = true
	}
	if err := it.Err(); err != nil {
		return nil, nil, fmt.Errorf("reading lookup tables: %w", err)
	}
	return sources, tables, nil
}

func boolsOf(sources map[uint32][]netip.Prefix) map[uint32]bool {
	out := make(map[uint32]bool, len(sources))
	for set := range sources {
		out[set] = true
	}
	return out
}
