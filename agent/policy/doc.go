// Package policy enforces network policies on one node's pods. Its pure part,
// Compile, turns policies, namespaces and pods into the sets that the kernel
// should have; Verdict says the same of one connection, with the rule that
// decides. Its kernel part, Kernel, loads and pins the programs of package bpf
// and writes what differs. Enforcer joins the two.
//
// Maps and links are pinned: policies go on while no agent runs, and the next
// agent finds what the last one left.
package policy
