#!/usr/bin/env bash
# Checks the playbooks, the units and the Vagrantfile as far as that is possible without a host.
set -euo pipefail
cd "$(dirname "$0")/.."
units=$(mktemp -d)
trap 'rm -rf "$units"' EXIT

echo "yamllint"
yamllint --strict -c ansible/.yamllint ansible vagrant

echo "ansible-playbook --syntax-check"
for playbook in ansible/*.yml; do
  ANSIBLE_CONFIG=ansible/ansible.cfg ansible-playbook -i ansible/inventory/example.yml --syntax-check "$playbook" 2>/dev/null >"$units/out" ||
    ANSIBLE_CONFIG=ansible/ansible.cfg ansible-playbook -i ansible/inventory/example.yml --syntax-check "$playbook"
done

echo "ansible-lint"
(cd ansible && ansible-lint --offline -q --nocolor)

echo "systemd-analyze"
# The programs are not installed on this machine; /bin/true takes their place.
render() { sed -e 's,{{ item.key }},example,g' -e 's,{{ xebec_start_timeout }},600,' -e 's,{{ .*shutdownGracePeriod.* }},2m30s,' -e 's,=/usr/local/bin/xebec[a-z-]*,=/bin/true,' "$1" >"$units/$2"; }
render ansible/roles/control_plane/templates/xebec-service.service.j2 xebec-example.service
render ansible/roles/etcd/templates/xebec-etcd.service.j2 xebec-etcd.service
render ansible/roles/node/templates/xebec-agent.service.j2 xebec-agent.service
systemd-analyze verify --recursive-errors=no "$units"/*.service
# Services of the control plane are sandboxed. The agent cannot be; its unit says why.
for unit in xebec-example.service xebec-etcd.service; do
  systemd-analyze security --offline=true --threshold=20 --no-pager "$units/$unit" >"$units/out" || { cat "$units/out" && exit 1; }
done

echo "vagrant"
vagrant/check.sh
