package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/tests/guests"
)

const (
	// network is the first three bytes of the addresses that the machines have.
	network  = "192.168.56."
	nodePort = 30080
)

// outside is the service that another machine calls.
var outside = fmt.Sprintf(`apiVersion: v1
kind: Service
metadata:
  name: echo-outside
spec:
  type: NodePort
  selector:
    app: echo
  ports:
    - port: 80
      targetPort: http
      nodePort: %d
`, nodePort)

// lab is a copy of the repository's vagrant/ and ansible/ with a lab.yaml of the test's own.
type lab struct {
	t   *testing.T
	dir string // of the copy
	bin string
}

// A person brings a cluster up on virtual machines, calls a pod from another machine, runs `vagrant
// up` again, adds a node, and stops and starts all machines at once.
func TestVagrantUp(t *testing.T) {
	if os.Getenv("XEBEC_VM") != "1" {
		t.Skip("takes many minutes: run with XEBEC_VM=1, as make test-vm does")
	}
	dir := os.Getenv(worldDir)
	if dir == "" {
		if os.Geteuid() != 0 {
			t.Fatal("needs root")
		}
		enter(t)
		return
	}
	startLibvirt(t, dir)
	masters, nodes := count(t, "XEBEC_VM_MASTERS", 1), count(t, "XEBEC_VM_NODES", 1)
	l := newLab(t, dir)
	l.write(masters, nodes)

	t.Cleanup(func() {
		if t.Failed() {
			l.journals(masters, nodes)
		}
	})
	l.vagrant("box", "add", "--name", "xebec/debian", filepath.Join(dir, "debian.box"))
	l.vagrant("up")
	l.ready(nodes)
	t.Logf("node-1 runs Linux %s", strings.TrimSpace(l.vagrant("ssh", "node-1", "-c", "uname -r")))

	images, err := filepath.Glob(filepath.Join(l.bin, "images", "*.tar"))
	if err != nil || len(images) == 0 {
		t.Fatalf("no images in %s: %v", l.bin, err)
	}
	l.xebec("", append([]string{"image", "load"}, images...)...)
	l.xebec("", "apply", "-f", filepath.Join(l.dir, "samples"))
	l.xebec(outside, "apply", "-f", "-")
	l.xebec("", "wait", "--for=condition=Available", "deployment/echo", "--timeout=5m")
	l.xebec("", "wait", "--for=condition=Ready", "pod/client", "--timeout=5m")
	l.answered(nodes)

	t.Log("A second vagrant up")
	before := l.pods()
	l.vagrant("up")
	l.ready(nodes)
	if after := l.pods(); after != before {
		t.Errorf("pods were\n%s\nand are\n%s", before, after)
	}

	t.Log("A node more")
	nodes++
	l.write(masters, nodes)
	l.vagrant("up", fmt.Sprint("node-", nodes))
	l.ready(nodes)
	l.answered(nodes)
	// Machines that go down end their pods, and those that follow may come to the new node: it has no
	// registry to ask.
	l.xebec("", append([]string{"image", "load"}, images...)...)

	t.Log("All machines off and on")
	l.vagrant("halt")
	l.vagrant("up")
	l.ready(nodes)
	l.xebec("", "wait", "--for=condition=Available", "deployment/echo", "--timeout=5m")
	// A pod without a controller is not created again: it has ended with its node.
	t.Logf("the pod client has ended: %s", l.xebec("", "get", "pod", "client", "-o", "jsonpath={.status.phase} {.status.reason}"))
	l.xebec("", "delete", "pod", "client")
	l.xebec("", "apply", "-f", filepath.Join(l.dir, "samples"))
	l.xebec("", "wait", "--for=condition=Ready", "pod/client", "--timeout=5m")
	l.answered(nodes)
	l.vagrant("destroy", "--force")
}

func count(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func newLab(t *testing.T, dir string) *lab {
	t.Helper()
	l := &lab{t: t, dir: filepath.Join(dir, "repository"), bin: os.Getenv("XEBEC_VM_BIN")}
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if l.bin == "" {
		l.bin = filepath.Join(repository, "bin")
	}
	for _, part := range []string{"vagrant", "ansible", "samples"} {
		if err := os.CopyFS(filepath.Join(l.dir, part), os.DirFS(filepath.Join(repository, part))); err != nil {
			t.Fatal(err)
		}
	}
	home := filepath.Join(dir, ".vagrant.d")
	if err := os.MkdirAll(home, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "Vagrantfile"), []byte(emulate), 0o644); err != nil {
		t.Fatal(err)
	}
	return l
}

