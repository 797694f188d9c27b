#!/usr/bin/env bash
# Installs the missing packages for building, testing and the lab, on Debian and Ubuntu. With an argument, also those of
# one group:
#
#   generate  compiling the eBPF programs; their objects are committed, so that no other target compiles them
#   bench     iptables and nftables, with which `make bench` compares the datapath
#   hosts     booting hosts with systemd, installing clusters on them, and checking the playbooks
#   vm        `vagrant up` on machines that QEMU emulates
#   kernels   Debian's kernels on machines that QEMU emulates
set -euo pipefail

# program package; and, for packages without a program, path package
files=()
needs=(
  "containerd containerd"
  "runc runc"
  "ip iproute2"
  "busybox busybox-static"
  "make make"
  "git git"
  "gcc gcc"
)
case ${1-} in
  "") ;;
  generate)
    needs+=("clang-14 clang-14" "llvm-strip-14 llvm-14")
    files=("/usr/include/bpf/bpf_helpers.h libbpf-dev")
    ;;
  bench)
    needs+=("iptables-restore iptables" "nft nftables")
    ;;
  hosts)
    needs+=(
      "debootstrap debootstrap" "systemd-nspawn systemd-container" "ansible-playbook ansible-core" "ansible-lint ansible-lint"
      "yamllint yamllint" "ssh openssh-client" "nsenter util-linux" "vagrant vagrant"
    )
    ;;
  vm)
    needs+=(
      "debootstrap debootstrap" "mke2fs e2fsprogs" "sfdisk fdisk" "qemu-img qemu-utils" "qemu-system-x86_64 qemu-system-x86"
      "libvirtd libvirt-daemon-system" "virsh libvirt-clients" "dnsmasq dnsmasq-base" "vagrant vagrant" "ssh openssh-client"
      "ansible-playbook ansible-core"
    )
    # libvirt's networks between machines use iptables, in the network namespace of the test.
    needs+=("iptables iptables" "unshare util-linux")
    files=("/usr/share/rubygems-integration/all/specifications/vagrant-libvirt-*.gemspec vagrant-libvirt")
    ;;
  kernels)
    needs+=("qemu-system-x86_64 qemu-system-x86" "xz xz-utils" "debootstrap debootstrap")
    files=("/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring")
    ;;
  *)
    echo "deps: unknown group \"$1\": want generate, bench, hosts, vm or kernels" >&2
    exit 2
    ;;
esac

PATH=$PATH:/usr/sbin:/sbin
missing=()
for need in "${needs[@]}"; do
  read -r program package <<<"$need"
  command -v "$program" >/dev/null || missing+=("$package")
done
for file in "${files[@]}"; do
  read -r pattern package <<<"$file"
  compgen -G "$pattern" >/dev/null || missing+=("$package")
done

if ! command -v go >/dev/null; then
  echo "deps: Go is missing: install the version that go.mod names, from https://go.dev/dl/" >&2
  exit 1
fi
if ((${#missing[@]} == 0)); then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "deps: missing: ${missing[*]}. This script supports only apt-get; install them with your system's package manager." >&2
  exit 1
fi
sudo=()
if ((EUID != 0)); then
  sudo=(sudo)
fi
echo "deps: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
# The system's containerd service is not used: every lab node and test starts its own containerd.
"${sudo[@]}" apt-get install -qq -y --no-install-recommends "${missing[@]}"
