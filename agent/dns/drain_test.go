package dns

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// TestDrainAnswersOpenConnections connects by TCP, ends the server, and asks then: the answer
// comes, and the server ends when it has been given. A connection that never asks holds the server
// for no longer than its limit.
func TestDrainAnswersOpenConnections(t *testing.T) {
	for _, asks := range []bool{true, false} {
		s := newServer(t, exampleRecords())
		bind(t, s)
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx) }()
		// Connections are accepted in order: once the second is answered, the first has been taken.
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		question := new(miekg.Msg)
		question.SetQuestion("web.default.svc.cluster.local.", miekg.TypeA)
		if _, _, err := (&miekg.Client{Net: "tcp"}).Exchange(question, s.Addr().String()); err != nil {
			t.Fatal(err)
		}
		stop()
		began := time.Now()
		if asks {
			// The server knows that it is to end once it answers no new connection.
			late := &miekg.Client{Net: "tcp", Timeout: 20 * time.Millisecond}
			for err == nil {
				_, _, err = late.Exchange(question, s.Addr().String())
			}
			answer, _, err := (&miekg.Client{Net: "tcp"}).ExchangeWithConn(question, &miekg.Conn{Conn: conn})
			if err != nil || answer.Rcode != miekg.RcodeSuccess {
				t.Errorf("asked after the end began: %v, %v", answer, err)
			}
		}
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve returned %v", err)
		}
		if waited := time.Since(began); !asks && waited < shutdownLimit/2 {
			t.Errorf("a connection that had not asked was cut after %v", waited)
		}
	}
}
