package datapath

import (
	"testing"
	"time"
)

func TestFlowsEnd(t *testing.T) {
	const now = 10 * time.Hour
	for name, c := range map[string]struct {
		protocol Protocol
		flow     kernelFlow[int]
		lasts    time.Duration
	}{
		"a connection":         {TCP, kernelFlow[int]{}, 3 * time.Hour},
		"one that was closed":  {TCP, kernelFlow[int]{Closed: 1}, time.Minute},
		"an unanswered one":    {TCP, kernelFlow[int]{Unanswered: 1}, time.Minute},
		"datagrams":            {UDP, kernelFlow[int]{}, 2 * time.Minute},
		"a datagram, no reply": {UDP, kernelFlow[int]{Unanswered: 1}, time.Minute},
		"pings":                {1, kernelFlow[int]{}, 2 * time.Minute},
	} {
		for _, over := range []bool{false, true} {
			idle := c.lasts
			if over {
				idle += time.Second
			}
			c.flow.Seen = uint32((now - idle) / time.Second)
			if got := c.flow.hasEnded(c.protocol, now); got != over {
				t.Errorf("%s, idle for %v, has ended: %v", name, idle, got)
			}
		}
	}
	// The clock of the programs may be a second ahead of what was read.
	if (kernelFlow[int]{Seen: uint32(now/time.Second) + 1}).hasEnded(UDP, now) {
		t.Error("a flow used just now has ended")
	}
}
