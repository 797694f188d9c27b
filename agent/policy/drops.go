package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/xebec-project/xebec/agent/bpf"
)

// reasons are why packets are dropped, by the numbers that the programs have for
// them.
var reasons = [...]string{
	bpf.PolicyPolicyReasonPOLICY_NOT_ALLOWED: "not-allowed",
	bpf.PolicyPolicyReasonPOLICY_REVOKED:     "revoked",
	bpf.PolicyPolicyReasonPOLICY_FRAGMENT:    "fragment",
}

func reasonOf(n uint8) string {
	if int(n) < len(reasons) {
		return reasons[n]
	}
	return "unknown"
}

// Drop is a packet that policies kept from a pod, or a pod from sending.
type Drop struct {
	Time time.Time
	// Direction is the packet's, as seen from Pod.
	Direction Direction
	// Pod is the namespace and name of the pod that policies select, PodAddr its
	// address, and Peer the name of the pod at the other end, if it is known to be
	// one.
	Pod, Peer         string
	PodAddr, PeerAddr netip.Addr
	PodPort, PeerPort uint16
	Protocol          Protocol
	// Reason is one of reasons, Rule the sentence about it.
	Reason, Rule string
	// Skipped drops before this one were counted only, since there were too many.
	Skipped uint32
}

// From and To are the ends of the packet's way, with ports where it has them.
func (d Drop) From() netip.AddrPort {
	if d.Direction == Egress {
		return netip.AddrPortFrom(d.PodAddr, d.PodPort)
	}
	return netip.AddrPortFrom(d.PeerAddr, d.PeerPort)
}

// To is From's opposite.
func (d Drop) To() netip.AddrPort {
	d.Direction = Ingress + Egress - d.Direction
	return d.From()
}

// watchDrops passes on what the programs tell of drops, until the reader is closed.
func watchDrops(r *ringbuf.Reader, on func(bpf.PolicyPolicyDrop)) error {
	for {
		record, err := r.Read()
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading drops: %w", err)
		}
		var d bpf.PolicyPolicyDrop
		if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &d); err != nil {
			return fmt.Errorf("reading a drop: %w", err)
		}
		on(d)
	}
}

// dropOf decodes the record of a program.
func dropOf(d bpf.PolicyPolicyDrop) Drop {
	age := max(0, time.Duration(monotonic()-int64(d.Time)))
	return Drop{
		Time: time.Now().Add(-age), Direction: Direction(d.Direction), PeerAddr: netip.AddrFrom16(d.Peer).Unmap(),
		PodPort: bits.ReverseBytes16(d.PodPort), PeerPort: bits.ReverseBytes16(d.PeerPort), Protocol: Protocol(d.Protocol),
		Reason: reasonOf(d.Reason), Skipped: d.Skipped,
	}
}

// Counts returns how many packets were dropped, by interface, direction and
// reason.
func (k *Kernel) counts() (map[bpf.PolicyPolicyCountKey]uint64, error) {
	out := map[bpf.PolicyPolicyCountKey]uint64{}
	var key bpf.PolicyPolicyCountKey
	var each []uint64
	it := k.objects.Maps[bpf.PolicyMapPolicyCounts].Iterate()
	for it.Next(&key, &each) {
		for _, n := range each {
			out[key] += n
		}
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("reading the counters of dropped packets: %w", err)
	}
	return out, nil
}
