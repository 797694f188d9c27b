package hosts

import (
	"cmp"
	"os"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/tests/guests"
)

// suiteVariable names the Debian release that the hosts run, in place of the usual one.
const suiteVariable = "XEBEC_HOSTS_SUITE"

// packages are what a server has, and what the roles install: hosts on the test's wire reach no
// mirror.
var packages = []string{
	"systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "python3", "python3-apt", "iproute2", "procps", "kmod",
	"ca-certificates", "containerd", "runc", "haproxy", "keepalived",
}

// prepare makes a fresh tree a host's: nothing that the roles are to start is enabled, and nothing
// runs that would change the kernel that all hosts here share with the real machine. Of kernel
// settings a host can change only those of its own network.
const prepare = `set -e
cd "$1"
for unit in systemd-modules-load.service systemd-random-seed.service systemd-udevd.service \
    systemd-udev-trigger.service systemd-udevd-kernel.socket systemd-udevd-control.socket sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount dev-hugepages.mount dev-mqueue.mount \
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer man-db.timer console-getty.service; do
  ln -sfn /dev/null etc/systemd/system/$unit
done
for unit in containerd haproxy keepalived; do
  rm -f etc/systemd/system/multi-user.target.wants/$unit.service
done
printf 'APT::Periodic::Enable "0";\n' > etc/apt/apt.conf.d/99-no-periodic
rm -f etc/ssh/ssh_host_* etc/machine-id
: > etc/machine-id
rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/* usr/share/doc usr/share/man usr/share/locale
`

// tree returns the directory of a Debian tree to boot hosts from.
func tree(t *testing.T) string {
	t.Helper()
	suite := cmp.Or(os.Getenv(suiteVariable), guests.Suite)
	image := guests.Image{Kind: "hosts", Suite: suite, Recipe: suite + strings.Join(packages, ",") + prepare}
	return image.Get(t, func(dir string) {
		t.Helper()
		t.Logf("Making %s, which takes a minute or two", dir)
		guests.Run(t, "", "debootstrap", "--variant=minbase", "--include="+strings.Join(packages, ","), suite, dir)
		guests.Run(t, "", "sh", "-c", prepare, "prepare", dir)
	})
}
