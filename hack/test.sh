#!/usr/bin/env bash
# Runs go test with gotestsum: hack/test.sh PACKAGES [go test flags].
#
# When at most three tests fail, each of them is run a second time, with its root test. Panics, time-outs, data races and
# packages that do not build are not rerun, because a second run proves nothing about them. Each test that passes only in
# its second run is printed as FLAKY, so that its cause is fixed.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=$1
shift

# go test starts packages in this order, the longest first. While these wait for containers and leases, the others run
# beside them, and no run ends with a long package alone on the machine.
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
  # A line is "package.Test: 2 runs, 1 failures". A test with two failures is not flaky.
  sed -n 's/^\(.*\): 2 runs, 1 failures$/FLAKY: \1 failed once and passed when run again/p' "$dir/reruns"
fi
exit "$status"
