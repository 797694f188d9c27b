package datapath

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
)

// Names of the features in which kernels differ.
const (
	// FeatureStaleSockets closes connected UDP sockets whose endpoint was removed.
	FeatureStaleSockets = "stale_sockets"
	// FeatureRefusal tells a socket that its service has no endpoint.
	FeatureRefusal = "refusal_error"
	// FeatureLoopback serves node ports at the node's loopback addresses.
	FeatureLoopback = "loopback_node_ports"
)

// MethodNone is the method of a feature that the node lacks.
const MethodNone = "none"

// Feature is a part of the datapath that depends on the kernel.
type Feature struct {
	// Name is one of the Feature constants.
	Name string
	// Method is how the node provides the feature, MethodNone if it does not.
	Method string
	// Missing says what does not work as it should on this node; empty: all works.
	Missing string
	// Reason is why the preferred method is not in use; nil: it is.
	Reason error
}

// support is what Load finds out about the kernel.
type support struct {
	listing Listing // empty: sockets cannot be listed
	// iterator, diag, closing, retval and cookie are the errors of the respective probes.
	iterator, diag, closing, retval, cookie error
	netns                                   uint64
}

// probeSupport asks the kernel for what is optional. The families get their iterators, if these
// are in use.
func probeSupport(want Listing, families []*family) (*support, error) {
	runtime.LockOSThread() // one network namespace for all probes
	defer runtime.UnlockOSThread()
	s := &support{}
	s.retval = features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnSetRetval)
	s.netns, s.cookie = netnsCookie()
	s.diag, s.closing = probeDiag()
	if want != ListByDiag {
		for _, f := range families {
			s.iterator = cmp.Or(s.iterator, f.loadIterator())
		}
	}
	switch {
	case want == ListByDiag && s.diag != nil:
		return nil, fmt.Errorf("listing sockets by sock_diag: %w", s.diag)
	case want == ListByIterator && s.iterator != nil:
		return nil, fmt.Errorf("listing sockets by an iterator: %w", s.iterator)
	case want == ListByDiag:
		s.listing, s.iterator = ListByDiag, errors.New("sock_diag is configured")
	case s.iterator == nil:
		s.listing = ListByIterator
	case s.diag == nil:
		s.listing = ListByDiag
	}
	for _, f := range families {
		if s.listing != ListByIterator {
			f.peers.Close()
			f.peers = nil
		}
		f.diag = s.listing == ListByDiag
	}
	return s, nil
}

// closes reports whether sockets whose endpoint was removed can be closed.
func (s *support) closes() bool { return s.listing != "" && s.closing == nil }

func (s *support) features() []Feature {
	stale := Feature{Name: FeatureStaleSockets, Method: string(s.listing), Reason: s.iterator}
	if !s.closes() {
		stale.Method, stale.Reason = MethodNone, cmp.Or(s.closing, errors.Join(s.iterator, s.diag))
		stale.Missing = "connected UDP sockets keep sending to an endpoint of a service after its removal, until the application connects " +
			"again; this needs a kernel with CONFIG_INET_UDP_DIAG and CONFIG_INET_DIAG_DESTROY"
	}
	refusal := Feature{Name: FeatureRefusal, Method: "ECONNREFUSED"}
	if s.retval != nil {
		refusal.Method, refusal.Reason = "EPERM", s.retval
		refusal.Missing = "connections to services without endpoints fail with EPERM instead of ECONNREFUSED; this needs Linux 5.18"
	}
	loopback := Feature{Name: FeatureLoopback, Method: "netns_cookie"}
	if s.cookie != nil {
		loopback.Method, loopback.Reason = MethodNone, s.cookie
		loopback.Missing = "node ports are not reachable at the node's loopback addresses; this needs Linux 5.14"
	}
	return []Feature{stale, refusal, loopback}
}

// Features tells how the node provides what depends on its kernel.
func (d *Datapath) Features() []Feature { return d.support.features() }
