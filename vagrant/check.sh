#!/usr/bin/env bash
# Checks the Vagrantfile and lab.yaml without starting a machine.
set -euo pipefail
cd "$(dirname "$0")"

ruby check.rb

# Vagrant ignores the block of a provider that is not installed. VirtualBox is often not installed where this runs.
known='^(cpus|memory|linked_clone|customize)$'
while read -r key; do
  [[ $key =~ $known ]] || { echo "Vagrantfile: virtualbox.$key is no setting that VirtualBox's provider is known to have" >&2; exit 1; }
done < <(grep -oE '^ +virtualbox\.[a-z_]+' Vagrantfile | sed 's/.*\.//')

home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
VAGRANT_HOME=$home VAGRANT_CHECKPOINT_DISABLE=1 vagrant validate --ignore-provider
