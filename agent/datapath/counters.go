package datapath

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/xebec-project/xebec/agent/bpf"
)

// Places in the programs' array of counters, in the order of enum counter.
const (
	countRefused = iota
	countNoEndpoint
	countSourceRange
	countNoService
	countNoRoute
	countNoPort
	countTableFull
	countBroken
	countEncapsulated
	countEntered
	countRemoved
	countersTotal
)

// dropReasons are the values of the label of dropped packets and refused connections, by
// the place of their counter.
var dropReasons = [...]string{
	countRefused:      "refused",
	countNoEndpoint:   "no_endpoint",
	countSourceRange:  "source_range",
	countNoService:    "no_service",
	countNoRoute:      "no_route",
	countNoPort:       "no_port",
	countTableFull:    "table_full",
	countBroken:       "broken",
	countEncapsulated: "encapsulated",
}

// counterMap has the counters of all families.
func (d *Datapath) counterMap() *ebpf.Map {
	return d.families[0].sockets.Maps[bpf.SocketLBMapCounts]
}

// counters returns the sum over all CPUs of each counter.
func (d *Datapath) counters() ([countersTotal]uint64, error) {
	var sums [countersTotal]uint64
	m := d.counterMap()
	for i := range sums {
		var perCPU []uint64
		if err := m.Lookup(uint32(i), &perCPU); err != nil {
			return sums, fmt.Errorf("reading a counter: %w", err)
		}
		for _, n := range perCPU {
			sums[i] += n
		}
	}
	return sums, nil
}

// countRemoved adds to the count of flows that the agent removed. It is kept beside those
// of the programs because it must live as long as they do.
func (d *Datapath) countRemoved(n int) error {
	m := d.counterMap()
	var perCPU []uint64
	if err := m.Lookup(uint32(countRemoved), &perCPU); err != nil {
		return fmt.Errorf("reading a counter: %w", err)
	}
	perCPU[0] += uint64(n)
	if err := m.Put(uint32(countRemoved), perCPU); err != nil {
		return fmt.Errorf("counting removed flows: %w", err)
	}
	return nil
}

// Traffic is what went from an address of a service to one of its endpoints.
type Traffic struct {
	Frontend Frontend
	Backend  netip.AddrPort
	// Connections counts connections, and flows of datagrams. Packets counts those of
	// clients outside, both ways; what the node's own sockets send is not seen.
	Connections, Packets uint64
}

// Traffic returns what was counted, most connections first. What was not used for long is
// forgotten when there is much else.
func (d *Datapath) Traffic() ([]Traffic, error) {
	var out []Traffic
	for _, f := range d.families {
		traffic, err := f.form.traffic(f.table(bpf.SocketLBMapTraffic))
		if err != nil {
			return nil, fmt.Errorf("reading the counters of services: %w", err)
		}
		out = append(out, traffic...)
	}
	slices.SortFunc(out, func(a, b Traffic) int {
		return cmp.Or(cmp.Compare(b.Connections, a.Connections), a.Frontend.compare(b.Frontend), a.Backend.Compare(b.Backend))
	})
	return out, nil
}
