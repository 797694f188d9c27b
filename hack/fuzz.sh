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
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cache=$(go env GOCACHE)/fuzz
failed=()
built=
for target in "${targets[@]}"; do
  read -r dir name <<<"$target"
  echo "=== $dir $name"
  # One program has all targets of a package. make lint runs go vet.
  if [[ $built != "$dir" ]]; then
    if ! go test -c -vet=off -ldflags=-w -fuzz . -o "$work/fuzz.test" "./$dir"; then
      failed+=("$target")
      continue
    fi
    built=$dir
  fi
  (cd "$dir" && "$work/fuzz.test" -test.run '^$' -test.fuzz "^$name\$" -test.fuzztime "$fuzztime" -test.fuzzcachedir "$cache/$(go list)") ||
    failed+=("$target")
done
if ((${#failed[@]} > 0)); then
  printf 'fuzz: FAILED %s\n' "${failed[@]}"
  exit 1
fi
echo "fuzz: all ${#targets[@]} targets passed"
