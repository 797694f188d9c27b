// Package kernels tries the eBPF programs on kernels other than the machine's: on those that
// Debian's releases have, older than what the programs are written on. A kernel is booted in a
// machine that QEMU emulates, without a disk or a network. All that it has is an archive in memory
// with its modules, the tests of the agent's packages, and package guest, which runs them.
//
// Kernels come from a Debian mirror and are kept, so the tests run only for those that
// XEBEC_KERNELS names: see `make test-kernels`.
package kernels

// PlanPath is where a guest finds its plan.
const PlanPath = "/plan.json"

// Plan is what a guest is to do.
type Plan struct {
	// Modules are the paths of kernel modules, each after those that it depends on.
	Modules []string
	// Tests are run one after another, also after one has failed.
	Tests []Test
}

// Test is a program that holds tests.
type Test struct {
	// Name begins the line that tells how it ended.
	Name string
	// Path is that of the program.
	Path string
	// Args are given to it.
	Args []string
}

// What a guest writes after a test, with the test's name before it, and at its own end. A guest
// that ends without the latter has failed.
const (
	Passed = " has passed"
	Failed = " has failed"
	Done   = "the guest is done"
)
