package hosts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xebec-project/xebec/tests/guests"
)

const (
	virtualIP    = "10.91.7.10"
	playbookTime = 8 * time.Minute
	// callLimit bounds a command, so that one that hangs is reported; how long a call may take it
	// knows by itself.
	callLimit = 30 * time.Second
)

// installed is a site with a cluster on it, as the person who installed it sees it.
type installed struct {
	*site
	repository string
	binaries   string
	state      string
	inventory  string
	token      string // of the default account, made once
}

func needHosts(t *testing.T) {
	t.Helper()
	if os.Getenv("XEBEC_HOSTS") != "1" {
		t.Skip("takes minutes: run with XEBEC_HOSTS=1, as make test-hosts does")
	}
	guests.Require(t, "debootstrap", "systemd-nspawn", "ansible-playbook", "ssh-keygen", "nsenter", "ip")
}

// group is a group of the inventory: so many hosts, whose names begin with a word, at addresses
// from one on.
type group struct {
	name, word   string
	count, first int
}

// bareHosts boots hosts and writes an inventory of them.
func bareHosts(t *testing.T, groups ...group) *installed {
	t.Helper()
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	c := &installed{site: newSite(t), repository: repository}
	c.binaries, c.state, c.inventory = filepath.Join(c.dir, "bin"), filepath.Join(c.dir, "state"), filepath.Join(c.dir, "inventory.json")
	if ready := os.Getenv("XEBEC_HOSTS_BIN"); ready != "" {
		// For those who try a change of a role and not of a program.
		c.binaries = ready
	} else {
		c.build()
	}
	children := map[string]any{}
	for _, g := range groups {
		members := map[string]any{}
		for i := range g.count {
			h := c.add(fmt.Sprint(g.word, "-", i+1), netip.MustParseAddr(fmt.Sprint("10.91.7.", g.first+i)))
			members[h.name] = map[string]string{"ansible_host": h.addr.String()}
		}
		children[g.name] = map[string]any{"hosts": members}
	}
	inventory, err := json.MarshalIndent(map[string]any{"all": map[string]any{
		"vars": map[string]any{
			"ansible_user": "root", "ansible_ssh_private_key_file": c.sshKey, "ansible_python_interpreter": "/usr/bin/python3",
			// Hosts come and go, with new keys at the same addresses.
			"ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
			"xebec_cluster":           "twin", "xebec_vip": virtualIP,
			"xebec_bin_dir": c.binaries, "xebec_state_dir": c.state,
			// The kernel, its clock included, is the real machine's.
			"xebec_time_sync": false, "common_sysctls": map[string]int{"net.ipv4.ip_forward": 1},
		},
		"children": children,
	}}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.inventory, inventory, 0o600); err != nil {
		t.Fatal(err)
	}
	c.all("boot", (*host).boot)
	return c
}

// build makes the programs and the sample images.
func (c *installed) build() {
	c.t.Helper()
	defer c.took("build")()
	build := exec.CommandContext(c.t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", c.binaries+"/", "./cmd/xebec", "./cmd/xebecd", "./cmd/xebec-agent")
	build.Dir, build.Env = c.repository, append(os.Environ(), "CGO_ENABLED=0")
	images := exec.CommandContext(c.t.Context(), "go", "run", "./lab/images/build", "-dir", filepath.Join(c.binaries, "images"))
	images.Dir = c.repository
	for _, cmd := range []*exec.Cmd{build, images} {
		if out, err := cmd.CombinedOutput(); err != nil {
			c.t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
}

// took logs how long what follows takes, until the function returned is called.
func (s *site) took(what string) func() {
	started := time.Now()
	return func() { s.t.Logf("%-28s %5.1f s", what, time.Since(started).Seconds()) }
}

// playbook runs one and returns its output and error.
func (c *installed) playbook(name string, more ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), playbookTime)
	defer cancel()
	defer c.took(name + " " + strings.Join(more, " "))()
	env := []string{
		"ANSIBLE_CONFIG=" + filepath.Join(c.repository, "ansible/ansible.cfg"), "ANSIBLE_NOCOLOR=1",
		"ANSIBLE_LOCAL_TEMP=" + filepath.Join(c.dir, "ansible-tmp"), "ANSIBLE_HOME=" + filepath.Join(c.dir, "ansible-home"),
		"ANSIBLE_SSH_CONTROL_PATH_DIR=" + filepath.Join(c.dir, "cp"), "HOME=" + c.dir,
	}
	return c.control(ctx, env, "ansible-playbook", append([]string{"-i", c.inventory, filepath.Join(c.repository, "ansible", name)}, more...)...)
}

func (c *installed) mustPlaybook(name string, more ...string) string {
	c.t.Helper()
	out, err := c.playbook(name, more...)
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", name, err, guests.LastLines([]byte(out), 80))
	}
	return out
}

