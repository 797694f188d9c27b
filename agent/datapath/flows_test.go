package datapath

import (
	"testing"
	"time"

	"github.com/xebec-project/xebec/agent/bpf"
)

func TestFlowsEnd(t *testing.T) {
	const now = 10 * time.Hour
	for name, c := range map[string]struct {
		protocol Protocol
		flow     bpf.UplinkFlow
		lasts    time.Duration
	}{
		"a connection":         {TCP, bpf.UplinkFlow{}, 3 * time.Hour},
		"one that was closed":  {TCP, bpf.UplinkFlow{Closed: 1}, time.Minute},
		"one nobody answered":  {TCP, bpf.UplinkFlow{Unanswered: 1}, time.Minute},
		"datagrams":            {UDP, bpf.UplinkFlow{}, 2 * time.Minute},
		"a datagram, no reply": {UDP, bpf.UplinkFlow{Unanswered: 1}, time.Minute},
		"pings":                {1, bpf.UplinkFlow{}, 2 * time.Minute},
	} {
		for _, over := range []bool{false, true} {
			idle := c.lasts
			if over {
				idle += time.Second
			}
			c.flow.Seen = uint32((now - idle) / time.Second)
			if got := hasEnded(uint8(c.protocol), c.flow, now); got != over {
				t.Errorf("%s, idle for %v, has ended: %v", name, idle, got)
			}
		}
	}
	// The clock of the programs may be a second ahead of what was read.
	if hasEnded(uint8(UDP), bpf.UplinkFlow{Seen: uint32(now/time.Second) + 1}, now) {
		t.Error("a flow used just now has ended")
	}
}
