package datapath_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
	"github.com/xebec-project/xebec/internal/netlab"
	"github.com/xebec-project/xebec/internal/osthread"
)

// eachListing runs a test with each way of listing connected sockets that the kernel allows. One
// at least has to work.
func eachListing(t *testing.T, test func(*testing.T, datapath.Listing)) {
	t.Helper()
	netlab.New(t) // says what is missing
	works := 0
	for _, listing := range []datapath.Listing{datapath.ListByIterator, datapath.ListByDiag} {
		t.Run(string(listing), func(t *testing.T) {
			if err := datapath.TryListing(listing, true); err != nil {
				t.Skipf("this kernel refuses it: %v", err)
			}
			works++
			test(t, listing)
		})
	}
	if works == 0 {
		t.Error("sockets can be listed neither by an iterator nor by sock_diag")
	}
}

// A connected socket whose endpoint goes is closed, in whatever namespace it is and of whatever
// family; all others stay.
func TestSever(t *testing.T) {
	eachListing(t, func(t *testing.T, listing datapath.Listing) {
		testSever(t, newHostWith(t, datapath.Config{Listing: listing}), listing)
	})
}

func testSever(t *testing.T, h *host, listing datapath.Listing) {
	for _, b := range []string{"127.0.0.2:5353", "127.0.0.3:5353"} {
		serveUDP(t, h.Namespace, b, b)
	}
	goes := service("10.96.0.1:53", datapath.UDP, "127.0.0.2:5353")
	stays := service("10.96.0.2:53", datapath.UDP, "127.0.0.2:5353")
	h.replace(goes, stays)
	sockets := make(map[string]int)
	h.do(func() error {
		for name, to := range map[string]string{"stale": "10.96.0.1:53", "of another service": "10.96.0.2:53", "direct": "127.0.0.2:5353"} {
			for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
				fd, err := connectUDP(family, netip.MustParseAddrPort(to))
				if err != nil {
					return err
				}
				t.Cleanup(func() { unix.Close(fd) })
				sockets[fmt.Sprint(name, " ", family)] = fd
			}
		}
		// This one goes elsewhere by now.
		fd, err := connectUDP(unix.AF_INET, netip.MustParseAddrPort("10.96.0.1:53"))
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		sockets["connected again"] = fd
		return unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 3}, Port: 5353})
	})
	sever := func(want int) {
		t.Helper()
		if n, err := h.dp.Sever(); n != want || err != nil {
			t.Errorf("severed %d, %v; want %d", n, err, want)
		}
	}
	sever(0)
	goes.Backends[0] = netip.MustParseAddrPort("127.0.0.3:5353")
	h.replace(goes, stays)
	// Entering the namespace takes a process in it.
	hold := exec.Command("sleep", "60")
	h.do(hold.Start)
	t.Cleanup(func() { hold.Process.Kill(); hold.Wait() })
	if known, err := h.dp.Sockets(); err != nil || len(known) != 4 {
		t.Errorf("sockets that are known: %+v, %v; want 4", known, err)
	}
	sever(2)
	sever(0)
	sever(0)
	if listing == datapath.ListByDiag {
		if noted, err := h.dp.Noted(); err != nil || noted != 2 {
			t.Errorf("%d sockets are noted, %v; want the 2 of another service", noted, err)
		}
	}
	for name, fd := range sockets {
		_, writeErr := unix.Write(fd, []byte("who"))
		_, readErr := unix.Read(fd, make([]byte, 64))
		want := [2]error{}
		if strings.HasPrefix(name, "stale") {
			want = [2]error{unix.EDESTADDRREQ, unix.ECONNABORTED}
		}
		if writeErr != want[0] || readErr != want[1] {
			t.Errorf("the socket that is %s: %v and %v, want %v", name, writeErr, readErr, want)
		}
	}
	h.do(func() error {
		fd := sockets[fmt.Sprint("stale ", unix.AF_INET)]
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{10, 96, 0, 1}, Port: 53}); err != nil {
			return err
		}
		if _, err := unix.Write(fd, []byte("who")); err != nil {
			return err
		}
		buf := make([]byte, 64)
		n, err := unix.Read(fd, buf)
		if err == nil && string(buf[:n]) != "127.0.0.3:5353" {
			err = fmt.Errorf("%q answered", buf[:n])
		}
		return err
	})
}

func connectUDP(family int, to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var addr unix.Sockaddr = &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	if family == unix.AF_INET {
		addr = &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	return fd, errors.Join(unix.Connect(fd, addr), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience.Seconds())}))
}

// An agent that may not load tracing programs lists sockets by sock_diag, and tells so.
func TestRefusedIterator(t *testing.T) {
	netlab.New(t)
	var got []datapath.Feature
	err := osthread.Do(func() (err error) {
		if err := dropCapabilities(unix.CAP_SYS_ADMIN, unix.CAP_PERFMON); err != nil {
			return err
		}
		got, err = datapath.ProbeFeatures("", true)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	stale := featureOf(t, got, datapath.FeatureStaleSockets)
	if stale.Method != string(datapath.ListByDiag) || stale.Missing != "" || !errors.Is(stale.Reason, unix.EPERM) {
		t.Errorf("without the right to load tracing programs: %+v, want sock_diag because of %v", stale, unix.EPERM)
	}
}

// An agent that may not close sockets says what that means, and goes without.
func TestRefusedClosing(t *testing.T) {
	netlab.New(t)
	var got []datapath.Feature
	err := osthread.Do(func() (err error) {
		if err := dropCapabilities(unix.CAP_NET_ADMIN); err != nil {
			return err
		}
		got, err = datapath.ProbeFeatures("", true)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	stale := featureOf(t, got, datapath.FeatureStaleSockets)
	if stale.Method != datapath.MethodNone || !errors.Is(stale.Reason, unix.EPERM) || !strings.Contains(stale.Missing, "CONFIG_INET_DIAG_DESTROY") {
		t.Errorf("without the right to close sockets: %+v, want none because of %v", stale, unix.EPERM)
	}
}

// The metric has the method of each feature.
func TestFeatureMetric(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := newHostWith(t, datapath.Config{Metrics: datapath.NewMetrics(registry)})
	values := metricstest.Values(t, registry, metrics.DatapathFeature)
	for _, f := range h.dp.Features() {
		if n := values[f.Name+","+f.Method]; n != 1 {
			t.Errorf("%s by %s: %v, want 1; all: %v", f.Name, f.Method, n, values)
		}
	}
}

func featureOf(t *testing.T, all []datapath.Feature, name string) datapath.Feature {
	t.Helper()
	i := slices.IndexFunc(all, func(f datapath.Feature) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("no feature %s among %+v", name, all)
	}
	return all[i]
}

// dropCapabilities takes capabilities from the calling thread.
func dropCapabilities(list ...int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	for _, c := range list {
		data[c/32].Effective &^= 1 << (c % 32)
	}
	return unix.Capset(&header, &data[0])
}
