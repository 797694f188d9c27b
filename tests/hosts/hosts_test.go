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
	"slices"
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
	if ready := os.Getenv("XEBEC_HOSTS_BIN"); ready != "" {
		// For those who try a change of a role and not of a program.
		c.binaries = ready
	} else {
		c.build()
	}
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

// TestClusterOnBareHosts goes through the life of a cluster, each step on what the one before left.
func TestClusterOnBareHosts(t *testing.T) {
	needHosts(t)
	c := bareHosts(t, 3, 2)

	c.mustPlaybook("site.yml")
	t.Log(c.mustXebec(10*time.Second, "get", "nodes", "-o", "wide"))
	c.checkSecondRun()
	c.deploySamples()
	c.checkUpgrade()
	c.checkRestore()
	c.checkLossOfMaster()
	c.checkRemoveNode()
}

func (c *installed) checkSecondRun() {
	c.t.Helper()
	second := c.mustPlaybook("site.yml")
	lines := recap.FindAllStringSubmatch(second, -1)
	if len(lines) != 6 {
		c.t.Errorf("the recap of the second run has %d hosts, want 5 and the control host:\n%s", len(lines), lastLines([]byte(second), 40))
	}
	for _, line := range lines {
		if line[2] != "0" {
			c.t.Errorf("the second run changed %s things on %s:\n%s", line[2], line[1], changes(second))
		}
	}
}

// deploySamples runs a service and a pod that reaches it.
func (c *installed) deploySamples() {
	c.t.Helper()
	defer c.took("samples up and reached")()
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
		c.t.Errorf("30 calls of a service with three pods were answered by %v:\n%s", pods, answers)
	}
}

// checkUpgrade puts other programs on every host while a client goes on calling through the virtual IP.
func (c *installed) checkUpgrade() {
	c.t.Helper()
	next := c.nextPrograms()
	stop, stopped := make(chan struct{}), make(chan struct{})
	var calls int
	var failures []string
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			calls++
			if out, err := c.xebec(20*time.Second, "get", "pods"); err != nil {
				failures = append(failures, time.Now().Format("15:04:05.0 ")+strings.TrimSpace(out))
			}
		}
	}()
	// The client pod has no controller; where agents are replaced under running pods, they are to stay.
	out, err := c.playbook("upgrade.yml", "-e", "xebec_bin_dir="+next, "-e", "xebec_drain=false")
	close(stop)
	<-stopped
	if err != nil {
		c.t.Fatalf("upgrade: %v\n%s", err, lastLines([]byte(out), 60))
	}
	c.t.Logf("%d of %d calls failed during the upgrade", len(failures), calls)
	if len(failures) > 0 {
		c.t.Errorf("calls failed during the upgrade:\n%s", strings.Join(failures, "\n"))
	}
	c.checkPrograms(next)
	if pods := c.mustXebec(10*time.Second, "get", "pods"); strings.Count(pods, "Running   0 ") != 4 {
		c.t.Errorf("the four pods did not run on through the upgrade:\n%s", pods)
	}
}

// nextPrograms returns a directory with programs that do the same in other files.
func (c *installed) nextPrograms() string {
	c.t.Helper()
	next := filepath.Join(c.dir, "next")
	if err := os.Mkdir(next, 0o755); err != nil {
		c.t.Fatal(err)
	}
	for _, program := range []string{"xebec", "xebecd", "xebec-agent"} {
		content, err := os.ReadFile(filepath.Join(c.binaries, program))
		if err != nil {
			c.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(next, program), append(content, "next"...), 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
	return next
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

// checkPrograms checks that every service on every host runs the program from a directory.
func (c *installed) checkPrograms(dir string) {
	c.t.Helper()
	found := c.services()
	for _, p := range found {
		want, err := os.Stat(filepath.Join(dir, p.program))
		if err != nil {
			c.t.Fatal(err)
		}
		if have, err := os.Stat(fmt.Sprintf("/proc/%d/exe", p.pid)); err != nil || have.Size() != want.Size() {
			c.t.Errorf("%s runs %s %s from another file", p.host, p.program, p.service)
		}
	}
	if want := 3*8 + 2; len(found) != want {
		c.t.Errorf("%d services run on the hosts, want %d", len(found), want)
	}
}

// checkRemoveNode takes the node out that the client pod, which nobody would make again, is not on.
func (c *installed) checkRemoveNode() {
	c.t.Helper()
	node := "node-1"
	if strings.Contains(c.mustXebec(10*time.Second, "get", "pod", "client", "-o", "wide"), node) {
		node = "node-2"
	}
	c.mustPlaybook("remove-node.yml", "-e", "node="+node)
	if nodes := c.mustXebec(10*time.Second, "get", "nodes"); strings.Contains(nodes, node) {
		c.t.Errorf("%s was removed and is there:\n%s", node, nodes)
	}
	c.mustXebec(time.Minute, "wait", "--for=condition=Available", "deployment/echo", "--timeout=50s")
}

// checkRestore loses all of etcd after a backup and has the cluster back with its pods, which ran on.
func (c *installed) checkRestore() {
	c.t.Helper()
	c.mustPlaybook("backup.yml")
	backups, err := filepath.Glob(filepath.Join(c.state, "backups", "*.db"))
	if err != nil || len(backups) != 1 {
		c.t.Fatalf("backups: %v, %v", backups, err)
	}
	c.mustXebec(10*time.Second, "label", "deployment/echo", "after=backup")
	for _, h := range c.hosts {
		if strings.HasPrefix(h.name, "master") {
			if err := os.RemoveAll(filepath.Join(h.dir, "root/var/lib/xebec-etcd/data/member/snap")); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	c.mustPlaybook("restore.yml", "-e", "snapshot="+backups[0])
	if labels := c.mustXebec(10*time.Second, "get", "deployment/echo", "-o", "jsonpath={.metadata.labels}"); strings.Contains(labels, "backup") {
		c.t.Errorf("what came after the backup is there: %s", labels)
	}
	if pods := c.mustXebec(10*time.Second, "get", "pods"); strings.Count(pods, "Running") != 4 {
		c.t.Errorf("the four pods are not there after the restore:\n%s", pods)
	}
	c.mustXebec(30*time.Second, "exec", "client", "--", "/client", "get", "http://echo/name", "--count", "10")
}

// checkLossOfMaster cuts the power of the master with the virtual IP and writes on through it.
func (c *installed) checkLossOfMaster() {
	c.t.Helper()
	lost := c.holder()
	c.t.Logf("%s has the virtual IP and loses its power", lost.name)
	if err := lost.cutPower(); err != nil {
		c.t.Fatal(err)
	}
	since := time.Now()
	for attempt := 0; ; attempt++ {
		out, err := c.xebec(3*time.Second, "label", "--overwrite", "deployment/echo", fmt.Sprint("attempt=", attempt), "--request-timeout", "2s")
		if err == nil {
			break
		}
		if time.Since(since) > time.Minute {
			c.t.Fatalf("no write through the virtual IP within a minute of the loss of %s: %v\n%s", lost.name, err, out)
		}
	}
	c.t.Logf("the first write went through %.1f s after the loss of %s", time.Since(since).Seconds(), lost.name)
	if now := c.holder(); now == lost {
		c.t.Errorf("the virtual IP is still at %s", lost.name)
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
