#!/usr/bin/env bash
# Writes the data of a version, tests/upgrades/testdata/NAME, which later versions have to read: hack/upgrade-data.sh v0.1.0 ae67045
# builds xebecd as of that commit, lets it store tests/upgrades/testdata/objects.yaml and takes a snapshot of its etcd.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $# == 2 ]] || { echo "usage: hack/upgrade-data.sh NAME COMMIT" >&2; exit 2; }
work=$(mktemp -d)
trap 'git worktree remove --force "$work/tree" 2>/dev/null || true; rm -rf "$work"' EXIT
git worktree add --detach "$work/tree" "$2"
(cd "$work/tree" && CGO_ENABLED=0 go build -trimpath -o "$work/bin/" ./cmd/xebecd)
XEBEC_BIN="$work/bin" go test -count=1 -v ./tests/upgrades -make "$1"
