package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/internal/broadcast"
)

// Drop is a packet that the uplink's programs dropped, or a connection that a socket on
// the node was refused.
type Drop struct {
	Time     time.Time
	Protocol Protocol
	// Source is invalid for a socket.
	Source, Destination netip.AddrPort
	// Service is the name of the service that has the destination, as Service.Name; empty: unknown.
	Service string
	// Reason is a value of the reason label of the metric of drops, Message says it in
	// a sentence.
	Reason, Message string
	// Skipped drops before this one were counted only, since there were too many.
	Skipped uint32
}

// dropSentences say of each reason what it means, by the place of its counter.
var dropSentences = [...]string{
	countRefused:      "the service has no usable endpoint for this node: the connection of the socket was refused",
	countNoEndpoint:   "the service has no usable endpoint for this node",
	countSourceRange:  "the client is in none of the service's loadBalancerSourceRanges",
	countNoService:    "no service has this port of the load balancer's address",
	countNoRoute:      "the node has no route to the selected endpoint",
	countNoPort:       "no source port was free for the translation",
	countTableFull:    "the connection tracking table is full",
	countBroken:       "the packet is shorter than its headers",
	countEncapsulated: "the packet was sent to the overlay's port by an address that is not a node",
}

// drops are those of a node, read and named by its Syncer.
type drops = broadcast.Broadcaster[Drop]

// WatchDrops passes on what the programs tell of drops until the context ends; it returns
// the context's error.
func (s *Syncer) WatchDrops(ctx context.Context, d *Datapath) error {
	r, err := ringbuf.NewReader(d.families[0].sockets.Maps[bpf.SocketLBMapDrops])
	if err != nil {
		return fmt.Errorf("opening the buffer of drops: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	for {
		record, err := r.Read()
		if errors.Is(err, os.ErrClosed) {
			return ctx.Err()
		}
		if err != nil {
			r.Close()
			return fmt.Errorf("reading drops: %w", err)
		}
		var dropped bpf.UplinkDropped
		if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &dropped); err != nil {
			r.Close()
			return fmt.Errorf("reading a drop: %w", err)
		}
		s.drops.Add(s.dropOf(dropped))
	}
}

// Drops returns the drops of late, the oldest first, and, until stop is called, a channel of
// those to come. Who does not keep up misses some.
func (s *Syncer) Drops() (last []Drop, next <-chan Drop, stop func()) { return s.drops.Listen() }

// dropOf resolves the numbers of a program's record to names.
func (s *Syncer) dropOf(dropped bpf.UplinkDropped) Drop {
	d := Drop{
		Time: time.Now(), Protocol: Protocol(dropped.Protocol), Reason: "unknown", Skipped: dropped.Skipped,
		Destination: netip.AddrPortFrom(netip.AddrFrom16(dropped.Daddr).Unmap(), bits.ReverseBytes16(dropped.Dport)),
	}
	if now, err := sinceBoot(); err == nil {
		d.Time = d.Time.Add(-max(0, now-time.Duration(dropped.Time)))
	}
	if int(dropped.Reason) < len(dropSentences) {
		d.Reason, d.Message = dropReasons[dropped.Reason], dropSentences[dropped.Reason]
	}
	if source := netip.AddrFrom16(dropped.Saddr); !source.IsUnspecified() {
		d.Source = netip.AddrPortFrom(source.Unmap(), bits.ReverseBytes16(dropped.Sport))
	}
	d.Service = s.ServiceAt(Frontend{AddrPort: d.Destination, Protocol: d.Protocol, Outside: d.Source.IsValid()})
	return d
}
