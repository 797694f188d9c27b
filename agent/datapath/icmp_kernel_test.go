package datapath_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/internal/netlab"
)

// tooBig is an ICMP error that says that a datagram between two ends was larger than the next hop
// takes.
func tooBig(mtu uint16, from, to *net.UDPAddr) []byte {
	b := make([]byte, 8, 36)
	b[0], b[1] = 3, 4
	binary.BigEndian.PutUint16(b[6:], mtu)
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], 1400)
	copy(ip[12:], from.IP.To4())
	copy(ip[16:], to.IP.To4())
	binary.BigEndian.PutUint16(ip[10:], onesComplement(ip))
	b = append(b, ip...)
	b = binary.BigEndian.AppendUint16(b, uint16(from.Port))
	b = binary.BigEndian.AppendUint16(b, uint16(to.Port))
	b = append(b, 0x05, 0x64, 0, 0)
	binary.BigEndian.PutUint16(b[2:], onesComplement(b))
	return b
}

func onesComplement(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// mtuOf asks for the path MTU that the kernel knows for a connected socket.
func mtuOf(c net.Conn) (mtu int, err error) {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Control(func(fd uintptr) { mtu, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU) }); e != nil {
		return 0, e
	}
	return mtu, err
}

// Who sent a packet that was translated learns that the path does not take packets so large.
func TestPathMTU(t *testing.T) {
	w := newWire(t)
	pod, podIP := w.pod(0, "pod")
	_, there := w.pod(1, "there")
	w.replace(0, outside("192.0.2.1:30053", datapath.UDP, podIP+":5353"), outside("192.0.2.1:30054", datapath.UDP, there+":5353"))

	// A pod that sends to the outside, whose packets bear the node's address.
	var server net.PacketConn
	if err := w.client.Do(func() (err error) { server, err = net.ListenPacket("udp4", clientIP+":9000"); return err }); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := dial(pod, "udp4", clientIP+":9000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	server.SetDeadline(time.Now().Add(patience))
	_, from, err := server.ReadFrom(make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	w.tells(w.client, "192.0.2.1", tooBig(900, from.(*net.UDPAddr), &net.UDPAddr{IP: net.ParseIP(clientIP), Port: 9000}))
	await(t, "the pod knows the path", func() error {
		if mtu, err := mtuOf(c); err != nil || mtu != 900 {
			return fmt.Errorf("MTU %d, %v", mtu, err)
		}
		return nil
	})

	// A pod that answers a client by way of a service: the client's network tells the service's
	// address.
	client, err := dial(w.client, "udp4", "192.0.2.1:30053")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := askOn(client); err != nil {
		t.Fatal(err)
	}
	answering, err := dial(pod, "udp4", clientIP+":1") // shows the path that the pod's kernel knows
	if err != nil {
		t.Fatal(err)
	}
	defer answering.Close()
	w.tells(w.client, "192.0.2.1", tooBig(800, &net.UDPAddr{IP: net.ParseIP("192.0.2.1"), Port: 30053}, client.LocalAddr().(*net.UDPAddr)))
	await(t, "the answering pod knows the path", func() error {
		if mtu, err := mtuOf(answering); err != nil || mtu != 800 {
			return fmt.Errorf("MTU %d, %v", mtu, err)
		}
		return nil
	})

	// An error about a packet that was not sent is ignored.
	w.tells(w.client, "192.0.2.1", tooBig(700, &net.UDPAddr{IP: net.ParseIP("192.0.2.1"), Port: 30053}, &net.UDPAddr{IP: net.ParseIP(clientIP), Port: 5}))
	w.tells(w.client, "192.0.2.1", []byte{3, 4, 0xfc, 0xfb, 0, 0, 0, 0})
	if mtu, err := mtuOf(answering); err != nil || mtu != 800 {
		t.Errorf("the path's MTU is %d, %v, after errors about packets that were not sent", mtu, err)
	}
}

// tells sends an ICMP message.
func (w *wire) tells(from *netlab.Namespace, to string, message []byte) {
	w.t.Helper()
	err := from.Do(func() error {
		c, err := net.Dial("ip4:icmp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(message)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}
