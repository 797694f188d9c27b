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

// setBits is how many bits of a source's key are the set's.
const setBits = 32

func sourceKey(set uint32, n netip.Prefix) bpf.UplinkSourceRange {
	return bpf.UplinkSourceRange{Bits: uint32(setBits + n.Bits()), Set: set, Addr: networkOrder(n.Masked().Addr())}
}

func sourceOf(k bpf.UplinkSourceRange) netip.Prefix {
	return netip.PrefixFrom(address(k.Addr), int(k.Bits)-setBits)
}

// writeSets writes what belongs to new sets besides their backends.
func (d *Datapath) writeSets(p *plan) error {
	for _, k := range p.newSources {
		if err := d.objects.Maps[bpf.SocketLBMapSourceRanges].Put(k, uint8(1)); err != nil {
			return fmt.Errorf("writing the clients of a service: %w", err)
		}
	}
	for _, t := range p.newTables {
		if err := d.writeTable(t); err != nil {
			return fmt.Errorf("writing a lookup table: %w", err)
		}
	}
	return nil
}

func (d *Datapath) writeTable(t setTable) error {
	inner, err := ebpf.NewMap(d.table)
	if err != nil {
		return err
	}
	defer inner.Close()
	value := make([]byte, d.table.ValueSize)
	for i, slot := range t.slots {
		binary.NativeEndian.PutUint16(value[2*i:], slot)
	}
	if err := inner.Put(uint32(0), value); err != nil {
		return err
	}
	return d.objects.Maps[bpf.SocketLBMapMaglev].Put(t.set, inner)
}

// dropSets removes what belonged to old sets besides their backends.
func (d *Datapath) dropSets(sources []bpf.UplinkSourceRange, tables []uint32) error {
	for _, k := range sources {
		if err := d.objects.Maps[bpf.SocketLBMapSourceRanges].Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("deleting the clients of a service: %w", err)
		}
	}
	for _, set := range tables {
		if err := d.objects.Maps[bpf.SocketLBMapMaglev].Delete(set); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("deleting a lookup table: %w", err)
		}
	}
	return nil
}

// sweepSets removes what a writer that died halfway left.
func (d *Datapath) sweepSets() error {
	orphans := d.contents.orphanSets
	if len(orphans) == 0 {
		return nil
	}
	all, _, err := d.readSets()
	if err != nil {
		return err
	}
	var sources []bpf.UplinkSourceRange
	for _, set := range orphans {
		for _, n := range all[set] {
			sources = append(sources, sourceKey(set, n))
		}
		delete(d.contents.sets, set)
	}
	d.contents.orphanSets = nil
	return d.dropSets(sources, orphans)
}

// readSets returns the sources of each set that is restricted, sorted, and which sets
// have a table.
func (d *Datapath) readSets() (map[uint32][]netip.Prefix, map[uint32]bool, error) {
	sources, tables := make(map[uint32][]netip.Prefix), make(map[uint32]bool)
	var k bpf.UplinkSourceRange
	var v uint8
	it := d.objects.Maps[bpf.SocketLBMapSourceRanges].Iterate()
	for it.Next(&k, &v) {
		sources[k.Set] = append(sources[k.Set], sourceOf(k))
	}
	if err := it.Err(); err != nil {
		return nil, nil, fmt.Errorf("reading the clients of services: %w", err)
	}
	for _, list := range sources {
		slices.SortFunc(list, netip.Prefix.Compare)
	}
	var set, id uint32
	it = d.objects.Maps[bpf.SocketLBMapMaglev].Iterate()
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
