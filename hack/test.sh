#!/usr/bin/env bash
# Runs go test by way of gotestsum: hack/test.sh PACKAGES [go test flags].
#
# A test that fails is run once more, with its root test, when at most three failed. Failures that a second run says
# nothing about are never rerun: panics, time-outs, data races and packages that do not build. Each test that passed only
# at its second run is printed as FLAKY, for its cause to be fixed.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=$1
shift

# go test starts packages in this order. The longest start first, the longest of all at the head: while they wait for
# containers and leases, the others run beside them, and no run ends with one of them alone on the machine.
longest=(
  tests/e2e agent/pods agent services/apiserver/storage agent/datapath tests/cluster tests/controllers services/apiserver
  services/gateway internal/discovery internal/rpc services/etcd tests/structure tests/linearizability cli
)
module=$(go list -m)
packages=$(
  for package in "${longest[@]}"; do
    grep -xF "$module/$package" <<<"$packages" || true
  done
  grep -vxF "$(printf "$module/%s\n" "${longest[@]}")" <<<"$packages" || true
)

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

status=0
go tool -modfile=tools/go.mod gotestsum --no-color --format standard-quiet --hide-summary skipped \
  --rerun-fails=1 --rerun-fails-max-failures=3 --rerun-fails-run-root-test --rerun-fails-abort-on-data-race \
  --rerun-fails-report "$dir/reruns" \
  --packages "$packages" -- -count=1 "$@" || status=$?

if [[ -s $dir/reruns ]]; then
  echo
  # A line is "package.Test: 2 runs, 1 failures"; two failures are no flake.
  sed -n 's/^\(.*\): 2 runs, 1 failures$/FLAKY: \1 failed once and passed when run again/p' "$dir/reruns"
fi
exit "$status"
