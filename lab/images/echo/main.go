// Command echo is the lab's sample server: over HTTP it says which pod answers and what it was
// asked, over UDP it sends back what it gets, with the pod's name before it. Both listen on port
// 8080.
//
// On SIGTERM it says at /readyz that it is going, keeps answering for as long as $DRAIN says
// (default 1s), with each answer the last on its connection, finishes what it has begun and exits.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

const addr = ":8080"

// reply is what a request is answered with.
type reply struct {
	Pod       string      `json:"pod"`
	Namespace string      `json:"namespace,omitempty"`
	Node      string      `json:"node,omitempty"`
	PodIP     string      `json:"podIP,omitempty"`
	Hostname  string      `json:"hostname"`
	Client    string      `json:"client"`
	Method    string      `json:"method"`
	Host      string      `json:"host"`
	Path      string      `json:"path"`
	Header    http.Header `json:"header"`
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	drain := time.Second
	if text := os.Getenv("DRAIN"); text != "" {
		var err error
		if drain, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf("DRAIN: %w", err)
		}
	}
	var going atomic.Bool
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	defer udp.Close()
	go echoUDP(udp)
	server := &http.Server{Addr: addr, Handler: lastAnswers(&going, handler(&going)), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	log.Printf("%s serves on %s", podName(), addr)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	going.Store(true)
	log.Printf("draining for %s", drain)
	time.Sleep(drain)
	finish, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return server.Shutdown(finish)
}

// lastAnswers closes connections with the answer once the server is going: a client that keeps one
// is notified before the connection is cut under a request of its.
func lastAnswers(going *atomic.Bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if going.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

func handler(going *atomic.Bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if going.Load() {
			http.Error(w, "going", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/name", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, podName()) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		hostname, _ := os.Hostname()
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(reply{
			Pod: podName(), Namespace: os.Getenv("POD_NAMESPACE"), Node: os.Getenv("NODE_NAME"), PodIP: os.Getenv("POD_IP"),
			Hostname: hostname, Client: r.RemoteAddr, Method: r.Method, Host: r.Host, Path: r.URL.RequestURI(), Header: r.Header,
		})
	})
	return mux
}

// podName is $POD_NAME or, in pods that do not set it, the host name, which is the same unless the
// pod says otherwise.
func podName() string {
	if name := os.Getenv("POD_NAME"); name != "" {
		return name
	}
	name, _ := os.Hostname()
	return name
}

func echoUDP(conn net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Printf("udp: %v", err)
			continue
		}
		if _, err := conn.WriteTo(fmt.Appendf(nil, "%s %s", podName(), buf[:n]), from); err != nil {
			log.Printf("udp: %v", err)
		}
	}
}
