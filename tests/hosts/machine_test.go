package hosts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/lab/cgroup"
	"github.com/xebec-project/xebec/lab/machine"
	"github.com/xebec-project/xebec/tests/guests"
)

const (
	// All hosts of a site boot at once, which takes one machine's processors: five of them some seven
	// seconds of two idle ones.
	bootLimit = 3 * time.Minute
	stopLimit = time.Minute
)

// kernelFileSystems mounts what a real host has when it boots, and a container does not: a bpf file
// system, and cgroups that can be written to.
const kernelFileSystems = `[Unit]
Description=The kernel's file systems, as a real host has them
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec 'mount -o remount,rw /sys; mkdir -p /sys/fs/bpf; mount -t bpf bpf /sys/fs/bpf; \
  for dir in /sys/fs/cgroup/*; do ! mountpoint -q $dir || mount -o remount,bind,rw $dir; done'

[Install]
WantedBy=sysinit.target
`

// site is the hosts of one test and the wire between them. Everything of it is named by prefix.
type site struct {
	t      *testing.T
	prefix string
	dir    string // in memory, for the hosts' disks
	tree   string
	hier   cgroup.Hierarchies
	wire   *machine.Wire
	sshKey string
	hosts  []*host
}

// host is one machine.
type host struct {
	site  *site
	name  string
	addr  netip.Addr
	netns string
	dir   string
	cmd   *exec.Cmd
	ended chan struct{}
}

// sites counts the sites of this process, which run side by side.
var sites atomic.Int32

// newSite makes the wire. At the end of the test every trace of the site is removed.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, prefix: fmt.Sprintf("xbh%dx%d", os.Getpid(), sites.Add(1)), tree: tree(t)}
	var err error
	if s.hier, err = cgroup.Find(); err != nil {
		guests.Missing(t, err.Error())
	}
	if s.dir, err = os.MkdirTemp("/dev/shm", s.prefix+"-"); err != nil {
		t.Fatal(err)
	}
	mounted := machine.NetnsDirMounted()
	stopReaper, err := s.startReaper(mounted)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := removeSite(s.hier, s.prefix, s.dir, mounted)
		if s.wire != nil {
			err = errors.Join(err, s.wire.Delete())
		}
		if err := errors.Join(err, stopReaper()); err != nil {
			t.Errorf("leave nothing behind: %v", err)
		}
	})
	if s.wire, err = machine.CreateWire(s.prefix+"-wire", machine.Segment{Router: netip.MustParsePrefix("10.91.7.1/24")}); err != nil {
		t.Fatal(err)
	}
	s.sshKey = filepath.Join(s.dir, "ssh-key")
	s.mustRun("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.sshKey)
	return s
}

func (s *site) mustRun(name string, args ...string) {
	s.t.Helper()
	guests.Run(s.t, "", name, args...)
}

// add makes a host that is off.
func (s *site) add(name string, addr netip.Addr) *host {
	s.t.Helper()
	h := &host{site: s, name: name, addr: addr, netns: s.prefix + "-" + name, dir: filepath.Join(s.dir, name)}
	s.hosts = append(s.hosts, h)
	h.install()
	return h
}

