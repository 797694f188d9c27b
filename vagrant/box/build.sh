#!/usr/bin/env bash
# Builds a box of Debian for Vagrant's libvirt provider from Debian's packages, with all packages that the roles install, so
# that its machines need no mirror. As root, in about three minutes; needs debootstrap, e2fsprogs and qemu-utils.
#
#   vagrant/box/build.sh OUT.box [SUITE]
#
# SUITE is a Debian release, bookworm by default. The disk has one partition, and GRUB in the gap before it. The script writes
# both directly, without a loop device, and mounts only /proc in the new tree while its packages are configured.
set -euo pipefail

if (($# < 1 || $# > 2)); then
  sed -n 's/^#   //p' "$0" >&2
  exit 2
fi
out=$(realpath -m "$1")
suite=${2:-bookworm}
if ((EUID != 0)); then
  echo "build.sh: must be root, to make device files and files of other owners" >&2
  exit 1
fi
for program in debootstrap mke2fs qemu-img sfdisk; do
  PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || {
    echo "build.sh: $program is missing: hack/deps.sh vm installs it" >&2
    exit 1
  }
done
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C

# Sizes in MiB. The gap before the partition holds GRUB.
disk_size=8192
gap=1

packages=(
  # to boot
  systemd-sysv dbus udev kmod linux-image-cloud-amd64 initramfs-tools grub-pc-bin e2fsprogs procps
  # to let Vagrant log in and configure the machine
  openssh-server sudo ifupdown isc-dhcp-client iproute2 iputils-ping python3 python3-apt rsync ca-certificates
  # installed by the roles
  containerd runc haproxy keepalived systemd-timesyncd
)

work=$(mktemp -d "${TMPDIR:-/tmp}/xebec-box-XXXXXX")
cleanup() {
  umount "$work/tree/proc" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
tree=$work/tree

echo "box: installing Debian $suite"
include=$(IFS=,; echo "${packages[*]}")
debootstrap --variant=minbase --include="$include" "$suite" "$tree" >"$work/log" 2>&1 || {
  tail -n 20 "$work/log" >&2
  [[ ! -e $tree/debootstrap/debootstrap.log ]] || tail -n 20 "$tree/debootstrap/debootstrap.log" >&2
  exit 1
}

echo "box: configuring"
# Vagrant's well-known public key: everyone who can reach a fresh machine can log in to it.
key='ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key'
chroot "$tree" useradd --create-home --shell /bin/bash vagrant
install -d -m 700 "$tree/home/vagrant/.ssh"
echo "$key" >"$tree/home/vagrant/.ssh/authorized_keys"
chmod 600 "$tree/home/vagrant/.ssh/authorized_keys"
chroot "$tree" chown -R vagrant:vagrant /home/vagrant/.ssh
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$tree/etc/sudoers.d/vagrant"
chmod 440 "$tree/etc/sudoers.d/vagrant"

echo "$suite" >"$tree/etc/hostname"
printf '127.0.0.1\tlocalhost\n127.0.1.1\t%s\n' "$suite" >"$tree/etc/hosts"
cat >"$tree/etc/network/interfaces" <<'EOF'
auto lo
iface lo inet loopback
# The interface that Vagrant uses to log in. It adds the other interfaces below.
allow-hotplug eth0
iface eth0 inet dhcp
source /etc/network/interfaces.d/*
EOF
uuid=$(cat /proc/sys/kernel/random/uuid)
echo "UUID=$uuid / ext4 errors=remount-ro 0 1" >"$tree/etc/fstab"
printf 'APT::Periodic::Enable "0";\n' >"$tree/etc/apt/apt.conf.d/99-no-periodic"
# The roles start these services, because they write their configuration.
for unit in containerd haproxy keepalived; do
  rm -f "$tree/etc/systemd/system/multi-user.target.wants/$unit.service"
done
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer man-db.timer dpkg-db-backup.timer; do
  ln -sfn /dev/null "$tree/etc/systemd/system/$unit"
done
# Interface names as the Vagrantfile's private network expects them, and a console to debug a machine that does not start.
cmdline="root=UUID=$uuid ro net.ifnames=0 biosdevname=0 console=tty0 console=ttyS0,115200"
kernel=$(basename "$(ls "$tree"/boot/vmlinuz-*)")
initrd=$(basename "$(ls "$tree"/boot/initrd.img-*)")
mkdir -p "$tree/boot/grub"
cat >"$tree/boot/grub/grub.cfg" <<EOF
serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
set timeout=0
menuentry Debian {
  linux /boot/$kernel $cmdline
  initrd /boot/$initrd
}
EOF
# Host keys and the machine's identity are made on each machine's first start.
rm -f "$tree"/etc/ssh/ssh_host_* "$tree/etc/machine-id" "$tree/var/lib/dbus/machine-id"
: >"$tree/etc/machine-id"
cat >"$tree/etc/systemd/system/ssh-keys.service" <<'EOF'
[Unit]
Description=Make this machine's SSH host keys
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
EOF
mkdir -p "$tree/etc/systemd/system/multi-user.target.wants"
ln -sfn ../ssh-keys.service "$tree/etc/systemd/system/multi-user.target.wants/ssh-keys.service"
rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/* "$tree"/usr/share/{doc,man,locale}/* "$tree"/var/log/*.log

echo "box: making the disk"
# GRUB's second stage reads the partition by itself and finds its configuration there.
chroot "$tree" grub-mkimage -O i386-pc -o /boot/grub/core.img -p '(hd0,msdos1)/boot/grub' \
  biosdisk part_msdos ext2 linux normal configfile echo serial terminal search
disk=$work/box.raw
truncate -s "${disk_size}M" "$disk"
sfdisk -q "$disk" <<<"label: dos
start=${gap}MiB, type=83, bootable"
mke2fs -q -t ext4 -U "$uuid" -L root -d "$tree" -E "offset=$((gap << 20)),lazy_itable_init=0" "$disk" "$((disk_size - gap))M"
# The first 440 bytes are boot code; the partition table follows. boot.img looks for the second stage in the next sector.
dd if="$tree/usr/lib/grub/i386-pc/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
core=$tree/boot/grub/core.img
if (($(stat -c %s "$core") > (gap << 20) - 512)); then
  echo "build.sh: GRUB does not fit into the gap of $gap MiB" >&2
  exit 1
fi
dd if="$core" of="$disk" bs=512 seek=1 conv=notrunc status=none

echo "box: packing"
qemu-img convert -c -O qcow2 "$disk" "$work/box.img"
cat >"$work/metadata.json" <<EOF
{"provider": "libvirt", "format": "qcow2", "virtual_size": $(((disk_size + 1023) / 1024))}
EOF
cat >"$work/Vagrantfile" <<'EOF'
Vagrant.configure("2") do |config|
  config.vm.synced_folder ".", "/vagrant", disabled: true
end
EOF
mkdir -p "$(dirname "$out")"
tar -C "$work" -czf "$out.part" metadata.json Vagrantfile box.img
mv "$out.part" "$out"
echo "box: $out, $(du -m "$out" | cut -f1) MB"
