package dns

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// serviceNameLabel ties an endpoint slice to its service, as in Kubernetes.
const serviceNameLabel = "kubernetes.io/service-name"

// Records is what the cluster zone is answered from: services and, for headless ones, their
// endpoints. Informers fill it; it is safe for concurrent use. The objects that it is given are
// kept and must not change.
type Records struct {
	mu         sync.RWMutex
	synced     bool
	services   map[key]*corev1.Service
	slices     map[key]map[string]*discoveryv1.EndpointSlice // by service, then by the slice's name
	entries    map[key]*entry
	namespaces map[string]int // how many services each has
	reverse    map[netip.Addr]map[key]string
}

type key struct{ namespace, name string }

// entry is a service as DNS sees it.
type entry struct {
	ips          []netip.Addr // of a service that has cluster IPs, one of each family
	externalName string
	ports        []port // of a service that has a cluster IP
	endpoints    []endpoint
}

// exists reports whether the service's name has any record. As Kubernetes' DNS specification has
// it, a headless service without ready endpoints has none.
func (e *entry) exists() bool {
	return len(e.ips) > 0 || e.externalName != "" || len(e.endpoints) > 0
}

// port is a named port: the others have no record. Both names are in lower case.
type port struct {
	name, protocol string
	number         uint16
}

// endpoint is a ready endpoint of a headless service.
type endpoint struct {
	hostname string // in lower case
	ip       netip.Addr
	ports    []port
}

// NewRecords returns an empty zone that is not synced.
func NewRecords() *Records {
	return &Records{
		services:   make(map[key]*corev1.Service),
		slices:     make(map[key]map[string]*discoveryv1.EndpointSlice),
		entries:    make(map[key]*entry),
		namespaces: make(map[string]int),
		reverse:    make(map[netip.Addr]map[key]string),
	}
}

// OnService takes an informer's event: old is nil when the service was created,
// now is nil when it was deleted.
func (r *Records) OnService(old, now *corev1.Service) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now == nil {
		k := keyOf(old.GetMetadata())
		delete(r.services, k)
		r.rebuild(k)
		return
	}
	k := keyOf(now.GetMetadata())
	r.services[k] = now
	r.rebuild(k)
}

// OnEndpointSlice takes an informer's event: old is nil when the slice was
// created, now is nil when it was deleted.
func (r *Records) OnEndpointSlice(old, now *discoveryv1.EndpointSlice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old != nil {
		k := serviceOf(old)
		delete(r.slices[k], old.GetMetadata().GetName())
		if len(r.slices[k]) == 0 {
			delete(r.slices, k)
		}
		if now == nil || serviceOf(now) != k {
			r.rebuild(k)
		}
	}
	if now != nil {
		k := serviceOf(now)
		if r.slices[k] == nil {
			r.slices[k] = make(map[string]*discoveryv1.EndpointSlice, 1)
		}
		r.slices[k][now.GetMetadata().GetName()] = now
		r.rebuild(k)
	}
}

// Synced records that the first lists of both informers have been delivered. Before that the server
// responds with SERVFAIL instead of NXDOMAIN.
func (r *Records) Synced() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.synced = true
}

// rebuild computes the entry of a service and its reverse names again.
func (r *Records) rebuild(k key) {
	if was := r.entries[k]; was != nil {
		for ip := range was.addresses() {
			delete(r.reverse[ip], k)
			if len(r.reverse[ip]) == 0 {
				delete(r.reverse, ip)
			}
		}
		delete(r.entries, k)
		if r.namespaces[k.namespace]--; r.namespaces[k.namespace] == 0 {
			delete(r.namespaces, k.namespace)
		}
	}
	svc := r.services[k]
	if svc == nil {
		return
	}
	now := newEntry(svc, r.slices[k])
	r.entries[k] = now
	r.namespaces[k.namespace]++
	base := k.name + "." + k.namespace
	for ip, hostname := range now.addresses() {
		if r.reverse[ip] == nil {
			r.reverse[ip] = make(map[key]string, 1)
		}
		if hostname != "" {
			r.reverse[ip][k] = hostname + "." + base
		} else {
			r.reverse[ip][k] = base
		}
	}
}