// install makes the host's disks, with a fresh system.
func (h *host) install() {
	s, name, addr := h.site, h.name, h.addr
	s.t.Helper()
	upper := filepath.Join(h.dir, "upper")
	for _, dir := range []string{"upper/etc/ssh", "upper/etc/systemd/system/sysinit.target.wants", "upper/root/.ssh", "work", "root", "containerd"} {
		if err := os.MkdirAll(filepath.Join(h.dir, dir), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	// The directory of a secret must be its owner's alone, or sshd ignores what is in it.
	if err := os.Chmod(filepath.Join(upper, "root"), 0o700); err != nil {
		s.t.Fatal(err)
	}
	public, err := os.ReadFile(s.sshKey + ".pub")
	if err != nil {
		s.t.Fatal(err)
	}
	for file, content := range map[string]string{
		"root/.ssh/authorized_keys":                      string(public),
		"etc/systemd/system/kernel-file-systems.service": kernelFileSystems,
		"etc/hostname":    name + "\n",
		"etc/hosts":       "127.0.0.1 localhost\n" + addr.String() + " " + name + "\n",
		"etc/resolv.conf": "options timeout:1 attempts:1\n",
	} {
		if err := os.WriteFile(filepath.Join(upper, file), []byte(content), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := os.Symlink("../kernel-file-systems.service", filepath.Join(upper, "etc/systemd/system/sysinit.target.wants/kernel-file-systems.service")); err != nil {
		s.t.Fatal(err)
	}
	s.mustRun("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(upper, "etc/ssh/ssh_host_ed25519_key"))
	err = unix.Mount("overlay", filepath.Join(h.dir, "root"), "overlay", 0,
		fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", s.tree, upper, filepath.Join(h.dir, "work")))
	if err != nil {
		s.t.Fatalf("mount the disk of %s: %v", name, err)
	}
}

// reinstall gives a host that is off empty disks and boots it: another machine under the same name.
func (h *host) reinstall() error {
	if err := h.remove(); err != nil {
		return err
	}
	if err := os.RemoveAll(h.dir); err != nil {
		return err
	}
	h.install()
	return h.boot()
}

// boot starts the host and returns once it takes ssh connections.
func (h *host) boot() error {
	ns, err := machine.CreateNamespace(h.netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	wire := h.site.prefix + "-wire"
	for _, args := range [][]string{
		{"-n", wire, "link", "add", h.name, "type", "veth", "peer", "name", "eth0", "netns", h.netns},
		{"-n", wire, "link", "set", h.name, "master", "wire1", "up"},
		{"-n", h.netns, "addr", "add", h.addr.String() + "/24", "dev", "eth0"},
		{"-n", h.netns, "link", "set", "eth0", "up"},
		{"-n", h.netns, "route", "add", "default", "via", "10.91.7.1"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	if err := h.site.hier.Create(h.cgroup(), true); err != nil {
		return err
	}
	console, err := os.OpenFile(filepath.Join(h.dir, "console"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	// Not ended by a context: hosts end with their cgroup.
	h.cmd = exec.Command("systemd-nspawn", "--boot", "--quiet", "-D", filepath.Join(h.dir, "root"), "-M", h.netns, "--hostname="+h.name,
		"--register=no", "--keep-unit", "--console=pipe", "--network-namespace-path=/run/netns/"+h.netns, "--capability=all",
		"--system-call-filter=bpf perf_event_open keyctl add_key request_key", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--bind="+filepath.Join(h.dir, "containerd")+":/var/lib/containerd")
	// Of the settings under /proc/sys only the network's, which are each namespace's own, can be
	// changed.
	h.cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network", "SYSTEMD_NSPAWN_LOCK=0")
	h.cmd.Stdout, h.cmd.Stderr = console, console
	if err := machine.StartOutside(h.site.hier, h.cgroup(), h.cmd); err != nil {
		return fmt.Errorf("start %s: %w", h.name, err)
	}
	h.ended = make(chan struct{})
	go func() {
		defer close(h.ended)
		_ = h.cmd.Wait()
	}()
	return h.awaitSSH()
}

func (h *host) cgroup() string { return h.site.prefix + "/" + h.name }

func (h *host) awaitSSH() error {
	ctx, cancel := context.WithTimeout(h.site.t.Context(), bootLimit)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		attempt, stop := context.WithTimeout(ctx, time.Second)
		conn, err := h.site.wire.Dial(attempt, netip.AddrPortFrom(h.addr, 22))
		stop()
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ticker.C:
		case <-h.ended:
			return fmt.Errorf("%s ended while booting:\n%s", h.name, h.console())
		case <-ctx.Done():
			return fmt.Errorf("%s takes no ssh connections: %w\n%s", h.name, err, h.console())
		}
	}
}

func (h *host) console() string {
	out, err := os.ReadFile(filepath.Join(h.dir, "console"))
	if err != nil {
		return err.Error()
	}
	return guests.LastLines(out, 30)
}

// cutPower ends everything on the host at once. Its disk stays.
func (h *host) cutPower() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	if err := h.site.hier.Kill(ctx, h.cgroup()); err != nil {
		return err
	}
	if h.ended != nil {
		<-h.ended
	}
	err := h.site.hier.Remove(ctx, h.cgroup())
	// The namespace may be kept alive by its last connections; its wire must be gone before another is
	// plugged in.
	if out, ipErr := exec.Command("ip", "-n", h.site.prefix+"-wire", "link", "del", h.name).CombinedOutput(); ipErr != nil {
		err = errors.Join(err, fmt.Errorf("unplug %s: %w: %s", h.name, ipErr, bytes.TrimSpace(out)))
	}
	return errors.Join(err, machine.DeleteNamespace(h.netns))
}

// remove takes away what a host that has ended leaves on the real machine.
func (h *host) remove() error {
	err := machine.DeleteNamespace(h.netns)
	if e := unix.Unmount(filepath.Join(h.dir, "root"), unix.MNT_DETACH); e != nil && !errors.Is(e, unix.EINVAL) {
		err = errors.Join(err, e)
	}
	for _, dir := range []string{"propagate", "unix-export"} {
		path := filepath.Join("/run/systemd/nspawn", dir, h.netns)
		_ = unix.Unmount(path, unix.MNT_DETACH)
		_ = os.Remove(path)
	}
	return err
}

// control runs a program where the person is who installs the cluster: on the wire, beside the
// hosts.
func (s *site) control(ctx context.Context, env []string, name string, args ...string) (string, error) {
	return s.controlIn(ctx, s.prefix+"-wire", env, name, args...)
}

// controlIn runs a program with the addresses of a network namespace.
func (s *site) controlIn(ctx context.Context, netns string, env []string, name string, args ...string) (string, error) {
	const group = "/control"
	if err := s.hier.Create(s.prefix+group, false); err != nil {
		return "", err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + netns, name}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	if err := machine.StartOutside(s.hier, s.prefix+group, cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	// Connections that ssh keeps open for the next call have our output open as well; that is no
	// failure.
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return out.String(), err
}
