package policy

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
