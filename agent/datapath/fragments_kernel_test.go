package datapath_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/internal/netlab"
)

// echoDatagrams sends every datagram at port 5354 back whole.
func echoDatagrams(t *testing.T, ns *netlab.Namespace, ip string) {
	t.Helper()
	var conn net.PacketConn
	if err := ns.Do(func() (err error) { conn, err = net.ListenPacket("udp", hostPort(ip, 5354)); return err }); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-ended })
	go func() {
		defer close(ended)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			conn.WriteTo(buf[:n], from)
		}
	}()
}

// sendsWhole sends a datagram that takes several packets, and waits for all of it to come back.
func sendsWhole(t *testing.T, from *netlab.Namespace, to string, size int) {
	t.Helper()
	c, err := dial(from, "udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	})
	if err != nil && !errors.Is(err, syscall.ENOPROTOOPT) {
		t.Fatal(err)
	}
	data, got := make([]byte, size), make([]byte, 1<<16)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	// A packet may be lost, or its parts come out of order, on a machine that is busy.
	for range 5 {
		c.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err = c.Write(data); err != nil {
			break
		}
		var n int
		if n, err = c.Read(got); err == nil && bytes.Equal(got[:n], data) {
			return
		}
	}
	t.Errorf("%d bytes to %s did not come back: %v", size, to, err)
}

func testFragments(t *testing.T, e ends, change ...func(*datapath.Config)) {
	w := newWire(t, change...)
	var services []datapath.Service
	var pods []*netlab.Namespace
	for i, name := range []string{"here", "there"} {
		pod, ip := e.pod(w, i, name)
		echoDatagrams(t, pod, ip)
		services = append(services, outside(hostPort(e.self, 30080+i), datapath.UDP, hostPort(ip, 5354)))
		pods = append(pods, pod)
	}
	w.replace(0, services...)
	for range 3 {
		for i := range services {
			// The first packet of a flow, and later ones, with fragments of their own.
			for _, size := range []int{5000, 100, 30000, 1473} {
				sendsWhole(t, w.client, hostPort(e.self, 30080+i), size)
			}
		}
		if t.Failed() {
			return
		}
	}
	// And from a pod to the outside.
	echoDatagrams(t, w.client, e.client)
	for _, pod := range pods {
		sendsWhole(t, pod, hostPort(e.client, 5354), 5000)
	}
}

func TestFragments(t *testing.T) { testFragments(t, ends4) }

func TestFragmentsByClassicTC(t *testing.T) { testFragments(t, ends4, classicTC) }

func TestFragmentsByIPv6(t *testing.T) { testFragments(t, ends6, dualStack) }
