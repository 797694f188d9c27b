// Package vm brings a cluster up as its users do, by `vagrant up` with the libvirt provider, on
// virtual machines that QEMU emulates where the processor has no virtualisation to offer. libvirt,
// Vagrant, QEMU and Ansible run in namespaces of their own, of processes, mounts and the network:
// with the test all of it is gone.
//
// The test takes many minutes, and packages from a Debian mirror when the box is not cached yet, so
// it runs only with XEBEC_VM=1 in the environment, as root: see `make test-vm`.
package vm
