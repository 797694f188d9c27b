package policy

import "github.com/cilium/ebpf"

// PortsOf is for tests.
var PortsOf = portsOf

// PortPrefix is for tests.
type PortPrefix struct {
	Port uint16
	Bits uint8
}

// Prefixes is for tests.
func Prefixes(r Range) []PortPrefix {
	var out []PortPrefix
	for _, p := range r.prefixes() {
		out = append(out, PortPrefix{p.port, p.bits})
	}
	return out
}

// Settled reports whether all that is known has been written.
func (e *Enforcer) Settled() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.knows == Everything && !e.dirty
}

// Held counts the entries of the maps.
func (k *Kernel) Held() (pods, peers, ports int) {
	for _, set := range k.sets {
		peers += len(set)
	}
	for _, keys := range k.classes {
		ports += len(keys)
	}
	return len(k.pods), peers, ports
}

// Program is one of the programs, to be run by hand.
func (k *Kernel) Program(name string) *ebpf.Program { return k.objects.Programs[name] }

// Run runs a program by hand on a packet, with a struct __sk_buff.
func (k *Kernel) Run(name string, packet, context []byte) (uint32, error) {
	return k.objects.Programs[name].Run(&ebpf.RunOptions{Data: packet, Context: context})
}
