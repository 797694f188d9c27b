package hosts

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// cacheDir holds the tree between runs.
const cacheDir = "/var/cache/xebec"

// suiteVariable names the Debian release that the hosts run, in place of the usual one.
const (
	suiteVariable = "XEBEC_HOSTS_SUITE"
	usualSuite    = "bookworm"
)

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

// tree returns the directory of a Debian tree to boot hosts from, which it makes when it is not in
// the cache.
func tree(t *testing.T) string {
	t.Helper()
	suite := cmp.Or(os.Getenv(suiteVariable), usualSuite)
	recipe := sha256.Sum256([]byte(suite + strings.Join(packages, ",") + prepare))
	dir := filepath.Join(cacheDir, fmt.Sprintf("hosts-%s-%x", suite, recipe[:6]))
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(cacheDir, "hosts.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	// Trees by older recipes are of no use any more.
	old, err := filepath.Glob(filepath.Join(cacheDir, "hosts-"+suite+"-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range old {
		if err := os.RemoveAll(o); err != nil {
			t.Fatal(err)
		}
	}
	fresh := dir + ".part"
	t.Logf("Making %s, which takes a minute or two", dir)
	out, err := exec.CommandContext(t.Context(), "debootstrap", "--variant=minbase", "--include="+strings.Join(packages, ","), suite, fresh).CombinedOutput()
	if err != nil {
		t.Fatalf("debootstrap: %v\n%s", err, lastLines(out, 20))
	}
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", prepare, "prepare", fresh).CombinedOutput(); err != nil {
		t.Fatalf("prepare the tree: %v\n%s", err, out)
	}
	if err := os.Rename(fresh, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// lastLines returns the end of a program's output.
func lastLines(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
