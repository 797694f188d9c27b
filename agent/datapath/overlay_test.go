package datapath_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/internal/netlab"
)

func testNodePortsThroughOverlay(t *testing.T, change ...func(*datapath.Config)) {
	lab := netlab.New(t)
	lab.Segments(netip.MustParsePrefix("192.0.2.254/24"), netip.MustParsePrefix("203.0.113.254/24"))
	const self, other = "192.0.2.1", "203.0.113.1"
	w := newWireOf(t, lab, []string{self, other}, podnet.OverlayAuto, change...)
	_, here := w.pod(0, "here")
	there, thereIP := w.pod(1, "there")
	serveSeen(t, w.nodes[0].Namespace, self)
	serveSeen(t, w.nodes[1].Namespace, other)
	serveSeen(t, w.client, clientIP)
	var services []datapath.Service
	for i, backend := range []string{here, thereIP, other} {
		services = append(services,
			outside(fmt.Sprint(self, ":", 30080+i), datapath.TCP, backend+":8080"),
			outside(fmt.Sprint(self, ":", 30080+i), datapath.UDP, backend+":5353"))
	}
	w.replace(0, services...)
	overlay := podnet.OverlayAddress(w.nodes[0].cfg.PodCIDR).String()
	far := w.lab.Host(netip.MustParsePrefix("203.0.113.100/24"))
	for _, client := range []struct {
		*netlab.Namespace
		ip string
	}{{w.client, clientIP}, {far, "203.0.113.100"}} {
		for i, want := range []string{
			here + " saw " + client.ip,
			thereIP + " saw " + overlay,
			other + " saw " + self,
		} {
			for _, network := range []string{"tcp4", "udp4"} {
				for range 3 {
					w.expect(client.Namespace, network, fmt.Sprint(self, ":", 30080+i), want)
				}
			}
		}
	}
	for i := range services[:3] {
		w.transfer(fmt.Sprint(self, ":", 30080+i))
	}

	// A datagram that fills the client's network is larger than the overlay's, and
	// fragmented when that is allowed.
	c, err := dial(w.client, "udp4", self+":30081")
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
	if err != nil {
		t.Fatal(err)
	}
	// A busy machine may lose one of its parts.
	await(t, "a large datagram", func() error {
		c.SetDeadline(time.Now().Add(brief))
		if _, err := c.Write(make([]byte, 1500-28)); err != nil {
			return err
		}
		answer := make([]byte, 64)
		n, err := c.Read(answer)
		if err == nil && string(answer[:n]) != thereIP+" saw "+overlay {
			t.Errorf("a large datagram is answered by %q", answer[:n])
		}
		return err
	})

	// Pods keep their addresses among themselves. Destinations that the router would have to tell of
	// pods, a node of another network among them, sees the node's.
	w.expect(there, "tcp4", here+":8080", here+" saw "+thereIP)
	w.expect(there, "tcp4", self+":8080", self+" saw "+other)
	w.expect(there, "udp4", clientIP+":5353", clientIP+" saw "+other)
	if err := there.Do(func() error { return ping(self) }); err != nil {
		t.Errorf("pinging a node of another network: %v", err)
	}
	if err := there.Do(func() error { return ping(here) }); err != nil {
		t.Errorf("pinging a pod of another network: %v", err)
	}

	// The next agent takes over what it finds.
	w.nodes[0].dp.Close()
	w.load(w.nodes[0])
	w.replace(0, services...)
	w.expect(w.client, "tcp4", self+":30081", thereIP+" saw "+overlay)
}

func TestNodePortsThroughOverlay(t *testing.T) { testNodePortsThroughOverlay(t) }

// As on kernels before 6.6.
func TestNodePortsThroughOverlayByClassicTC(t *testing.T) {
	testNodePortsThroughOverlay(t, func(c *datapath.Config) { c.ClassicTC = true })
}
