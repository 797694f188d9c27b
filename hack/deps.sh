#!/usr/bin/env bash
# Installs what building, testing and the lab need and what is missing, on Debian and Ubuntu. With the argument
# "generate", also what compiling the eBPF programs anew needs: their objects are committed, so that nothing else does.
set -euo pipefail

# program package
needs=(
  "containerd containerd"
  "runc runc"
  "ip iproute2"
  "busybox busybox-static"
  "make make"
  "git git"
  "gcc gcc"
)
if [[ ${1-} == generate ]]; then
  needs+=("clang-14 clang-14" "llvm-strip-14 llvm-14")
fi

PATH=$PATH:/usr/sbin:/sbin
missing=()
for need in "${needs[@]}"; do
  read -r program package <<<"$need"
  command -v "$program" >/dev/null || missing+=("$package")
done
if [[ ${1-} == generate && ! -e /usr/include/bpf/bpf_helpers.h ]]; then
  missing+=(libbpf-dev)
fi

if ! command -v go >/dev/null; then
  echo "deps: Go is missing: install the version that go.mod names, from https://go.dev/dl/" >&2
  exit 1
fi
if ((${#missing[@]} == 0)); then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "deps: missing: ${missing[*]}. This script knows only apt-get; install them by your system's means." >&2
  exit 1
fi
sudo=()
if ((EUID != 0)); then
  sudo=(sudo)
fi
echo "deps: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
# containerd's own service is not needed: every lab node and test starts a containerd of its own.
"${sudo[@]}" apt-get install -qq -y --no-install-recommends "${missing[@]}"
