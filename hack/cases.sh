#!/usr/bin/env bash
# Runs the regression cases of a directory (scripts and manifests that once failed) on a separate lab, and compares their
# output and the resulting state with the expected ones: hack/cases.sh DIR. As root. Each case needs a check here, by its
# number.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cases=$(cd "$1" && pwd)
lab=cases
work=$(mktemp -d)
export PATH=$root/bin:$PATH XEBECCONFIG=$work/config

end() {
  xebec lab down --name "$lab" --purge >/dev/null || true
  rm -rf "$work"
}
trap end EXIT

failed=0
# expect WHAT GOT WANT compares with a glob pattern.
expect() {
  # shellcheck disable=SC2053 # a pattern
  if [[ $2 == $3 ]]; then
    echo "  ok    $1"
  else
    printf '  FAIL  %s\n        got  %s\n        want %s\n' "$1" "${2//$'\n'/$'\n'             }" "$3"
    failed=1
  fi
}
# await SECONDS COMMAND... until it succeeds.
await() {
  local until=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < until)) || return 1
    sleep 0.5
  done
}
line() { grep -m1 -e "$1" <<<"$out" || true; }

case_01() {
  out=$(bash "$1" 2>&1)
  expect "nothing of env is lost" "$(line '^env now')" '*"value":"1"*"value":"2"*'
  expect "the duplicate of env is named" "$(line '^Warning')" '*env\[2\]*'
  expect "the pod is refused with the path, or nothing is lost" "$(line 'Pod "duppod" is invalid')$(line '^ports now: .')" '@(*volumeMounts\[1\]*|*8080*9090*)'
}
case_02() {
  out=$(bash "$1" 2>&1)
  expect "the file beside the destination is as it was" "$(line '^notes.txt')" 'notes.txt: mine*'
  expect "no file beside the destination was made" "$(line 'cannot access')" '*.profile*'
}
case_03() {
  out=$(bash "$1" 2>&1)
  for drop in 'drop: \[ALL\] ' 'drop: \[all\] ' 'drop: \[All\] '; do
    expect "$drop" "$(line "^$drop")" '*0000000000000000'
  done
  expect "drop all, add one" "$(line '^drop: \[all\], add')" '*0000000000000400'
  expect "add all" "$(line '^add: \[all\]')" '*CapEff:?000001ff*'
  expect "an unknown name is refused" "$(line '^add: \[NO_SUCH\]')" '!(*CapEff*)'
}
case_04() {
  xebec apply -f "$1" >/dev/null
  for pod in nest-emptydir nest-secret; do
    expect "$pod is ready" "$(xebec wait --for=condition=Ready "pod/$pod" --timeout=60s 2>&1)" '*condition met'
  done
  xebec delete -f "$1" >/dev/null
}
case_06() {
  if ! out=$(xebec apply -f "$1" 2>&1); then
    expect "refused with the path" "$out" '*items*'
    xebec delete configmap pathcm --ignore-not-found >/dev/null
    return
  fi
  await 60 bash -c 'xebec get events | grep pathpod | grep -q FailedMount' || true
  expect "an event says why" "$(xebec get events | grep pathpod || true)" '*FailedMount*'
  xebec delete -f "$1" --now >/dev/null
}
case_07() {
  xebec apply -f "$1" >/dev/null
  await 60 bash -c '[[ $(xebec get pod escpod -o jsonpath="{.status.phase}") == Failed ]]' || true
  for command in "describe pod escpod" "get events" "get pods -o wide"; do
    # shellcheck disable=SC2086 # words of a command
    out=$(xebec $command 2>&1)
    expect "$command: no control characters" "$(tr -d '\n\t' <<<"$out" | LC_ALL=C grep -c '[[:cntrl:]]' || true)" 0
  done
  expect "describe shows them as text" "$(xebec describe pod escpod)" '*^\[*'
  xebec delete -f "$1" --now >/dev/null
}
case_09() {
  out=$(bash "$1" 2>&1 | grep '^{')
  expect "both keys" "$(sed -n 1p <<<"$out")" '{"a":"b25l","b":"dHdv"}*'
  expect "a removed key is gone" "$(sed -n 2p <<<"$out")" '{"a":"Y2hhbmdlZA=="}*'
  expect "stringData wins" "$(sed -n 3p <<<"$out")" '{"a":"d2lucw==","c":"dGhyZWU="}*'
  expect "data as given" "$(sed -n 4p <<<"$out")" '{"a":"b25l","c":"dGhyZWU="}*'
  xebec delete secret strsec --ignore-not-found >/dev/null
}
case_10() {
  out=$(bash "$1" 2>&1)
  expect "by tag and digest" "$(line '^dig1')" 'dig1 Running*'
  expect "by digest" "$(line '^dig2')" 'dig2 Running*'
}
case_11() {
  xebec apply -f "$1" >/dev/null
  await 60 bash -c '[[ $(xebec get pod leftover -o jsonpath="{.status.phase}") == Running ]]' || true
  sleep 30
  for container in m bg; do
    first=$(xebec exec leftover -c "$container" -- ps | wc -l)
    sleep 30
    second=$(xebec exec leftover -c "$container" -- ps | wc -l)
    if ((second <= first + 3)); then grows=no; else grows="from $first to $second lines of ps"; fi
    expect "processes of container $container do not grow" "$grows" no
  done
  xebec delete -f "$1" >/dev/null
}
case_15() {
  out=$(bash "$1" 2>&1)
  expect "the sidecar ends last" "$(line '^order')" 'order: main-end sidecar-term *'
}

(cd "$work" && python3 "$cases/00-images.py" >/dev/null)
xebec lab up --name "$lab" --masters 1 --nodes 1 --ephemeral >/dev/null
for image in "$work"/*.tar; do
  xebec image load "$image" >/dev/null
done

for file in "$cases"/[0-9]*; do
  name=$(basename "$file")
  number=${name%%-*}
  [[ $number == 00 ]] && continue
  echo "$name"
  if declare -F "case_$number" >/dev/null; then
    # A command that fails inside the case is visible in its output.
    "case_$number" "$file" || true
  else
    echo "  FAIL  hack/cases.sh has no check for it"
    failed=1
  fi
done
if ((failed)); then
  echo FAILED
  exit 1
fi
echo PASSED
