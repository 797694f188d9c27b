package datapath

import (
	"net/netip"
	"testing"
)

func TestSolicitedNode(t *testing.T) {
	for addr, want := range map[string]string{"2001:db8::1": "ff02::1:ff00:1", "fd89:3::12:3456": "ff02::1:ff12:3456", "2001:db8::abcd:ef01:2345": "ff02::1:ff01:2345"} {
		if got := solicitedNode(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("%s is asked for at %s, want %s", addr, got, want)
		}
	}
}

// An advertisement is what RFC 4861 says, and its checksum holds.
func TestAdvertisement(t *testing.T) {
	addr := netip.MustParseAddr("2001:db8::200")
	frames := takeover([6]byte{2, 0, 0, 0, 0, 7}, addr)
	if len(frames) != 1 || len(frames[0]) != 14+40+32 {
		t.Fatalf("frames %x", frames)
	}
	f := frames[0]
	src, dst, target := netip.AddrFrom16([16]byte(f[22:38])), netip.AddrFrom16([16]byte(f[38:54])), netip.AddrFrom16([16]byte(f[62:78]))
	if f[14]>>4 != 6 || f[19] != 32 || f[20] != 58 || f[21] != 255 || src != addr || dst.String() != "ff02::1" {
		t.Errorf("header %x", f[14:54])
	}
	if f[54] != 136 || f[58] != 0x20 || target != addr || f[78] != 2 || f[79] != 1 || f[85] != 7 {
		t.Errorf("message %x", f[54:])
	}
	if left := checksum(f[22:54], []byte{0, 32, 0, 58}, f[54:]); left != 0 {
		t.Errorf("the checksum leaves %#x", left)
	}
}