// write writes lab.yaml.
func (l *lab) write(masters, nodes int) {
	l.t.Helper()
	settings := fmt.Sprintf(`---
box: xebec/debian
box_version: ""
masters: {count: %d, cpus: 1, memory: 768}
nodes: {count: %d, cpus: 1, memory: 768}
network: %s0/24
cluster_cidr: 10.244.0.0/16
service_cidr: 10.96.0.0/16
access: {private: {open: true, allow: []}, public: {open: true, allow: []}}
programs: %s
`, masters, nodes, network, l.bin)
	if err := os.WriteFile(filepath.Join(l.dir, "vagrant", "lab.yaml"), []byte(settings), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// vagrant runs vagrant, shows what it prints as it comes and how long it took, and returns it.
func (l *lab) vagrant(args ...string) string {
	l.t.Helper()
	began := time.Now()
	cmd := exec.CommandContext(l.t.Context(), "vagrant", args...)
	cmd.Dir = filepath.Join(l.dir, "vagrant")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &shown{&out}, &shown{nil}
	if err := cmd.Run(); err != nil {
		l.t.Fatalf("vagrant %s: %v", strings.Join(args, " "), err)
	}
	l.t.Logf("vagrant %s took %v", strings.Join(args, " "), time.Since(began).Round(time.Second))
	return out.String()
}

// journals shows what the machines' services had to say last.
func (l *lab) journals(masters, nodes int) {
	var machines []string
	for i := range masters {
		machines = append(machines, fmt.Sprint("master-", i+1))
	}
	for i := range nodes {
		machines = append(machines, fmt.Sprint("node-", i+1))
	}
	for _, machine := range machines {
		// The test's own context has ended by now.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		cmd := exec.CommandContext(ctx, "vagrant", "ssh", machine, "-c", "uptime; ps -eLo state,comm | sort | uniq -c | sort -rn | head -n 30; "+
			"sudo journalctl --no-pager -o short-iso -n 40 -u keepalived -u haproxy; sudo journalctl --no-pager -o cat -n 60 -u 'xebec*'")
		cmd.Dir = filepath.Join(l.dir, "vagrant")
		out, err := cmd.CombinedOutput()
		cancel()
		l.t.Logf("%s (%v):\n%s", machine, err, out)
	}
}

// shown passes output on to the test's own, and keeps it where there is a place for it.
type shown struct{ kept *strings.Builder }

func (s *shown) Write(p []byte) (int, error) {
	if s.kept != nil {
		s.kept.Write(p)
	}
	return os.Stdout.Write(p)
}

// try runs the command line with the context that `vagrant up` has written.
func (l *lab) try(stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(l.t.Context(), filepath.Join(l.bin, "xebec"), append([]string{"--context", "vagrant"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("xebec %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (l *lab) xebec(stdin string, args ...string) string {
	l.t.Helper()
	out, err := l.try(stdin, args...)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// ready waits until there are just so many nodes and all are Ready.
func (l *lab) ready(nodes int) {
	l.t.Helper()
	guests.Await(l.t, 5*time.Minute, "nodes", func() error {
		out, err := l.try("", "get", "nodes")
		if err != nil {
			return err
		}
		if n := strings.Count(out, " Ready "); n != nodes {
			return fmt.Errorf("%d of %d nodes are ready:\n%s", n, nodes, out)
		}
		return nil
	})
}

// pods names the pods with the containers that they run.
func (l *lab) pods() string {
	l.t.Helper()
	return l.xebec("", "get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID}{"\n"}{end}`)
}

// answered calls a pod by the node port of every node from a master, and by the service's name from
// a pod.
func (l *lab) answered(nodes int) {
	l.t.Helper()
	for n := range nodes {
		call := fmt.Sprintf(`import urllib.request; print(urllib.request.urlopen("http://%s%d:%d/name", timeout=5).read().decode())`, network, 101+n, nodePort)
		guests.Await(l.t, time.Minute, "an answer", func() error {
			cmd := exec.CommandContext(l.t.Context(), "vagrant", "ssh", "master-1", "-c", "python3 -c '"+call+"'")
			cmd.Dir = filepath.Join(l.dir, "vagrant")
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), "echo-") {
				return fmt.Errorf("node port of node-%d: %w\n%s", n+1, err, out)
			}
			l.t.Logf("master-1 called node-%d's port: %s answered", n+1, strings.TrimSpace(string(out)))
			return nil
		})
	}
	guests.Await(l.t, time.Minute, "an answer", func() error {
		_, err := l.try("", "exec", "client", "--", "/client", "get", "http://echo/name")
		return err
	})
}
