#!/usr/bin/env bash
# Runs all fuzz targets, one after the other: hack/fuzz.sh TIME [PATTERN]. The targets are found in the sources. PATTERN
# selects some by package and name, such as internal/manifest or FuzzJSON.
#
# Go writes an input that fails into testdata/fuzz of the package. From then on, the normal tests run it too.
set -euo pipefail
cd "$(dirname "$0")/.."
fuzztime=$1
pattern=${2-.}

mapfile -t targets < <(git ls-files --cached --others --exclude-standard '*_test.go' | xargs grep -HoE '^func Fuzz[A-Za-z0-9_]*' |
  sed -E 's,^(.*)/[^/]*:func ,\1 ,' | grep -E -- "$pattern" | sort)
if ((${#targets[@]} == 0)); then
  echo "fuzz: no fuzz target matches \"$pattern\"" >&2
  exit 2
fi
echo "fuzz: ${#targets[@]} targets, $fuzztime each"
failed=()
for target in "${targets[@]}"; do
  read -r dir name <<<"$target"
  echo "=== $dir $name"
  # make lint runs go vet.
  go test -vet=off "./$dir" -run '^$' -fuzz "^$name\$" -fuzztime "$fuzztime" || failed+=("$target")
done
if ((${#failed[@]} > 0)); then
  printf 'fuzz: FAILED %s\n' "${failed[@]}"
  exit 1
fi
echo "fuzz: all ${#targets[@]} targets passed"
