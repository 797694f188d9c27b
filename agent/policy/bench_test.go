package policy_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/policy"
)

// loopback stands for a pod's interface: programs that are run by hand see it.
const loopback = 1

// frame is a packet of a TCP connection.
func frame(from, to string, fromPort, toPort uint16, flags byte) []byte {
	b := make([]byte, 14+20+20)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip, tcp := b[14:], b[34:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(ip[2:], 40)
	copy(ip[12:], netip.MustParseAddr(from).AsSlice())
	copy(ip[16:], netip.MustParseAddr(to).AsSlice())
	binary.BigEndian.PutUint16(tcp, fromPort)
	binary.BigEndian.PutUint16(tcp[2:], toPort)
	tcp[12], tcp[13] = 0x50, flags
	return b
}

const (
	syn = 0x02
	ack = 0x10
	rst = 0x04

	passes  = 0xffffffff // TC_ACT_UNSPEC
	dropped = 2          // TC_ACT_SHOT
)

// alone is a kernel part whose only pod is behind the loopback interface.
func alone(t testing.TB) *node {
	n := newNode(t)
	n.pod("default/web", "10.244.0.9", "app=web", "")
	return n
}

func (n *node) apply() {
	n.t.Helper()
	w := n.compile()
	n.must(n.kernel.Apply(w, []policy.Endpoint{{Index: loopback, Netns: n.host.Path(), Sets: w.Pods["uid-default-web"]}}))
}

// rules is a policy with so many rules, of which none is for the address 203.0.113.1.
func rules(count int) string {
	var b strings.Builder
	b.WriteString("metadata: {name: many}\nspec:\n  podSelector: {}\n  policyTypes: [Egress]\n  egress:\n")
	for i := range count {
		fmt.Fprintf(&b, "  - to: [{ipBlock: {cidr: 198.%d.%d.0/24, except: [198.%d.%d.128/25]}}]\n    ports: [{port: %d, endPort: %d}]\n", 18+i/256, i%256, 18+i/256, i%256, 1000+i, 2000+i)
	}
	return b.String()
}

// BenchmarkPacket measures what a packet from a pod costs: one that no policy
// selects, and others with policies of 10 and 1000 rules, by a flow that is known
// and, where it is dropped, by judging it.
func BenchmarkPacket(b *testing.B) {
	n := alone(b)
	n.apply()
	known := frame("10.244.0.9", "198.18.3.7", 40000, 1500, ack)
	refused := frame("10.244.0.9", "203.0.113.1", 40000, 1500, ack)
	cost := func(packet []byte, want uint32) float64 {
		var result uint32
		var took time.Duration
		var err error
		n.must(n.host.Do(func() error {
			result, took, err = n.kernel.Program(bpf.PolicyProgFromPod).Benchmark(packet, max(b.N, 100_000), nil)
			return err
		}))
		if result != want {
			b.Fatalf("the verdict is %d, want %d", int32(result), int32(want))
		}
		return float64(took.Nanoseconds())
	}
	b.ReportMetric(cost(known, passes), "ns/unselected")
	for _, count := range []int{10, 1000} {
		n.policies(rules(count))
		n.apply()
		cost(known, passes)
		b.ReportMetric(cost(known, passes), fmt.Sprintf("ns/known-%d", count))
		b.ReportMetric(cost(refused, dropped), fmt.Sprintf("ns/judged-%d", count))
	}
}

// Each packet is judged by what it is, which sockets could not be made to send.
func TestPackets(t *testing.T) {
	n := alone(t)
	n.policies("metadata: {name: p}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{ipBlock: {cidr: 198.51.100.0/24}}], ports: [{port: 443}]}]}")
	n.apply()
	send := func(program string, packet []byte, want uint32, what string) {
		t.Helper()
		// What the node itself sends has come in by no interface: these have.
		in := make([]byte, 192)
		binary.NativeEndian.PutUint32(in[36:], loopback)
		var got uint32
		var err error
		n.must(n.host.Do(func() error { got, err = n.kernel.Run(program, packet, in); return err }))
		if got != want {
			t.Errorf("%s: the verdict is %d, want %d", what, int32(got), int32(want))
		}
	}
	const pod, peer, other = "10.244.0.9", "198.51.100.7", "203.0.113.1"
	out, in := bpf.PolicyProgFromPod, bpf.PolicyProgToPod
	send(in, frame(peer, pod, 443, 40000, syn|ack), dropped, "an answer to nothing")
	send(out, frame(pod, peer, 40000, 443, syn), passes, "a connection that is allowed")
	send(in, frame(peer, pod, 443, 40000, syn|ack), passes, "its answer")
	send(in, frame(peer, pod, 443, 40000, syn), dropped, "a connection the other way, on the same ports")
	send(in, frame(peer, pod, 443, 40001, ack), dropped, "an answer to another port")
	send(in, frame(other, pod, 443, 40000, ack), dropped, "a reply of another host")
	send(out, frame(pod, peer, 40000, 80, syn), dropped, "another port")
	send(out, frame(pod, other, 40000, 443, syn), dropped, "another address")
	later := frame(pod, peer, 40000, 443, ack)
	binary.BigEndian.PutUint16(later[14+6:], 100)
	send(out, later, dropped, "a later fragment without a first")
	first := frame(pod, peer, 40000, 443, ack)
	binary.BigEndian.PutUint16(first[14+6:], 0x2000)
	send(out, first, passes, "a first fragment")
	send(out, later, passes, "a later fragment after it")
	short := frame(pod, peer, 40000, 443, ack)[:14+20+3]
	send(out, short, dropped, "a packet that ends too soon")
	arp := frame(pod, other, 1, 1, 0)
	binary.BigEndian.PutUint16(arp[12:], 0x0806)
	send(out, arp, passes, "what is no IP")
	// An ICMP error passes when it is about a flow, from any sender.
	about := func(about []byte) []byte {
		b := frame(other, pod, 0, 0, 0)[:14+20]
		b[14+9] = unix.IPPROTO_ICMP
		return append(append(b, 3, 4, 0, 0, 0, 0, 5, 0), about[14:14+28]...)
	}
	send(in, about(frame(pod, peer, 40000, 443, ack)), passes, "an error about a flow")
	send(in, about(frame(pod, peer, 40001, 443, ack)), dropped, "an error about no flow")
	send(out, frame(pod, peer, 40000, 443, rst), passes, "the end")

	n.policies("metadata: {name: p}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress]}")
	n.apply()
	send(out, frame(pod, peer, 40000, 443, ack), dropped, "a flow that is allowed no longer")
	send(in, frame(peer, pod, 443, 40000, ack), dropped, "its answer")
}
