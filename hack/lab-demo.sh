#!/usr/bin/env bash
# Starts the lab unless it runs, deploys the samples and shows that they work.
set -euo pipefail
cd "$(dirname "$0")/.."
xebec=bin/xebec
sudo=()
if ((EUID != 0)); then
  sudo=(sudo)
fi

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() {
  printf '$ %s\n' "$*"
  "$@"
}

if ! "${sudo[@]}" "$xebec" lab status >/dev/null 2>&1; then
  say "A cluster of three masters and two nodes"
  run "${sudo[@]}" "$xebec" lab up
fi
run "$xebec" get nodes -o wide

say "The sample images, without a registry"
for archive in bin/images/*.tar; do
  run "$xebec" image load "$archive"
done

say "An ordinary Kubernetes manifest"
run "$xebec" apply -f samples/
run "$xebec" wait --for=condition=Available deployment/echo --timeout=60s
run "$xebec" wait --for=condition=Ready pod/client --timeout=60s
run "$xebec" get pods,services -o wide

say "From a pod: by DNS name, balanced by eBPF"
run "$xebec" exec client -- /client get http://echo/name --count 6 --interval 100ms

say "Try next"
cat <<'TEXT'
  sudo bin/xebec lab kill master-1         everything continues to work
  bin/xebec get pods -w
  bin/xebec exec client -- /client load http://echo/name --for 5s
  sudo bin/xebec lab start master-1
  sudo bin/xebec lab status
  make lab-down
TEXT
