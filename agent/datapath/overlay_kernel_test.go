package datapath_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
	"github.com/xebec-project/xebec/internal/netlab"
)

// encapsulated is a UDP datagram to a pod of a node, as another node's overlay encapsulates it.
func encapsulated(node, from, to netip.Addr, port uint16, text string) []byte {
	mac := node.As4()
	b := []byte{8, 0, 0, 0, 0, 0, 88, 0}                                // VXLAN with network 88
	b = append(b, 0x0a, 0x59, mac[0], mac[1], mac[2], mac[3])           // to the node's end of the overlay
	b = append(b, 0x0a, 0x59, 203, 0, 113, 9, 0x08, 0x00)               // IPv4
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0}               // UDP
	binary.BigEndian.PutUint16(ip[2:], uint16(20+8+len(text)))          // length
	ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)         // addresses
	binary.BigEndian.PutUint16(ip[10:], checksumOf(ip))                 // checksum
	b = append(b, ip...)                                                //
	b = binary.BigEndian.AppendUint16(b, 4000)                          // source port
	b = binary.BigEndian.AppendUint16(b, port)                          // destination port
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(text)))           // length
	return append(binary.BigEndian.AppendUint16(b, 0), []byte(text)...) // without a checksum
}

func checksumOf(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func testForgedEncapsulation(t *testing.T, change ...func(*datapath.Config)) {
	lab := netlab.New(t)
	lab.Segments(netip.MustParsePrefix("192.0.2.254/24"), netip.MustParsePrefix("203.0.113.254/24"))
	const self, other = "192.0.2.1", "203.0.113.1"
	registry := prometheus.NewRegistry()
	first := true
	w := newWireOf(t, lab, []string{self, other}, podnet.OverlayAuto, append(change, func(c *datapath.Config) {
		if first {
			c.Metrics = datapath.NewMetrics(registry)
		}
		first = false
	})...)
	victim, victimIP := w.pod(0, "victim")
	beside, besideIP := w.pod(0, "beside")
	there, thereIP := w.pod(1, "there")
	heard := make(chan string, 100)
	var ear net.PacketConn
	if err := victim.Do(func() (err error) { ear, err = net.ListenPacket("udp4", ":9999"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ear.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, _, err := ear.ReadFrom(buf)
			if err != nil {
				return
			}
			heard <- string(buf[:n])
		}
	}()
	send := func(from *netlab.Namespace, to, text string) {
		t.Helper()
		packet := encapsulated(netip.MustParseAddr(self), netip.MustParseAddr(thereIP), netip.MustParseAddr(victimIP), 9999, text)
		err := from.Do(func() error {
			c, err := net.Dial("udp4", to)
			if err != nil {
				return err
			}
			_, err = c.Write(packet)
			return errors.Join(err, c.Close())
		})
		if err != nil && !strings.Contains(err.Error(), "refused") {
			t.Fatal(err)
		}
	}
	port := fmt.Sprint(":", podnet.OverlayPort)
	// A service makes the node send to an address that its owner chooses, or takes the overlay's port.
	w.replace(1, outside(other+":30090", datapath.UDP, self+port))
	w.replace(0, outside(self+port, datapath.UDP, besideIP+":5353"))

	attempts := func() {
		t.Helper()
		send(beside, self+port, "a pod to its own node")
		send(beside, podnet.OverlayAddress(w.nodes[0].cfg.PodCIDR).String()+port, "a pod to its node's address in the overlay")
		send(there, self+port, "a pod to another node, which is masqueraded as its own node")
		send(there, podnet.OverlayAddress(w.nodes[0].cfg.PodCIDR).String()+port, "a pod through the overlay")
		send(w.client, self+port, "a host that is no node")
		send(w.client, other+":30090", "a host that is no node, by a node port")
		send(w.nodes[0].Namespace, self+port, "a process on the node")
	}
	// Packets that a node sent, the last of them after all others, are what arrives.
	verify := func() {
		t.Helper()
		var got []string
		await(t, "a packet of another node", func() error {
			send(w.nodes[1].Namespace, self+port, "another node")
			for {
				select {
				case text := <-heard:
					if text == "another node" {
						return nil
					}
					got = append(got, text)
				case <-time.After(brief):
					return fmt.Errorf("nothing came, but for %q", got)
				}
			}
		})
		for len(heard) > 0 {
			if text := <-heard; text != "another node" {
				got = append(got, text)
			}
		}
		if len(got) > 0 {
			t.Errorf("forged packets reached a pod: %q", got)
		}
	}
	_, next := watchDrops(t, w.nodes[0].dp)
	attempts()
	verify()
	var reported []string
	for range 4 {
		reported = append(reported, next())
	}
	for _, want := range []string{
		fmt.Sprint("UDP ", besideIP, " -> ", self, port, ": encapsulated"), fmt.Sprint("UDP ", clientIP, " -> ", self, port, ": encapsulated"),
		fmt.Sprint("UDP ", self, " -> ", self, port, ": encapsulated"),
	} {
		if !slices.Contains(reported, want) {
			t.Errorf("reported drops are %q, without %q", reported, want)
		}
	}
	if n := metricstest.Values(t, registry, metrics.DatapathDrops)["encapsulated"]; n < 4 {
		t.Errorf("%v drops were counted, want at least 4", n)
	}

	// The next agent guards what it finds, and what the one before knew of nodes holds.
	for _, n := range w.nodes {
		n.dp.Close()
		w.load(n)
	}
	attempts()
	verify()

	// A node that has left is a stranger.
	if err := w.nodes[0].dp.SetOverlayNodes(nil); err != nil {
		t.Fatal(err)
	}
	send(w.nodes[1].Namespace, self+port, "a node that has left")
	if err := w.nodes[0].dp.SetOverlayNodes([]netip.Addr{netip.MustParseAddr(other)}); err != nil {
		t.Fatal(err)
	}
	verify()
	// Traffic between pods goes on.
	w.expect(there, "udp4", victimIP+":5353", victimIP+" saw "+thereIP)
}

// Only other nodes get encapsulated packets into the overlay: no pod, host or service does.
func TestForgedEncapsulation(t *testing.T) { testForgedEncapsulation(t) }

// As on kernels before 6.6.
func TestForgedEncapsulationByClassicTC(t *testing.T) { testForgedEncapsulation(t, classicTC) }
