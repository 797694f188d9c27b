package hosts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/tests/guests"
)

// stepsVariable names the steps to run, as a regular expression, for those who work on one of them:
// the first always runs.
const stepsVariable = "XEBEC_HOSTS_STEPS"

// step is a part of a cluster's life.
type step struct {
	name string
	do   func()
}

// through goes through the steps, each on what the one before left, or through those that were
// picked.
func (c *installed) through(steps ...step) {
	c.t.Helper()
	only := regexp.MustCompile(os.Getenv(stepsVariable))
	for i, step := range steps {
		if i > 0 && !only.MatchString(step.name) {
			continue
		}
		began := time.Now()
		step.do()
		c.t.Logf("=== %s took %.0f s", step.name, time.Since(began).Seconds())
	}
}

func TestClusterOnBareHosts(t *testing.T) {
	needHosts(t)
	// A playbook works on one host after the other and waits for most of its time: beside the other
	// cluster, which is up for a quarter of the time, this one takes hardly longer.
	t.Parallel()
	c := bareHosts(t, group{"masters", "master", 3, 11}, group{"nodes", "node", 2, 101})
	c.through(
		step{"install", c.checkInstall},
		step{"second run", c.checkSecondRun},
		step{"access", c.checkAccess},
		step{"tokens", c.checkTokens},
		step{"upgrade", c.checkUpgrade},
		step{"certificates", c.checkCertificates},
		step{"restore", c.checkRestore},
		step{"lost master", c.checkLostMaster},
		step{"nodes", c.checkNodes},
		step{"reboot", c.checkReboot},
		step{"reset", c.checkReset},
	)
}

// TestEveryRoleOnHostsOfItsOwn has etcd and the load balancer beside the masters instead of on
// them, and in the end an etcd that is not the roles' at all.
func TestEveryRoleOnHostsOfItsOwn(t *testing.T) {
	needHosts(t)
	t.Parallel()
	c := bareHosts(t, group{"etcd", "etcd", 1, 31}, group{"load_balancers", "balancer", 1, 21}, group{"masters", "master", 2, 11}, group{"nodes", "node", 1, 101})
	c.through(
		step{"install", c.checkInstall},
		step{"second run", c.checkSecondRun},
		step{"roles", c.checkRoles},
		step{"external etcd", func() {
			c.checkReset()
			c.checkExternalEtcd()
		}},
	)
}

// checkRoles checks that every role is where it should be and nowhere else, and that one master
// does while the other is away. Then etcd's authorities are replaced where it is.
func (c *installed) checkRoles() {
	c.t.Helper()
	for _, p := range c.services() {
		if (p.service == "etcd") != strings.HasPrefix(p.host, "etcd") {
			c.t.Errorf("%s runs on %s", p.service, p.host)
		}
	}
	if h := c.holder(); h.name != "balancer-1" {
		c.t.Errorf("the virtual IP is at %s", h.name)
	}
	c.checkHAProxyEnds()
	if err := c.host("master-1").cutPower(); err != nil {
		c.t.Fatal(err)
	}
	c.until(2*time.Minute, "calls go to the other master", func() bool {
		_, err := c.xebec(callLimit, "label", "--overwrite", "deployment/echo", "lost=master-1", "--request-timeout", "4s")
		return err == nil
	})
	if err := c.host("master-1").boot(); err != nil {
		c.t.Fatal(err)
	}
	c.mustPlaybook("rotate-ca.yml")
	if shown := c.certificate("10.91.7.31:2379"); !strings.Contains(shown, "ca 2") {
		c.t.Errorf("etcd shows %s", shown)
	}
}

