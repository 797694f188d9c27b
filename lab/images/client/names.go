package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Answered is when a pod answered first and last, in nanoseconds since 1970.
type Answered struct {
	First int64 `json:"first"`
	Last  int64 `json:"last"`
}

// names asks an address who answers, again and again on new connections, and in the end prints as
// JSON when each pod was connected to first and last.
func names(ctx context.Context, out io.Writer, address netip.AddrPort, interval, timeout time.Duration) error {
	client := newClient(timeout, false, 1)
	seen := map[string]Answered{}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for first := true; first || ctx.Err() == nil; first = false {
		began := time.Now().UnixNano()
		if name, err := call(context.WithoutCancel(ctx), client, "http://"+address.String()+"/name"); err == nil {
			a := seen[strings.TrimSpace(string(name))]
			if a.First == 0 {
				a.First = time.Now().UnixNano()
			}
			a.Last = began
			seen[strings.TrimSpace(string(name))] = a
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	client.Transport.(*http.Transport).CloseIdleConnections()
	return json.NewEncoder(out).Encode(seen)
}
