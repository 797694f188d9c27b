#!/bin/bash
# Removes everything from this host that the roles installed and that the installation started. It can be run again: what
# does not exist is no error. Prints "removed" when it removed something.
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

# Pods: their containers, then their mounts. Their network namespaces end with these.
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
  # Without this, unmounting a bind mount would also unmount what is mounted below its source.
  mount --make-rprivate "$mount" 2>/dev/null || true
  umount -l "$mount"
done

# Routing: a program is removed with its pin, on older kernels with its filter.
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
