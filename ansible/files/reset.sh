#!/bin/bash
# Takes everything off this host that the roles put there and that ran because of it. What is not there is no error, so that
# it can be run again. Prints "removed" when there was something.
set -euo pipefail
shopt -s nullglob

state=/var/lib/xebec
units=(/etc/systemd/system/xebec-*.service)
if ((${#units[@]} > 0)) || [[ -e /etc/xebec || -e $state ]]; then
  echo removed
fi

if ((${#units[@]} > 0)); then
  systemctl disable --now --quiet "${units[@]##*/}"
fi

# Pods: their containers, then what is mounted for them, which their network namespaces end with.
if [[ -e $state && -S /run/containerd/containerd.sock ]]; then
  for container in $(ctr -n xebec containers list --quiet); do
    ctr -n xebec tasks kill --all --signal SIGKILL "$container" >/dev/null 2>&1 || true
    ctr -n xebec tasks delete --force "$container" >/dev/null 2>&1 || true
    ctr -n xebec containers delete "$container" >/dev/null
  done
fi
if [[ -e /etc/xebec/agent ]]; then
  systemctl disable --now --quiet containerd.service
  find /var/lib/containerd -mindepth 1 -delete
  rm -f /etc/containerd/config.toml
fi
awk -v top="$state/" 'index($2, top) == 1 {print $2}' /proc/mounts | sort -r | while read -r mount; do
  # A bind mount shares what is mounted below it with the mount it was made of, which must keep it.
  mount --make-rprivate "$mount" 2>/dev/null || true
  umount -l "$mount"
done

# Routing: programs end with their pins, on older kernels with their filters.
if [[ -e $state ]]; then
  rm -rf /sys/fs/bpf/xebec
  for link in /sys/class/net/*; do
    name=${link##*/}
    case $name in
      xeb-* | xebec*) ip link delete "$name" 2>/dev/null || true ;;
      *)
        for way in ingress egress; do
          tc filter delete dev "$name" "$way" pref 88 2>/dev/null || true
        done
        ;;
    esac
  done
  ip route flush proto 88 2>/dev/null || true
  for group in /sys/fs/cgroup/xebec /sys/fs/cgroup/*/xebec; do
    [[ ! -d $group ]] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
fi

# The load balancer.
if grep -qs 'installation of Xebec' /etc/keepalived/keepalived.conf; then
  systemctl disable --now --quiet keepalived.service haproxy.service
  rm -f /etc/keepalived/keepalived.conf /etc/haproxy/haproxy.cfg /run/xebec-haproxy
  rm -f /etc/systemd/system/{haproxy,keepalived}.service.d/xebec.conf
  for directory in /etc/systemd/system/{haproxy,keepalived}.service.d; do
    [[ ! -d $directory ]] || rmdir --ignore-fail-on-non-empty "$directory"
  done
fi

rm -rf "$state" /var/lib/xebec-* /etc/xebec /run/xebec-etcd.env
rm -f "${units[@]}" /etc/sysctl.d/90-xebec.conf /etc/sysusers.d/xebec-*.conf /usr/local/bin/{xebec,xebecd,xebec-agent}
systemctl daemon-reload
for user in $(sed -n 's/^\(xebec-[a-z]*\):.*/\1/p' /etc/passwd); do
  userdel "$user"
done
