package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// server answers requests like the echo image, on TCP and UDP ports of the same number.
func server(t *testing.T, handler http.Handler) string {
	t.Helper()
	udp, tcp := samePort(t)
	s := &httptest.Server{Listener: tcp, Config: &http.Server{Handler: handler}}
	s.Start()
	t.Cleanup(s.Close)
	t.Cleanup(func() { udp.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(fmt.Appendf(nil, "pod-1 %s", buf[:n]), from)
		}
	}()
	return tcp.Addr().String()
}

// samePort finds a port that is free for TCP and for UDP: others on this machine use ports too.
func samePort(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for {
		tcp, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp4", tcp.Addr().String())
		if err == nil {
			return udp, tcp
		}
		_ = tcp.Close()
		if !errors.Is(err, unix.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// stormed runs a storm of all kinds until each has seen enough, and returns its last word.
func stormed(t *testing.T, address string, enough func(kind int, seen *tally) bool) (Summary, error) {
	t.Helper()
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := &storm{address: netip.MustParseAddrPort(address), tcp: 1, keep: 1, udp: 1, hold: 1, timeout: 5 * time.Second}
	over := make(chan error, 1)
	go func() { over <- s.run(ctx, &out) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for kind := range s.kinds {
		for ctx.Err() == nil && !enough(kind, &s.kinds[kind]) {
			<-tick.C
		}
	}
	cancel()
	err := <-over
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var last Summary
	if jsonErr := json.Unmarshal([]byte(lines[len(lines)-1]), &last); jsonErr != nil || !last.Final {
		t.Fatalf("%v in %q, the storm ended with %v", jsonErr, &out, err)
	}
	return last, err
}

func TestStorm(t *testing.T) {
	last, err := stormed(t, server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "pod-1") })), func(_ int, seen *tally) bool {
		return seen.requests.Load() > 0
	})
	if err != nil {
		t.Errorf("%v: %+v", err, last)
	}
	for _, kind := range kindNames {
		if o := last.Kinds[kind]; o.Requests == 0 || o.Failed > 0 || o.P50 == 0 || o.P50 > o.P99 || o.P99 > o.Longest {
			t.Errorf("%s: %+v", kind, o)
		}
	}
}

// What keeps a connection must notice that it broke; who may retry does, and says so.
func TestStormCountsFailures(t *testing.T) {
	last, err := stormed(t, server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		if !r.Close {
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx\n")
		}
		conn.Close()
	})), func(kind int, seen *tally) bool {
		switch kind {
		case kindTCP, kindHold:
			return seen.failed.Load() > 0
		case kindKeep:
			return seen.reopened.Load() > 0
		}
		return true
	})
	if err == nil {
		t.Error("the storm succeeded")
	}
	if o := last.Kinds["tcp"]; o.Failed != o.Requests || o.Failed == 0 {
		t.Errorf("tcp, whose connections all broke: %+v", o)
	}
	if o := last.Kinds["keep"]; o.Reopened == 0 || o.Failed != 0 {
		t.Errorf("keep, whose connections broke after an answer: %+v", o)
	}
	if o := last.Kinds["hold"]; o.Failed == 0 {
		t.Errorf("hold, whose connections broke after an answer: %+v", o)
	}
	if len(last.Failures) == 0 || len(last.Failures) > mostFailures {
		t.Errorf("reported %q", last.Failures)
	}
}