// checkHAProxyEnds stops and starts HAProxy on the only load balancer: the virtual IP goes and
// comes with it. When it is killed, its unit starts it again.
func (c *installed) checkHAProxyEnds() {
	c.t.Helper()
	balancer := c.host("balancer-1")
	on := func(command string) {
		if out, err := c.onHost(c.t.Context(), balancer, command); err != nil {
			c.t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	on("systemctl stop haproxy")
	c.until(time.Minute, "the host without HAProxy gives the virtual IP back", func() bool { return !balancer.holds(virtualIP) })
	on("systemctl start haproxy")
	c.until(time.Minute, "the host with HAProxy takes the virtual IP", func() bool { return balancer.holds(virtualIP) })
	on("systemctl kill --signal SIGKILL haproxy")
	c.until(time.Minute, "calls are answered after the end of HAProxy", func() bool {
		_, err := c.xebec(callLimit, "get", "nodes", "--request-timeout", "4s")
		return err == nil && balancer.holds(virtualIP)
	})
}

// checkInstall installs the cluster and runs a service and a pod that reaches it.
func (c *installed) checkInstall() {
	c.t.Helper()
	c.mustPlaybook("site.yml")
	c.t.Log(c.mustXebec(callLimit, "get", "nodes", "-o", "wide"))
	for _, image := range []string{"echo", "client"} {
		c.mustXebec(time.Minute, "image", "load", filepath.Join(c.binaries, "images", image+".tar"))
	}
	c.mustXebec(callLimit, "apply", "-f", filepath.Join(c.repository, "samples"))
	c.mustXebec(2*time.Minute, "wait", "--for=condition=Available", "deployment/echo", "--timeout=110s")
	c.mustXebec(2*time.Minute, "wait", "--for=condition=Ready", "pod/client", "--timeout=110s")
	c.awaitReach(3)
}

// awaitReach waits until the service is answered by so many pods: a node learns of a pod that
// became ready a moment after the cluster did.
func (c *installed) awaitReach(want int) {
	c.t.Helper()
	pods := map[string]bool{}
	c.until(time.Minute, fmt.Sprint("the service is answered by ", want, " pods"), func() bool {
		answers, err := c.get("--count", "30", "--interval", "20ms")
		for _, pod := range regexp.MustCompile(`echo-\w+-\w+`).FindAllString(answers, -1) {
			pods[pod] = true
		}
		return err == nil && len(pods) == want
	})
}

// get calls the service from the client pod and returns the answers.
func (c *installed) get(more ...string) (string, error) {
	return c.xebec(time.Minute, append([]string{"exec", "client", "--", "/client", "get", "http://echo/name"}, more...)...)
}

// reach calls the service from the client pod, where it has been answered all along.
func (c *installed) reach() {
	c.t.Helper()
	if out, err := c.get("--count", "10"); err != nil {
		c.t.Fatalf("the service is not answered: %v\n%s", err, out)
	}
}

// running returns the containers of all pods, each with the time of its start.
func (c *installed) running() []string {
	c.t.Helper()
	out := c.mustXebec(callLimit, "get", "pods", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state.running.startedAt}{"\n"}{end}`)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(lines)
	return lines
}

// sameContainers checks that something left the pods alone.
func (c *installed) sameContainers(what string, before []string) {
	c.t.Helper()
	if now := c.running(); !slices.Equal(now, before) {
		c.t.Errorf("the pods did not run on through the %s:\n%s\nwere\n%s", what, strings.Join(now, "\n"), strings.Join(before, "\n"))
	}
}

func (c *installed) checkSecondRun() {
	c.t.Helper()
	names := make([]string, len(c.hosts))
	for i, h := range c.hosts {
		names[i] = h.name
	}
	c.checkUnchanged(names...)
}

// checkUnchanged runs site.yml for some hosts once more and checks that it changes nothing.
func (c *installed) checkUnchanged(names ...string) {
	c.t.Helper()
	again := c.mustPlaybook("site.yml", "--limit", "localhost,"+strings.Join(names, ","))
	lines := recap.FindAllStringSubmatch(again, -1)
	if len(lines) != len(names)+1 {
		c.t.Errorf("the recap of another run has %d hosts, want %d and the control host:\n%s", len(lines), len(names), guests.LastLines([]byte(again), 40))
	}
	for _, line := range lines {
		if line[2] != "0" {
			c.t.Errorf("another run changed %s things on %s:\n%s", line[2], line[1], changes(again))
		}
	}
}

// checkAccess restricts from where the cluster takes calls: through the load balancer too it is the
// client that counts.
func (c *installed) checkAccess() {
	c.t.Helper()
	fromNode := func() (string, error) {
		ctx, cancel := context.WithTimeout(c.t.Context(), callLimit)
		defer cancel()
		return c.controlIn(ctx, c.host("node-1").netns, []string{"XEBECCONFIG=" + filepath.Join(c.state, "config")},
			filepath.Join(c.binaries, "xebec"), "get", "nodes", "--request-timeout", "5s")
	}
	// The gateways learn of a change a moment after it was made, each for itself: calls in a row must
	// show that all have.
	becomes := func(what string, served bool) {
		c.t.Helper()
		inARow := 0
		c.until(time.Minute, what, func() bool {
			if _, err := fromNode(); (err == nil) == served {
				inARow++
			} else {
				inARow = 0
			}
			return inARow == 2*len(c.named("master"))
		})
	}
	if out, err := fromNode(); err != nil {
		c.t.Errorf("from a node, where nothing is restricted: %v\n%s", err, out)
	}
	c.mustXebec(callLimit, "cluster", "access", "set", "--public-cidrs", "10.91.7.1/32")
	becomes("a node, which is not in the list, is not served", false)
	c.mustXebec(callLimit, "get", "nodes")
	c.mustXebec(callLimit, "cluster", "access", "reset")
	becomes("a node is served where nothing is restricted again", true)
}

// broken makes a service of a host fail to start.
const broken = `[Service]
ExecStartPre=/bin/sh -c "echo the wheel came off this host; exit 1"`

// checkUpgrade puts other programs, and a setting, on every host while a client goes on calling.
// One host fails at first; when it is repaired, the run continues where it was. In the end the
// programs of before are put back on a master and on a node, which is drained for that.
func (c *installed) checkUpgrade() {
	c.t.Helper()
	next, before, holder := c.nextPrograms(), c.running(), c.holder()
	upgrade := func(dir string, more ...string) (string, error) {
		return c.playbook("upgrade.yml", append([]string{"-e", "xebec_bin_dir=" + dir}, more...)...)
	}
	must := func(dir string, more ...string) {
		c.t.Helper()
		if out, err := upgrade(dir, more...); err != nil {
			c.t.Fatalf("upgrade: %v\n%s", err, guests.LastLines([]byte(out), 60))
		}
	}
	c.calls("upgrade", func() {
		dropIn := "/etc/systemd/system/xebec-scheduler.service.d"
		c.ssh("master-2", fmt.Sprintf("mkdir %s; echo '%s' >%[1]s/broken.conf; systemctl daemon-reload", dropIn, broken))
		out, err := upgrade(next, "-e", "xebec_drain=false")
		if err == nil || !strings.Contains(out, "the wheel came off this host") {
			c.t.Errorf("the run does not end with what is wrong on master-2: %v\n%s", err, guests.LastLines([]byte(out), 60))
		}
		for _, p := range c.services() {
			if runs := c.runs(p, next); runs && p.host != "master-1" && p.host != "master-2" {
				c.t.Errorf("%s has the new %s although a host before it failed", p.host, p.service)
			}
		}
		c.ssh("master-2", fmt.Sprintf("rm -r %s; systemctl daemon-reload", dropIn))
		// HAProxy gets another setting, which it takes up without letting go of the virtual IP.
		must(next, "-e", "xebec_drain=false", "-e", "xebec_vip_connections=5000")
	})
	if now := c.holder(); now != holder {
		c.t.Errorf("the virtual IP went from %s to %s", holder.name, now.name)
	}
	c.checkPrograms(next, func(process) bool { return true })
	// Where agents are replaced under running pods, those stay.
	c.sameContainers("upgrade", before)

	node := c.otherNode()
	drained := c.podsOn(node)
	c.calls("way back", func() { must(c.binaries, "--limit", "localhost,master-1,"+node) })
	back := func(p process) bool { return p.host == "master-1" || p.host == node }
	c.checkPrograms(c.binaries, back)
	c.checkPrograms(next, func(p process) bool { return !back(p) })
	if nodes := c.mustXebec(callLimit, "get", "nodes"); strings.Contains(nodes, "SchedulingDisabled") {
		c.t.Errorf("a node that was drained gets no pods:\n%s", nodes)
	}
	if pods := c.podsOn(node); len(drained) == 0 || slices.ContainsFunc(pods, func(pod string) bool { return slices.Contains(drained, pod) }) {
		c.t.Errorf("%s was not drained: it has %v, and had %v before", node, pods, drained)
	}
	c.mustXebec(2*time.Minute, "wait", "--for=condition=Available", "deployment/echo", "--timeout=110s")
}

// podsOn returns the names of the pods on a node.
func (c *installed) podsOn(node string) []string {
	c.t.Helper()
	return strings.Fields(c.mustXebec(callLimit, "get", "pods", "--field-selector", "spec.nodeName="+node, "-o", `jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}`))
}

// otherNode returns the node that the client pod, which no controller would create again, is not
// on.
func (c *installed) otherNode() string {
	c.t.Helper()
	if strings.Contains(c.mustXebec(callLimit, "get", "pod", "client", "-o", "wide"), "node-1") {
		return "node-2"
	}
	return "node-1"
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

// runs tells whether a process runs its program from a directory.
func (c *installed) runs(p process, dir string) bool {
	c.t.Helper()
	want, err := os.Stat(filepath.Join(dir, p.program))
	if err != nil {
		c.t.Fatal(err)
	}
	have, err := os.Stat(fmt.Sprintf("/proc/%d/exe", p.pid))
	return err == nil && have.Size() == want.Size()
}

// checkPrograms checks that all services are there, and that some run their programs from a
// directory.
func (c *installed) checkPrograms(dir string, some func(process) bool) {
	c.t.Helper()
	found := c.services()
	for _, p := range found {
		if some(p) && !c.runs(p, dir) {
			c.t.Errorf("%s runs %s %s from another file", p.host, p.program, p.service)
		}
	}
	units, err := filepath.Glob(filepath.Join(c.host("master-1").dir, "root/etc/systemd/system/xebec-*.service"))
	if err != nil {
		c.t.Fatal(err)
	}
	if want := 3*len(units) + 2; len(found) != want {
		c.t.Errorf("%d services run on the hosts, want %d", len(found), want)
	}
}

// checkCertificates replaces all certificates, and then the authorities as well, under a client
// that goes on calling.
func (c *installed) checkCertificates() {
	c.t.Helper()
	before := c.running()
	endpoints := []string{"10.91.7.11:6443", "10.91.7.12:7001", "10.91.7.13:2379", "10.91.7.13:2380", "10.91.7.101:10250"}
	seen := map[string]string{}
	for _, endpoint := range endpoints {
		seen[endpoint] = c.certificate(endpoint)
	}
	renewed := func(what, issuer string) {
		c.t.Helper()
		for _, endpoint := range endpoints {
			now := c.certificate(endpoint)
			if now == seen[endpoint] || !strings.Contains(now, issuer) {
				c.t.Errorf("after the %s %s shows %s, before it was %s", what, endpoint, now, seen[endpoint])
			}
			seen[endpoint] = now
		}
	}
	lived := c.services()
	c.calls("rotation of certificates", func() { c.mustPlaybook("rotate-certificates.yml") })
	renewed("rotation of certificates", "twin")
	if now := c.services(); !slices.Equal(now, lived) {
		c.t.Errorf("services were restarted for new certificates:\n%v\nwere\n%v", now, lived)
	}
	c.calls("rotation of authorities", func() { c.mustPlaybook("rotate-ca.yml") })
	renewed("rotation of authorities", "ca 2")
	notEtcd := func(all []process) []process {
		return slices.DeleteFunc(all, func(p process) bool { return p.service == "etcd" })
	}
	if now := c.services(); !slices.Equal(notEtcd(now), notEtcd(lived)) {
		c.t.Errorf("services were restarted for new authorities:\n%v\nwere\n%v", now, lived)
	}
	c.sameContainers("rotations", before)
}

// certificate returns serial number and issuer of what a server shows.
func (c *installed) certificate(address string) string {
	c.t.Helper()
	shown, err := c.handshake(address)
	if err != nil {
		c.t.Fatal(err)
	}
	return shown
}

// handshake returns serial number and issuer of what a server shows, once it serves.
func (c *installed) handshake(address string) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), callLimit)
	defer cancel()
	conn, err := c.wire.Dial(ctx, netip.MustParseAddrPort(address))
	if err != nil {
		return "", fmt.Errorf("connect to %s: %w", address, err)
	}
	defer conn.Close()
	// Whose it is gets looked at by the caller.
	session := tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, InsecureSkipVerify: true})
	if err := session.HandshakeContext(ctx); err != nil {
		return "", fmt.Errorf("handshake with %s: %w", address, err)
	}
	leaf := session.ConnectionState().PeerCertificates[0]
	return fmt.Sprintf("%x of %s", leaf.SerialNumber, leaf.Issuer.CommonName), nil
}

// checkRestore loses all of etcd after a backup and has the cluster back with its pods, which ran
// on. A second restore of the same backup finds clients that know later revisions than the first
// one's.
func (c *installed) checkRestore() {
	c.t.Helper()
	c.mustPlaybook("backup.yml")
	backups, err := filepath.Glob(filepath.Join(c.state, "backups", "*.db"))
	if err != nil || len(backups) != 1 {
		c.t.Fatalf("backups: %v, %v", backups, err)
	}
	before := c.running()
	for range 2 {
		c.mustXebec(callLimit, "label", "deployment/echo", "after=backup")
		for _, h := range c.hosts {
			if strings.HasPrefix(h.name, "master") {
				if err := os.RemoveAll(filepath.Join(h.dir, "root/var/lib/xebec-etcd/data/member/snap")); err != nil {
					c.t.Fatal(err)
				}
			}
		}
		c.mustPlaybook("restore.yml", "-e", "snapshot="+backups[0])
		if labels := c.mustXebec(callLimit, "get", "deployment/echo", "-o", "jsonpath={.metadata.labels}"); strings.Contains(labels, "backup") {
			c.t.Errorf("what came after the backup is there: %s", labels)
		}
		c.sameContainers("restore", before)
		c.reach()
	}
	c.checkTokens()
	// What agents watch is the restored cluster: it makes and ends pods.
	c.mustXebec(callLimit, "scale", "deployment/echo", "--replicas=4")
	c.mustXebec(2*time.Minute, "rollout", "status", "deployment/echo", "--timeout=110s")
	c.mustXebec(callLimit, "scale", "deployment/echo", "--replicas=3")
	c.until(2*time.Minute, "the fourth pod is gone", func() bool { return len(c.running()) == len(before) })
}

// until waits for a condition, which it looks at ever so often.
func (c *installed) until(limit time.Duration, what string, condition func() bool) {
	c.t.Helper()
	ticker := time.NewTicker(300 * time.Millisecond)
	defer ticker.Stop()
	for end := time.After(limit); !condition(); {
		select {
		case <-ticker.C:
		case <-end:
			out, err := c.xebec(callLimit, "get", "pods,nodes", "-o", "wide")
			status, _ := c.xebec(callLimit, "cluster", "status")
			c.t.Fatalf("not within %s: %s\n%s\n%v\n%s", limit, what, out, err, status)
		}
	}
}

// checkLostMaster cuts the power of the master with the virtual IP and writes on through it; then
// an empty host takes the lost one's place.
func (c *installed) checkLostMaster() {
	c.t.Helper()
	lost := c.holder()
	c.t.Logf("%s has the virtual IP and loses its power", lost.name)
	if err := lost.cutPower(); err != nil {
		c.t.Fatal(err)
	}
	since := time.Now()
	attempt := 0
	c.until(2*time.Minute, "a write goes through the virtual IP after the loss of "+lost.name, func() bool {
		attempt++
		_, err := c.xebec(callLimit, "label", "--overwrite", "deployment/echo", fmt.Sprint("attempt=", attempt), "--request-timeout", "4s")
		return err == nil
	})
	c.t.Logf("the first write went through %.1f s after the loss of %s", time.Since(since).Seconds(), lost.name)
	if now := c.holder(); now == lost {
		c.t.Errorf("the virtual IP is still at %s", lost.name)
	}
	c.reach()

	if err := lost.reinstall(); err != nil {
		c.t.Fatal(err)
	}
	c.calls("replacement of a master", func() { c.mustPlaybook("replace-master.yml", "-e", "master="+lost.name) })
	members := c.mustXebec(time.Minute, "etcd", "status", "--check")
	if strings.Count(members, "follower")+strings.Count(members, "leader") != 3 || !strings.Contains(members, lost.name) {
		c.t.Errorf("%s is no member with a vote:\n%s", lost.name, members)
	}
	c.checkUnchanged(lost.name)
	c.checkTokens()
}

// checkNodes takes a node out, and in again.
func (c *installed) checkNodes() {
	c.t.Helper()
	node := c.otherNode()
	c.mustPlaybook("remove-node.yml", "-e", "node="+node)
	if nodes := c.mustXebec(callLimit, "get", "nodes"); strings.Contains(nodes, node) {
		c.t.Errorf("%s was removed and is there:\n%s", node, nodes)
	}
	c.mustXebec(2*time.Minute, "wait", "--for=condition=Available", "deployment/echo", "--timeout=110s")
	c.mustPlaybook("add-node.yml", "-e", "node="+node)
	c.mustXebec(callLimit, "rollout", "restart", "deployment/echo")
	c.mustXebec(2*time.Minute, "rollout", "status", "deployment/echo", "--timeout=110s")
	if pods := c.mustXebec(callLimit, "get", "pods", "-o", "wide"); !strings.Contains(pods, node) {
		c.t.Errorf("%s is back and gets no pods:\n%s", node, pods)
	}
	c.reach()
}

// checkReboot cuts the power of every host at once and has the cluster back by itself, with its
// pods.
func (c *installed) checkReboot() {
	c.t.Helper()
	pods := func() string {
		return c.mustXebec(callLimit, "get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{"\n"}{end}`)
	}
	before, containers := pods(), c.running()
	c.all("power cut", (*host).cutPower)
	c.all("boot", (*host).boot)
	since := time.Now()
	c.until(4*time.Minute, "the cluster is healthy after the power is back", func() bool {
		_, err := c.xebec(callLimit, "cluster", "status", "--check", "--request-timeout", "5s")
		return err == nil
	})
	c.t.Logf("the cluster is healthy %.1f s after the hosts are", time.Since(since).Seconds())
	c.until(2*time.Minute, "every pod's container was started again", func() bool {
		now := c.running()
		same := slices.ContainsFunc(now, func(line string) bool { return slices.Contains(containers, line) || !strings.HasSuffix(line, "Z") })
		return !same && len(now) == len(containers)
	})
	c.mustXebec(2*time.Minute, "wait", "--for=condition=Available", "deployment/echo", "--timeout=110s")
	c.mustXebec(2*time.Minute, "wait", "--for=condition=Ready", "pod/client", "--timeout=110s")
	if now := pods(); now != before {
		c.t.Errorf("other pods are there after the power cut:\n%s\nwere\n%s", now, before)
	}
	c.awaitReach(3)
}

