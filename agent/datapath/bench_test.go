package datapath_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/datapath"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func benchService(i int) *corev1.Service {
	return &corev1.Service{
		Metadata: &metav1.ObjectMeta{Namespace: "bench", Name: fmt.Sprintf("svc-%d", i)},
		Spec: &corev1.ServiceSpec{
			ClusterIp: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}).String(),
			Ports:     []*corev1.ServicePort{{Port: 80}},
		},
	}
}

func benchSlice(i int, backends ...string) *discoveryv1.EndpointSlice {
	port := int32(8080)
	s := &discoveryv1.EndpointSlice{
		Metadata: &metav1.ObjectMeta{
			Namespace: "bench", Name: fmt.Sprintf("svc-%d-x", i),
			Labels: map[string]string{"kubernetes.io/service-name": fmt.Sprintf("svc-%d", i)},
		},
		AddressType: "IPv4",
		Ports:       []*discoveryv1.EndpointPort{{Port: &port}},
	}
	for _, b := range backends {
		s.Endpoints = append(s.Endpoints, &discoveryv1.Endpoint{Addresses: []string{b}})
	}
	return s
}

func pair(i int) []string {
	return []string{fmt.Sprintf("10.244.%d.%d", i>>7, i&127*2+1), fmt.Sprintf("10.245.%d.%d", i>>7, i&127*2+1)}
}

// From 5,000 services' and slices' events to full maps.
func BenchmarkProgram5000(b *testing.B) {
	h := newHost(b)
	const n = 5000
	var services []*corev1.Service
	var endpoints []*discoveryv1.EndpointSlice
	for i := range n {
		services = append(services, benchService(i))
		endpoints = append(endpoints, benchSlice(i, pair(i)...))
	}
	for b.Loop() {
		table := datapath.NewTable("me")
		for i := range n {
			table.OnService(nil, services[i])
			table.OnEndpointSlice(nil, endpoints[i])
		}
		if err := h.dp.Replace(table.Flush().Put); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if held, err := h.dp.Dump(); err != nil || len(held) != n || len(held[n-1].Backends) != 2 {
			b.Fatalf("%d services, %v", len(held), err)
		}
		if err := h.dp.Replace(nil); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// One endpoint comes or goes among 5,000 services.
func BenchmarkOneEndpoint(b *testing.B) {
	h := newHost(b)
	table := datapath.NewTable("me")
	for i := range 5000 {
		table.OnService(nil, benchService(i))
		table.OnEndpointSlice(nil, benchSlice(i, pair(i)...))
	}
	h.replace(table.Flush().Put...)
	states := [2]*discoveryv1.EndpointSlice{benchSlice(77, pair(77)...), benchSlice(77, pair(77)[:1]...)}
	now := 0
	for b.Loop() {
		table.OnEndpointSlice(states[now], states[1-now])
		now = 1 - now
		if err := h.dp.Update(table.Flush()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConnect makes TCP connections to one endpoint, past the datapath and
// by cluster IP among 10,000 services, in turns. It reports the median of the
// processor time that a connection takes, which neighbours disturb less than the
// clock, and how the two compare.
func BenchmarkConnect(b *testing.B) {
	const batch = 100
	h := newHost(b)
	var l net.Listener
	if err := h.Do(func() (err error) { l, err = net.Listen("tcp4", "127.0.0.2:8080"); return err }); err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	var services []datapath.Service
	for i := range 10000 {
		vip := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80)
		services = append(services, service(vip.String(), datapath.TCP, "127.0.0.2:8080"))
	}
	h.replace(services...)

	targets := [2]*unix.SockaddrInet4{{Addr: [4]byte{127, 0, 0, 2}, Port: 8080}, {Addr: [4]byte{10, 96, 12, 34}, Port: 80}}
	var took [2][]time.Duration
	h.do(func() error {
		for b.Loop() {
			for mode, to := range targets {
				began := threadTime()
				for range batch {
					if err := connectOnce(to); err != nil {
						return err
					}
				}
				took[mode] = append(took[mode], (threadTime()-began)/batch)
			}
		}
		return nil
	})
	var median [2]float64
	for mode := range took {
		slices.Sort(took[mode])
		median[mode] = float64(took[mode][len(took[mode])/2])
	}
	b.ReportMetric(median[0], "direct-ns")
	b.ReportMetric(median[1], "cluster-ip-ns")
	b.ReportMetric(median[0]/median[1], "direct/cluster-ip")
}

func connectOnce(to unix.Sockaddr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// No TIME_WAIT: the ports would run out.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	return unix.Connect(fd, to)
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}
