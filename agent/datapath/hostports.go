package datapath

import (
	"net/netip"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// HasHostPorts reports whether a pod wants ports of its node. A pod in the node's own network has
// what it opens by itself.
func HasHostPorts(pod *corev1.Pod) bool {
	if pod.GetSpec().GetHostNetwork() {
		return false
	}
	for range hostPorts(pod) {
		return true
	}
	return false
}

// hostPorts yields the container ports that have a port of the node. Init
// containers are over when a pod serves, but for sidecars.
func hostPorts(pod *corev1.Pod) func(yield func(*corev1.ContainerPort) bool) {
	return func(yield func(*corev1.ContainerPort) bool) {
		for _, list := range [][]*corev1.Container{pod.GetSpec().GetInitContainers(), pod.GetSpec().GetContainers()} {
			for _, c := range list {
				for _, p := range c.GetPorts() {
					if p.GetHostPort() != 0 && !yield(p) {
						return
					}
				}
			}
		}
	}
}

// OnPod takes the event of a pod on this node: old is nil when it was created,
// now is nil when it was deleted.
func (t *Table) OnPod(old, now *corev1.Pod) {
	pod := now
	if pod == nil {
		pod = old
	}
	k := keyOf(pod.GetMetadata())
	k.pod = true
	if now != nil && HasHostPorts(now) {
		t.pods[k] = now
	} else if t.pods[k] != nil {
		delete(t.pods, k)
	} else {
		return
	}
	t.dirty[k] = struct{}{}
}

// computeHostPorts returns what a pod wants in the maps: frontends with itself as
// their only endpoint.
func (t *Table) computeHostPorts(k key) []*Service {
	pod := t.pods[k]
	if phase := pod.GetStatus().GetPhase(); phase == "Succeeded" || phase == "Failed" {
		return nil
	}
	var out []*Service
	for _, ip := range parse(core.PodAddresses(pod)) {
		for p := range hostPorts(pod) {
			protocol, ok := protocolOf(p)
			if !ok || p.GetHostPort() < 0 || p.GetHostPort() >= 1<<16 || p.GetContainerPort() <= 0 || p.GetContainerPort() >= 1<<16 {
				continue
			}
			at := t.nodeIPs
			if own, err := netip.ParseAddr(p.GetHostIp()); err == nil && !own.IsUnspecified() {
				at = []netip.Addr{own}
			}
			for _, addr := range at {
				if addr.Is6() != ip.Is6() {
					continue
				}
				for _, outside := range []bool{false, true} {
					out = append(out, &Service{
						Name:     portName(k, p.GetName()),
						Frontend: Frontend{AddrPort: netip.AddrPortFrom(addr, uint16(p.GetHostPort())), Protocol: protocol, Outside: outside},
						Backends: []netip.AddrPort{netip.AddrPortFrom(ip, uint16(p.GetContainerPort()))},
					})
				}
			}
		}
	}
	return out
}
