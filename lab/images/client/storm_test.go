package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// server answers requests like the echo image, on TCP and UDP ports of the same number.
func server(t *testing.T, handler http.Handler) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	address := s.Listener.Addr().String()
	udp, err := net.ListenPacket("udp4", address)
	if err != nil {
		t.Fatal(err)
	}
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
	return address
}

// stormed runs a storm of all kinds and returns its last word.
func stormed(t *testing.T, address string) (Summary, error) {
	t.Helper()
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := run(ctx, []string{"storm", address, "--tcp", "1", "--keep=1", "--udp", "1", "--hold", "1", "--for", "300ms", "--timeout", "5s"}, &out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var last Summary
	if jsonErr := json.Unmarshal([]byte(lines[len(lines)-1]), &last); jsonErr != nil || !last.Final {
		t.Fatalf("%v in %q, the storm ended with %v", jsonErr, &out, err)
	}
	return last, err
}

func TestStorm(t *testing.T) {
	last, err := stormed(t, server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "pod-1") })))
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
	})))
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
		t.Errorf("told %q", last.Failures)
	}
}
