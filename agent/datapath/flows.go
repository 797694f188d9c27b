package datapath

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/bpf"
)

// Ways of a flow's entry, as the programs have them.
const (
	wayToBackend = 1 + iota
	wayToClient
	wayToWorld
	wayToPod
	wayInbound
)

// After so long without a packet an entry is removed, unless the other one of its flow
// was used since. They are no shorter than what the programs wait before they give a
// flow's port to another.
const (
	tcpIdle        = 3 * time.Hour
	udpIdle        = 2 * time.Minute
	closedIdle     = time.Minute
	unansweredIdle = time.Minute
)

// sweepEvery is how often the table of flows is looked through.
const sweepEvery = 15 * time.Second

// Tend removes what has ended from the table of flows until the context ends; it returns
// the context's error. A failure is logged, and the next round tries again.
func (d *Datapath) Tend(ctx context.Context, log *zap.Logger) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := d.Sweep(); err != nil {
				log.Error("Flows that have ended may stay in the table until it is full", zap.Error(err))
			}
		}
	}
}

// Sweep removes the flows that have ended, and tells the metrics how full the table is.
func (d *Datapath) Sweep() error {
	if d.uplink == nil {
		return nil
	}
	now, err := sinceBoot()
	if err != nil {
		return err
	}
	flows := d.uplink.Maps[bpf.UplinkMapFlows]
	total := 0
	var ended []bpf.UplinkTuple
	err = eachFlow(flows, func(k bpf.UplinkTuple, f bpf.UplinkFlow) {
		total++
		if hasEnded(k.Protocol, f, now) {
			ended = append(ended, k)
		}
	})
	if err != nil {
		return fmt.Errorf("reading the table of flows: %w", err)
	}
	removed := 0
	for _, k := range ended {
		n, err := removeEnded(flows, k, now)
		removed += n
		if err != nil {
			return fmt.Errorf("removing a flow: %w", err)
		}
	}
	if removed > 0 {
		if err := d.countRemoved(removed); err != nil {
			return err
		}
	}
	sums, err := d.counters()
	if err != nil {
		return err
	}
	d.cfg.Metrics.swept(total-removed, int(flows.MaxEntries()), sums)
	return nil
}

// removeEnded removes the flow of an entry that had ended when it was read, unless either
// of its entries was used since. It returns how many entries went.
func removeEnded(flows *ebpf.Map, k bpf.UplinkTuple, now time.Duration) (int, error) {
	var f, other bpf.UplinkFlow
	if err := flows.Lookup(k, &f); errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	keys := []bpf.UplinkTuple{k}
	back := answerTo(f.Becomes)
	err := flows.Lookup(back, &other)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, err
	}
	if err == nil && back != k && other.Becomes == answerTo(k) {
		keys = append(keys, back)
		f.Seen = max(f.Seen, other.Seen)
		f.Closed |= other.Closed
		f.Unanswered |= other.Unanswered
	}
	if !hasEnded(k.Protocol, f, now) {
		return 0, nil
	}
	removed := 0
	for _, k := range keys {
		err := flows.Delete(k)
		if err == nil {
			removed++
		} else if !errors.Is(err, ebpf.ErrKeyNotExist) {
			return removed, err
		}
	}
	return removed, nil
}

// hasEnded tells whether an entry, or a flow, has been idle for so long that it is over.
func hasEnded(protocol uint8, f bpf.UplinkFlow, now time.Duration) bool {
	idle := udpIdle
	switch {
	case f.Closed != 0:
		idle = closedIdle
	case f.Unanswered != 0:
		idle = unansweredIdle
	case Protocol(protocol) == TCP:
		idle = tcpIdle
	}
	return idleOf(f, now) > idle
}

func idleOf(f bpf.UplinkFlow, now time.Duration) time.Duration {
	return max(now-time.Duration(f.Seen)*time.Second, 0)
}

// answerTo is the tuple of the packets that answer to what the tuple is of.
func answerTo(t bpf.UplinkTuple) bpf.UplinkTuple {
	return bpf.UplinkTuple{Saddr: t.Daddr, Daddr: t.Saddr, Sport: t.Dport, Dport: t.Sport, Protocol: t.Protocol}
}

// eachFlow calls f for every entry of the table. What is entered or removed meanwhile may
// be missed, or come twice.
func eachFlow(m *ebpf.Map, f func(bpf.UplinkTuple, bpf.UplinkFlow)) error {
	keys, values := make([]bpf.UplinkTuple, readChunk), make([]bpf.UplinkFlow, readChunk)
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
			return nil
		}
	}
}

// Flow is a flow that the uplink translates, or knows to leave alone, as the packets that
// begin it are.
type Flow struct {
	Protocol Protocol
	// Direction is "in" for clients outside of services, "out" for pods that reach the
	// outside, and "direct" for clients outside that reach a pod by its own address.
	Direction string
	// Source and Destination are those of packets as they come, TranslatedSource and
	// TranslatedDestination as they go on.
	Source, Destination                     netip.AddrPort
	TranslatedSource, TranslatedDestination netip.AddrPort
	// State is "open", "closed" once an end was seen, or "unanswered".
	State string
	// Idle is how long no packet passed, either way.
	Idle time.Duration
}

// Flows returns what the table of flows holds, in no order.
func (d *Datapath) Flows() ([]Flow, error) {
	if d.uplink == nil {
		return nil, nil
	}
	now, err := sinceBoot()
	if err != nil {
		return nil, err
	}
	forth := make(map[bpf.UplinkTuple]bpf.UplinkFlow)
	back := make(map[bpf.UplinkTuple]bpf.UplinkFlow) // by the tuple of the packets they answer to
	err = eachFlow(d.uplink.Maps[bpf.UplinkMapFlows], func(k bpf.UplinkTuple, f bpf.UplinkFlow) {
		switch f.Way {
		case wayToClient, wayToPod:
			back[answerTo(f.Becomes)] = f
		default:
			forth[k] = f
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading the table of flows: %w", err)
	}
	out := make([]Flow, 0, len(forth))
	for k, f := range forth {
		out = append(out, flowOf(k, f, back[k], now))
	}
	return out, nil
}

// flowOf describes a flow by its two entries; that of the way back may be missing.
func flowOf(k bpf.UplinkTuple, f, back bpf.UplinkFlow, now time.Duration) Flow {
	flow := Flow{
		Protocol: Protocol(k.Protocol), Direction: "out", State: "open", Idle: idleOf(f, now),
		Source: addrPort(k.Saddr, k.Sport), Destination: addrPort(k.Daddr, k.Dport),
		TranslatedSource: addrPort(f.Becomes.Saddr, f.Becomes.Sport), TranslatedDestination: addrPort(f.Becomes.Daddr, f.Becomes.Dport),
	}
	switch f.Way {
	case wayToBackend:
		flow.Direction = "in"
	case wayInbound: // kept by its answers
		flow.Direction = "direct"
		flow.Source, flow.Destination = flow.Destination, flow.Source
		flow.TranslatedSource, flow.TranslatedDestination = flow.Source, flow.Destination
	}
	if back.Way != 0 {
		flow.Idle = min(flow.Idle, idleOf(back, now))
	}
	switch {
	case f.Closed != 0:
		flow.State = "closed"
	case back.Unanswered != 0:
		flow.State = "unanswered"
	}
	return flow
}

func addrPort(addr uint32, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(address(addr), bits.ReverseBytes16(port))
}
