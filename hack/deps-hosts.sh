#!/usr/bin/env bash
# Installs what booting hosts and installing clusters on them needs and what is missing, on Debian and Ubuntu.
set -euo pipefail

# program package
needs=(
  "debootstrap debootstrap"
  "systemd-nspawn systemd-container"
  "ansible-playbook ansible-core"
  "ansible-lint ansible-lint"
  "yamllint yamllint"
  "ssh openssh-client"
  "nsenter util-linux"
  "ip iproute2"
  "vagrant vagrant"
)

PATH=$PATH:/usr/sbin:/sbin
missing=()
for need in "${needs[@]}"; do
  read -r program package <<<"$need"
  command -v "$program" >/dev/null || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  exit 0
fi
sudo=()
if ((EUID != 0)); then
  sudo=(sudo)
fi
echo "deps: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" apt-get install -qq -y --no-install-recommends "${missing[@]}"
