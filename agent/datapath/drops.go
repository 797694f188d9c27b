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
	"github.com/xebec-project/xebec/agent/internal/feed"
)

// Drop is a packet that the uplink's programs dropped, or a connection that a socket on
// the node was refused.
type Drop struct {
	Time     time.Time
	Protocol Protocol
	// Source is invalid for a socket.
	Source, Destination netip.AddrPort
	// Service is who has the destination, as Service.Name; empty: nobody is known to.
	Service string
	// Reason is a value of the reason label of the metric of drops, Message says it in
	// a sentence.
	Reason, Message string
	// Skipped drops before this one were counted only, since there were too many.
	Skipped uint32
}

// dropSentences say of each reason what it means, by the place of its counter.
var dropSentences = [...]string{
	countRefused:      "the service has no endpoint for this node to use: the socket was refused",
	countNoEndpoint:   "the service has no endpoint for this node to use",
	countSourceRange:  "the client is in none of the ranges that the service is for",
	countNoService:    "no service has this port of the load balancer's address",
	countNoRoute:      "the node has no route to the endpoint that was chosen",
	countNoPort:       "no source port was free for the way back",
	countTableFull:    "the table of flows took no more",
	countBroken:       "the packet is too short for its headers",
	countEncapsulated: "the packet is to the overlay's port, and is not from another node",
}

// drops are those of a node, read and named by its Syncer.
type drops = feed.Feed[Drop]

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
		var told bpf.UplinkDropped
		if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &told); err != nil {
			r.Close()
			return fmt.Errorf("reading a drop: %w", err)
		}
		s.drops.Add(s.dropOf(told))
	}
}

// Drops returns the drops of late, the oldest first, and, until stop is called, a channel of
// those to come. Who does not keep up misses some.
func (s *Syncer) Drops() (last []Drop, next <-chan Drop, stop func()) { return s.drops.Listen() }

// dropOf names what a program told of by numbers.
func (s *Syncer) dropOf(told bpf.UplinkDropped) Drop {
	d := Drop{
		Time: time.Now(), Protocol: Protocol(told.Protocol), Reason: "unknown", Skipped: told.Skipped,
		Destination: netip.AddrPortFrom(netip.AddrFrom16(told.Daddr).Unmap(), bits.ReverseBytes16(told.Dport)),
	}
	if now, err := sinceBoot(); err == nil {
		d.Time = d.Time.Add(-max(0, now-time.Duration(told.Time)))
	}
	if int(told.Reason) < len(dropSentences) {
		d.Reason, d.Message = dropReasons[told.Reason], dropSentences[told.Reason]
	}
	if source := netip.AddrFrom16(told.Saddr); !source.IsUnspecified() {
		d.Source = netip.AddrPortFrom(source.Unmap(), bits.ReverseBytes16(told.Sport))
	}
	d.Service = s.ServiceAt(Frontend{AddrPort: d.Destination, Protocol: d.Protocol, Outside: d.Source.IsValid()})
	return d
}
