package datapath

import (
	"context"
	"errors"
	"fmt"
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
				log.Error("Failed to remove expired flows", zap.Error(err))
			}
		}
	}
}

// Sweep removes the flows that have ended, and tells the metrics how full the tables are.
func (d *Datapath) Sweep() error {
	now, err := sinceBoot()
	if err != nil {
		return err
	}
	removed := 0
	fill := make(map[string]fill)
	for _, f := range d.families {
		if f.uplink == nil {
			continue
		}
		m := f.uplinkTable(bpf.UplinkMapFlows)
		total, n, err := f.form.sweep(m, now)
		removed += n
		if err != nil {
			return fmt.Errorf("removing expired flows: %w", err)
		}
		fill[bpf.UplinkMapFlows+f.suffix] = fillOf(total-n, m)
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
	d.cfg.Metrics.swept(fill, sums)
	return nil
}

// sweep removes the flows that have ended.
func (x formOf[F, A, T]) sweep(m *ebpf.Map, now time.Duration) (total, removed int, err error) {
	var ended []T
	err = eachEntry(m, func(k T, f kernelFlow[T]) {
		total++
		if f.hasEnded(x.tupleOf(k).protocol, now) {
			ended = append(ended, k)
		}
	})
	if err != nil {
		return total, 0, err
	}
	for _, k := range ended {
		n, err := x.removeEnded(m, k, now)
		removed += n
		if err != nil {
			return total, removed, err
		}
	}
	return total, removed, nil
}

// removeEnded removes the flow of an entry that had ended when it was read, unless either
// of its entries was used since. It returns how many entries went.
func (x formOf[F, A, T]) removeEnded(m *ebpf.Map, k T, now time.Duration) (int, error) {
	var f, other kernelFlow[T]
	if err := m.Lookup(k, &f); errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	keys := []T{k}
	back := x.answerTo(f.Becomes)
	err := m.Lookup(back, &other)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, err
	}
	if err == nil && back != k && other.Becomes == x.answerTo(k) {
		keys = append(keys, back)
		f.Seen = max(f.Seen, other.Seen)
		f.Closed |= other.Closed
		f.Unanswered |= other.Unanswered
	}
	if !f.hasEnded(x.tupleOf(k).protocol, now) {
		return 0, nil
	}
	removed := 0
	for _, k := range keys {
		err := m.Delete(k)
		if err == nil {
			removed++
		} else if !errors.Is(err, ebpf.ErrKeyNotExist) {
			return removed, err
		}
	}
	return removed, nil
}

// hasEnded reports whether an entry, or a flow, has been idle for so long that it is over.
func (f kernelFlow[T]) hasEnded(protocol Protocol, now time.Duration) bool {
	idle := udpIdle
	switch {
	case f.Closed != 0:
		idle = closedIdle
	case f.Unanswered != 0:
		idle = unansweredIdle
	case protocol == TCP:
		idle = tcpIdle
	}
	return f.idle(now) > idle
}

func (f kernelFlow[T]) idle(now time.Duration) time.Duration {
	return max(now-time.Duration(f.Seen)*time.Second, 0)
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

// Flows returns what the tables of flows hold, in no order.
func (d *Datapath) Flows() ([]Flow, error) {
	now, err := sinceBoot()
	if err != nil {
		return nil, err
	}
	var out []Flow
	for _, f := range d.families {
		if f.uplink == nil {
			continue
		}
		flows, err := f.form.flows(f.uplinkTable(bpf.UplinkMapFlows), now)
		if err != nil {
			return nil, fmt.Errorf("reading the connection tracking table: %w", err)
		}
		out = append(out, flows...)
	}
	return out, nil
}

func (x formOf[F, A, T]) flows(m *ebpf.Map, now time.Duration) ([]Flow, error) {
	forth := make(map[T]kernelFlow[T])
	back := make(map[T]kernelFlow[T]) // by the tuple of the packets they answer to
	err := eachEntry(m, func(k T, f kernelFlow[T]) {
		switch f.Way {
		case wayToClient, wayToPod:
			back[x.answerTo(f.Becomes)] = f
		default:
			forth[k] = f
		}
	})
	out := make([]Flow, 0, len(forth))
	for k, f := range forth {
		out = append(out, x.flowOf(k, f, back[k], now))
	}
	return out, err
}

// flowOf describes a flow by its two entries; that of the way back may be missing.
func (x formOf[F, A, T]) flowOf(k T, f, back kernelFlow[T], now time.Duration) Flow {
	packet, becomes := x.tupleOf(k), x.tupleOf(f.Becomes)
	flow := Flow{
		Protocol: packet.protocol, Direction: "out", State: "open", Idle: f.idle(now),
		Source: packet.from, Destination: packet.to, TranslatedSource: becomes.from, TranslatedDestination: becomes.to,
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
		flow.Idle = min(flow.Idle, back.idle(now))
	}
	switch {
	case f.Closed != 0:
		flow.State = "closed"
	case back.Unanswered != 0:
		flow.State = "unanswered"
	}
	return flow
}
