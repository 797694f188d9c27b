package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails when a goroutine outlives the tests.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHandler(t *testing.T) {
	t.Setenv("POD_NAME", "echo-1")
	t.Setenv("NODE_NAME", "node-1")
	var going atomic.Bool
	server := httptest.NewServer(handler(&going))
	defer server.Close()
	response, err := http.Get(server.URL + "/a?b=c")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var got reply
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Pod != "echo-1" || got.Node != "node-1" || got.Path != "/a?b=c" || got.Method != "GET" {
		t.Errorf("reply = %+v", got)
	}
	for _, want := range []int{http.StatusOK, http.StatusServiceUnavailable} {
		response, err := http.Get(server.URL + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("readyz = %d, want %d", response.StatusCode, want)
		}
		going.Store(true)
	}
}

func TestEchoUDP(t *testing.T) {
	t.Setenv("POD_NAME", "echo-1")
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { echoUDP(server); close(done) }()
	conn, err := net.Dial("udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != "echo-1 hello" {
		t.Errorf("answer = %q, %v", buf[:n], err)
	}
	server.Close()
	<-done
}
