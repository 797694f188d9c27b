package hosts

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	virtualIP    = "10.91.7.10"
	playbookTime = 5 * time.Minute
)

// installed is a site with a cluster on it, as the person who installed it sees it.
type installed struct {
	*site
	repository string
	binaries   string
	state      string
	inventory  string
}

func needHosts(t *testing.T) {
	t.Helper()
	if os.Getenv("XEBEC_HOSTS") != "1" {
		t.Skip("takes minutes: run with XEBEC_HOSTS=1, as make test-hosts does")
	}
	if os.Geteuid() != 0 {
		missing(t, "root")
	}
	for _, program := range []string{"debootstrap", "systemd-nspawn", "ansible-playbook", "ssh-keygen", "nsenter", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			missing(t, program)
		}
	}
}

// bareHosts boots masters and nodes and writes an inventory of them.
func bareHosts(t *testing.T, masters, nodes int) *installed {
	t.Helper()
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	c := &installed{site: newSite(t), repository: repository}
	c.binaries, c.state, c.inventory = filepath.Join(c.dir, "bin"), filepath.Join(c.dir, "state"), filepath.Join(c.dir, "inventory.json")
	c.build()
	groups := map[string]map[string]any{"masters": {}, "nodes": {}}
	for i := range masters {
		h := c.add(fmt.Sprint("master-", i+1), netip.MustParseAddr(fmt.Sprint("10.91.7.", 11+i)))
		groups["masters"][h.name] = map[string]string{"ansible_host": h.addr.String()}
	}
	for i := range nodes {
		h := c.add(fmt.Sprint("node-", i+1), netip.MustParseAddr(fmt.Sprint("10.91.7.", 101+i)))
		groups["nodes"][h.name] = map[string]string{"ansible_host": h.addr.String()}
	}
	inventory, err := json.MarshalIndent(map[string]any{"all": map[string]any{
		"vars": map[string]any{
			"ansible_user": "root", "ansible_ssh_private_key_file": c.sshKey, "ansible_python_interpreter": "/usr/bin/python3",
			"xebec_cluster": "twin", "xebec_vip": virtualIP,
			"xebec_bin_dir": c.binaries, "xebec_state_dir": c.state,
			// The kernel, its clock included, is the real machine's.
			"xebec_time_sync": false, "xebec_start_timeout": 30, "common_sysctls": map[string]int{"net.ipv4.ip_forward": 1},
		},
		"children": map[string]any{"masters": map[string]any{"hosts": groups["masters"]}, "nodes": map[string]any{"hosts": groups["nodes"]}},
	}}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.inventory, inventory, 0o600); err != nil {
		t.Fatal(err)
	}
	c.bootAll()
	return c
}

