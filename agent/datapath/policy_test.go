package datapath_test

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/policy"
	"github.com/xebec-project/xebec/internal/netlab"
)

// What comes by a node port goes into a pod of the node past the pod's interface
// there: it is judged all the same, and so are the answers.
func TestNodePortPolicies(t *testing.T) {
	w := newWire(t)
	n := w.nodes[0]
	ns, ip := w.pod(0, "here")
	var kernel *policy.Kernel
	if err := n.Do(func() (err error) {
		kernel, err = policy.Load(policy.KernelConfig{PinPath: filepath.Join(netlab.BPFFS(t), "policy")})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kernel.Close() })
	if err := n.dp.Close(); err != nil {
		t.Fatal(err)
	}
	n.cfg.PolicyMaps = kernel.Maps()
	w.load(n)
	w.replace(0, outside("192.0.2.1:30080", datapath.TCP, ip+":8080"))
	result, err := n.pods.Setup(t.Context(), "here", ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	isolate := func(allowed ...string) {
		t.Helper()
		set := &policy.Set{Peers: map[netip.Prefix]policy.Ports{netip.PrefixFrom(netip.IPv6Unspecified(), 0): policy.NoPorts}}
		for _, a := range allowed {
			set.Peers[netip.PrefixFrom(netip.AddrFrom16(netip.MustParseAddr(a).As16()), 128)] = "TCP/8080"
		}
		wanted := policy.Wanted{Sets: map[string]*policy.Set{"in": set, "out": {Peers: map[netip.Prefix]policy.Ports{netip.PrefixFrom(netip.IPv6Unspecified(), 0): policy.NoPorts}}}}
		at := policy.Endpoint{Index: result.Index, Netns: ns.Path(), Sets: policy.Sets{Ingress: "in", Egress: "out"}}
		if err := kernel.Apply(wanted, []policy.Endpoint{at}); err != nil {
			t.Fatal(err)
		}
	}
	const seen = " saw " + clientIP
	w.expect(w.client, "tcp4", "192.0.2.1:30080", ip+seen)
	isolate()
	if got, err := askBriefly(w.client, "tcp4", "192.0.2.1:30080"); err == nil {
		t.Errorf("a client that no policy allows is answered: %q", got)
	}
	isolate(clientIP)
	w.expect(w.client, "tcp4", "192.0.2.1:30080", ip+seen)
	isolate("192.0.2.99")
	if got, err := askBriefly(w.client, "tcp4", "192.0.2.1:30080"); err == nil {
		t.Errorf("a client that policies allow no longer is answered: %q", got)
	}
}