// checkReset takes the installation off the hosts.
func (c *installed) checkReset() {
	c.t.Helper()
	if out, err := c.playbook("reset.yml"); err == nil || !strings.Contains(out, "-e reset=twin") {
		c.t.Errorf("a reset without confirmation: %v\n%s", err, guests.LastLines([]byte(out), 20))
	}
	// A run that ended early leaves a note, which has no effect afterwards.
	if err := os.WriteFile(filepath.Join(c.state, "upgrading"), nil, 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.mustPlaybook("reset.yml", "-e", "reset=twin")
	if left := c.services(); len(left) > 0 {
		c.t.Errorf("services run on: %v", left)
	}
	kept, err := filepath.Glob(filepath.Join(c.state, "*"))
	if kept = slices.DeleteFunc(kept, func(path string) bool { return filepath.Base(path) == "backups" }); err != nil || len(kept) > 0 {
		c.t.Errorf("the control host keeps %v, %v", kept, err)
	}
	for _, h := range c.hosts {
		upper := filepath.Join(h.dir, "upper")
		err := filepath.WalkDir(upper, func(path string, entry os.DirEntry, err error) error {
			name := strings.TrimPrefix(path, upper)
			// A service's directory for temporary files is removed by systemd, a moment after the service
			// ended.
			theirs := strings.HasPrefix(name, "/var/log/journal") || strings.HasPrefix(name, "/var/tmp/systemd-private-")
			if err == nil && strings.Contains(filepath.Base(name), "xebec") && !theirs {
				c.t.Errorf("%s keeps %s", h.name, name)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		if err != nil {
			c.t.Error(err)
		}
		// The kernel takes a network namespace down in its own time, and a shim ends by itself once its
		// container is deleted.
		c.until(30*time.Second, "no interface of pods is left on "+h.name, func() bool {
			links, err := exec.Command("ip", "-n", h.netns, "-br", "link").Output()
			return err == nil && !strings.Contains(string(links), "xeb")
		})
		c.until(30*time.Second, "nothing of the installation runs on "+h.name, func() bool { return !c.runsAny(h) })
	}
	if out, err := c.playbook("reset.yml", "-e", "reset=twin"); err != nil {
		c.t.Errorf("a second reset: %v\n%s", err, guests.LastLines([]byte(out), 20))
	}
}

// runsAny tells whether a process of the installation, or of a pod, runs on a host.
func (c *installed) runsAny(h *host) bool {
	c.t.Helper()
	pids, err := c.hier.Pids(h.cgroup())
	if err != nil {
		c.t.Fatal(err)
	}
	return slices.ContainsFunc(pids, func(pid int) bool {
		program, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return slices.ContainsFunc([]string{"xebec", "containerd", "runc", "haproxy", "keepalived", "client", "echo"}, func(ours string) bool {
			return strings.HasPrefix(filepath.Base(program), ours)
		})
	})
}