// addresses yields each address of the entry with its hostname, which is empty
// for a cluster IP.
func (e *entry) addresses() func(yield func(netip.Addr, string) bool) {
	return func(yield func(netip.Addr, string) bool) {
		for _, ip := range e.ips {
			if !yield(ip, "") {
				return
			}
		}
		for _, ep := range e.endpoints {
			if !yield(ep.ip, ep.hostname) {
				return
			}
		}
	}
}

func newEntry(svc *corev1.Service, endpoints map[string]*discoveryv1.EndpointSlice) *entry {
	spec := svc.GetSpec()
	if spec.GetType() == "ExternalName" {
		return &entry{externalName: spec.GetExternalName()}
	}
	if spec.GetClusterIp() == "None" {
		return &entry{endpoints: headless(spec, endpoints)}
	}
	e := &entry{}
	texts := spec.GetClusterIps()
	if len(texts) == 0 {
		texts = []string{spec.GetClusterIp()}
	}
	for _, text := range texts {
		if ip, err := netip.ParseAddr(text); err == nil {
			e.ips = append(e.ips, ip.Unmap())
		}
	}
	for _, p := range spec.GetPorts() {
		if p.GetName() != "" {
			e.ports = append(e.ports, port{strings.ToLower(p.GetName()), protocolName(p.GetProtocol()), uint16(p.GetPort())})
		}
	}
	return e
}

// headless returns a headless service's endpoints, one per address.
func headless(spec *corev1.ServiceSpec, from map[string]*discoveryv1.EndpointSlice) []endpoint {
	byIP := make(map[netip.Addr]*endpoint)
	for _, slice := range from {
		if t := slice.GetAddressType(); t != "IPv4" && t != "IPv6" {
			continue
		}
		var ports []port
		for _, p := range slice.GetPorts() {
			if p.GetName() != "" && p.GetPort() > 0 {
				ports = append(ports, port{strings.ToLower(p.GetName()), protocolName(p.GetProtocol()), uint16(p.GetPort())})
			}
		}
		for _, ep := range slice.GetEndpoints() {
			ready := ep.GetConditions() == nil || ep.GetConditions().Ready == nil || ep.GetConditions().GetReady()
			if !ready && !spec.GetPublishNotReadyAddresses() {
				continue
			}
			for _, text := range ep.GetAddresses() {
				ip, err := netip.ParseAddr(text)
				if err != nil || ip.Is4() != (slice.GetAddressType() == "IPv4") {
					continue
				}
				known := byIP[ip]
				if known == nil {
					known = &endpoint{ip: ip, hostname: cmp.Or(strings.ToLower(ep.GetHostname()), dashed(ip))}
					byIP[ip] = known
				}
				known.ports = append(known.ports, ports...)
			}
		}
	}
	out := make([]endpoint, 0, len(byIP))
	for _, ep := range byIP {
		slices.SortFunc(ep.ports, func(a, b port) int {
			return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.number, b.number))
		})
		ep.ports = slices.Compact(ep.ports)
		out = append(out, *ep)
	}
	slices.SortFunc(out, func(a, b endpoint) int { return a.ip.Compare(b.ip) })
	return out
}

// dashed names an endpoint that has no hostname of its own.
func dashed(ip netip.Addr) string {
	if ip.Is4() {
		return strings.ReplaceAll(ip.String(), ".", "-")
	}
	return strings.ReplaceAll(ip.StringExpanded(), ":", "-")
}

func protocolName(s string) string { return cmp.Or(strings.ToLower(s), "tcp") }

func keyOf(m *metav1.ObjectMeta) key { return key{m.GetNamespace(), m.GetName()} }

func serviceOf(s *discoveryv1.EndpointSlice) key {
	return key{s.GetMetadata().GetNamespace(), s.GetMetadata().GetLabels()[serviceNameLabel]}
}
