// Package hosts boots machines with systemd to install clusters on: systemd-nspawn containers with
// an overlay on one cached Debian tree each, a network namespace each, and a wire between them that
// leads nowhere else. To the playbooks in ansible/ they are bare hosts with ssh.
//
// The tests take minutes and packages from a Debian mirror when the tree is not cached yet, so they
// run only with XEBEC_HOSTS=1 in the environment, as root: see `make test-hosts`.
package hosts