// xebec runs the command line with the context that the playbook wrote, through the virtual IP.
func (c *installed) xebec(limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	return c.control(ctx, []string{"XEBECCONFIG=" + filepath.Join(c.state, "config")}, filepath.Join(c.binaries, "xebec"), args...)
}

func (c *installed) mustXebec(limit time.Duration, args ...string) string {
	c.t.Helper()
	out, err := c.xebec(limit, args...)
	if err != nil {
		c.t.Fatalf("xebec %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// ssh runs a command on a host.
func (c *installed) ssh(name, command string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	out, err := c.onHost(ctx, c.host(name), command)
	if err != nil {
		c.t.Fatalf("%s: %s: %v\n%s", name, command, err, out)
	}
	return out
}

func (c *installed) onHost(ctx context.Context, h *host, command string) (string, error) {
	return c.control(ctx, nil, "ssh", "-i", c.sshKey, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		"root@"+h.addr.String(), command)
}

var recap = regexp.MustCompile(`(?m)^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)`)

// holds reports whether the host has an address.
func (h *host) holds(address string) bool {
	out, err := exec.Command("ip", "-n", h.netns, "-o", "addr", "show", "to", address).Output()
	return err == nil && len(out) > 0
}

// holder returns the host that has the virtual IP.
func (c *installed) holder() *host {
	c.t.Helper()
	for _, h := range c.hosts {
		if h.holds(virtualIP) {
			return h
		}
	}
	c.t.Fatal("no host has the virtual IP")
	return nil
}

// calls counts the calls of a client that does not try again, while something is done to the
// cluster: reads and writes in turn, each on a connection of its own through the virtual IP. None
// may fail.
func (c *installed) calls(what string, during func()) {
	c.t.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	made := 0
	var failures []string
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			made++
			call := []string{"get", "pods"}
			if made%2 == 0 {
				call = []string{"label", "--overwrite", "deployment/echo", fmt.Sprint("call=", made)}
			}
			if out, err := c.xebec(callLimit, call...); err != nil {
				failures = append(failures, fmt.Sprintf("%s %s: %v: %s", time.Now().Format("15:04:05.0"), call[0], err, strings.TrimSpace(out)))
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
		c.t.Logf("%d of %d calls failed during the %s", len(failures), made, what)
		if len(failures) > 0 {
			c.t.Errorf("calls failed during the %s:\n%s\n%s", what, strings.Join(failures, "\n"), c.loadBalancers())
		}
	}()
	during()
}

// loadBalancers returns what the load balancers said last.
func (c *installed) loadBalancers() string {
	var said strings.Builder
	for _, h := range c.hosts {
		ctx, cancel := context.WithTimeout(c.t.Context(), callLimit)
		out, _ := c.onHost(ctx, h, "journalctl --no-pager --lines 40 --output short-precise --unit keepalived --unit haproxy")
		cancel()
		fmt.Fprintf(&said, "%s:\n%s\n", h.name, out)
	}
	return said.String()
}

// process is a service's main process on a host, seen from the real machine.
type process struct {
	host    string
	program string
	service string
	pid     int
}

// services returns the main processes of all services on all hosts.
func (c *installed) services() []process {
	c.t.Helper()
	var found []process
	for _, h := range c.hosts {
		pids, err := c.hier.Pids(h.cgroup())
		if err != nil {
			c.t.Fatal(err)
		}
		for _, pid := range pids {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			args := strings.Split(string(line), "\x00")
			if strings.HasPrefix(args[0], "/usr/local/bin/xebec") && slices.Contains(args, "--config") {
				found = append(found, process{h.name, filepath.Base(args[0]), args[1], pid})
			}
		}
	}
	return found
}

// host returns the host of a name.
func (c *installed) host(name string) *host {
	i := slices.IndexFunc(c.hosts, func(h *host) bool { return h.name == name })
	return c.hosts[i]
}

// named returns the hosts whose names begin with a word.
func (c *installed) named(word string) []*host {
	return slices.DeleteFunc(slices.Clone(c.hosts), func(h *host) bool { return !strings.HasPrefix(h.name, word) })
}

// all does something to every host at once.
func (c *installed) all(what string, do func(*host) error) {
	c.t.Helper()
	defer c.took(what)()
	errs := make([]error, len(c.hosts))
	var all sync.WaitGroup
	for i, h := range c.hosts {
		all.Go(func() { errs[i] = do(h) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		c.t.Fatal(err)
	}
}

// changes returns the parts of a playbook's output that tell of changes.
func changes(out string) string {
	var found []string
	task := ""
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "TASK") {
			task = line
		}
		if strings.HasPrefix(line, "changed:") {
			found = append(found, task+line)
		}
	}
	return strings.Join(found, "")
}