func (c *installed) build() {
	c.t.Helper()
	// For those who try a change of a role and not of a program.
	if ready := os.Getenv("XEBEC_HOSTS_BIN"); ready != "" {
		c.binaries = ready
		return
	}
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

func (c *installed) bootAll() {
	c.t.Helper()
	defer c.took("boot")()
	errs := make([]error, len(c.hosts))
	var all sync.WaitGroup
	for i, h := range c.hosts {
		all.Go(func() { errs[i] = h.boot() })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// playbook runs one and returns its output and error.
func (c *installed) playbook(name string, more ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), playbookTime)
	defer cancel()
	defer c.took(name + " " + strings.Join(more, " "))()
	env := []string{
		"ANSIBLE_CONFIG=" + filepath.Join(c.repository, "ansible/ansible.cfg"), "ANSIBLE_HOST_KEY_CHECKING=false", "ANSIBLE_NOCOLOR=1",
		"ANSIBLE_LOCAL_TEMP=" + filepath.Join(c.dir, "ansible-tmp"), "ANSIBLE_HOME=" + filepath.Join(c.dir, "ansible-home"),
		"ANSIBLE_SSH_CONTROL_PATH_DIR=" + filepath.Join(c.dir, "cp"), "HOME=" + c.dir, "ANSIBLE_CALLBACKS_ENABLED=profile_tasks",
	}
	return c.control(ctx, env, "ansible-playbook", append([]string{"-i", c.inventory, filepath.Join(c.repository, "ansible", name)}, more...)...)
}

func (c *installed) mustPlaybook(name string, more ...string) string {
	c.t.Helper()
	out, err := c.playbook(name, more...)
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", name, err, lastLines([]byte(out), 80))
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

var recap = regexp.MustCompile(`(?m)^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)`)

// holder returns the host that has the virtual IP.
func (c *installed) holder() *host {
	c.t.Helper()
	for _, h := range c.hosts {
		out, err := exec.Command("ip", "-n", h.netns, "-o", "addr", "show", "to", virtualIP).Output()
		if err == nil && len(out) > 0 {
			return h
		}
	}
	c.t.Fatal("no host has the virtual IP")
	return nil
}

func TestClusterOnBareHosts(t *testing.T) {
	needHosts(t)
	c := bareHosts(t, 3, 2)

	c.mustPlaybook("site.yml")
	t.Log(c.mustXebec(10*time.Second, "get", "nodes", "-o", "wide"))

	second := c.mustPlaybook("site.yml")
	lines := recap.FindAllStringSubmatch(second, -1)
	if len(lines) != 6 {
		t.Errorf("the recap of the second run has %d hosts, want 5 and the control host:\n%s", len(lines), lastLines([]byte(second), 40))
	}
	for _, line := range lines {
		if line[2] != "0" {
			t.Errorf("the second run changed %s things on %s:\n%s", line[2], line[1], changes(second))
		}
	}

	deployed := c.took("samples up and reached")
	for _, image := range []string{"echo", "client"} {
		c.mustXebec(time.Minute, "image", "load", filepath.Join(c.binaries, "images", image+".tar"))
	}
	c.mustXebec(10*time.Second, "apply", "-f", filepath.Join(c.repository, "samples"))
	c.mustXebec(time.Minute, "wait", "--for=condition=Available", "deployment/echo", "--timeout=50s")
	c.mustXebec(time.Minute, "wait", "--for=condition=Ready", "pod/client", "--timeout=50s")
	answers := c.mustXebec(30*time.Second, "exec", "client", "--", "/client", "get", "http://echo/name", "--count", "30", "--interval", "20ms")
	pods := map[string]bool{}
	for _, pod := range regexp.MustCompile(`echo-\w+-\w+`).FindAllString(answers, -1) {
		pods[pod] = true
	}
	if len(pods) < 2 {
		t.Errorf("30 calls of a service with three pods were answered by %v:\n%s", pods, answers)
	}
	deployed()

	lost := c.holder()
	t.Logf("%s has the virtual IP and loses its power", lost.name)
	if err := lost.cutPower(); err != nil {
		t.Fatal(err)
	}
	since := time.Now()
	wrote := time.Duration(0)
	for attempt := 0; wrote == 0; attempt++ {
		out, err := c.xebec(3*time.Second, "label", "--overwrite", "deployment/echo", fmt.Sprint("attempt=", attempt), "--request-timeout", "2s")
		switch {
		case err == nil:
			wrote = time.Since(since)
		case time.Since(since) > time.Minute:
			t.Fatalf("no write through the virtual IP within a minute of the loss of %s: %v\n%s", lost.name, err, out)
		}
	}
	t.Logf("the first write went through %.1f s after the loss of %s", wrote.Seconds(), lost.name)
	if now := c.holder(); now == lost {
		t.Errorf("the virtual IP is still at %s", lost.name)
	}
	c.mustXebec(10*time.Second, "scale", "deployment/echo", "--replicas=4")
	c.mustXebec(time.Minute, "rollout", "status", "deployment/echo", "--timeout=50s")
	c.mustXebec(30*time.Second, "exec", "client", "--", "/client", "get", "http://echo/name", "--count", "10")
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
