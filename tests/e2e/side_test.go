package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/lab"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestLabCommands looks at a lab as its user does.
func TestLabCommands(t *testing.T) {
	s := sharedShip(t)
	p := s.inDefault()
	out := p.do(t, "lab", "status", "--name", s.Spec.Name)
	for _, want := range []string{"is running", "master-3", "node-2", "containerd", "scheduler", ":6443"} {
		if !strings.Contains(out, want) {
			t.Errorf("status lacks %q:\n%s", want, out)
		}
	}
	if out := p.do(t, "lab", "shell", "--name", s.Spec.Name, "node-1", "--", "hostname"); strings.TrimSpace(out) != "node-1" {
		t.Errorf("the host name of node-1 is %q", out)
	}
	if out := p.do(t, "lab", "logs", "--name", s.Spec.Name, "master-1/gateway", "--tail", "5"); strings.Count(out, "\n") != 5 {
		t.Errorf("five lines of a log are\n%s", out)
	}
	if o := p.try(t, "lab", "kill", "--name", s.Spec.Name, "master-9"); o.code != 1 || !strings.Contains(o.stderr, "master-3") {
		t.Errorf("killing what does not exist: %s", o)
	}
	if o := p.try(t, "lab", "status", "--name", "nonesuch"); o.code != 1 || !strings.Contains(o.stderr, "lab up") {
		t.Errorf("a lab that does not exist: %s", o)
	}
	// The lab's addresses are unknown to this machine, and nothing of it listens beyond loopback.
	for _, endpoint := range s.Spec.LoadEndpoints() {
		if !endpoint.Addr().IsLoopback() {
			t.Errorf("the lab listens at %s", endpoint)
		}
	}
}

// Two labs run side by side with the same address ranges, neither meets the other, and each goes
// without a trace: one in order, the other after its supervisor was killed.
func TestTwoLabs(t *testing.T) {
	needRoot(t)
	ownLabs.join(t)
	before := interfaces(t)
	first, second := ownShip(t, lab.Options{Masters: 1, Nodes: 1}), ownShip(t, lab.Options{Masters: 1, Nodes: 1})
	had := make(map[*ship]objects)
	for _, s := range []*ship{first, second} {
		// In the namespace default, so that the pods run when the lab goes down.
		p := s.inDefault()
		s.loadImages(t)
		p.apply(t, strings.Replace(sample(t, "echo.yaml"), "replicas: 3", "replicas: 1", 1)+"\n---\n"+sample(t, "client.yaml"))
		pods := await(t, s.client, "default", "pods ready", waitLimit, func(pods []*corev1.Pod) bool {
			return allReady(pods, "echo", 1) && allReady(pods, "client", 1)
		})
		name := labelled(pods, "echo")[0].GetMetadata().GetName()
		eventually(t, "the service answers", waitLimit, func() error { return p.reaches(t, "http://echo/name", name) })
		had[s] = s.objects(t)
	}
	if now := interfaces(t); !slices.Equal(now, before) {
		t.Errorf("this machine's own network had %v and has %v", before, now)
	}

	if err := lab.Down(t.Context(), lab.DownOptions{Name: first.Spec.Name, Purge: true}); err != nil {
		t.Fatal(err)
	}
	// The other one does not notice. That it is busy with the end of the first is no reason to give up
	// soon.
	second.inDefault().do(t, "exec", "client", "--", "/client", "get", "http://echo/name", "--timeout", "30s")
	status, err := second.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(status.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	o := run(t, second.inDefault().command(t.Context(), "lab", "down", "--purge", "--name", second.Spec.Name))
	if o.code != 0 {
		t.Fatal(o)
	}
	for s, objects := range had {
		// The kernel frees some things a moment after the last that refers to them.
		eventually(t, "nothing is left of lab "+s.Spec.Name, waitLimit, func() error { return s.remains(objects) })
	}
}

// objects are the eBPF objects that a lab has in the kernel, which do not bear its name.
type objects struct {
	links    map[link.ID]bool
	programs map[ebpf.ProgramID]bool
	maps     map[ebpf.MapID]bool
}

// objects finds them by the cgroups that they are attached to.
func (s *ship) objects(t *testing.T) objects {
	t.Helper()
	cgroups := make(map[uint64]bool)
	for _, h := range s.Spec.Hosts() {
		for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			var stat unix.Stat_t
			if err := unix.Stat(filepath.Join(root, h.Cgroup), &stat); err == nil {
				cgroups[stat.Ino] = true
			}
		}
	}
	found := objects{map[link.ID]bool{}, map[ebpf.ProgramID]bool{}, map[ebpf.MapID]bool{}}
	links := new(link.Iterator)
	defer links.Close()
	for links.Next() {
		info, err := links.Link.Info()
		if err != nil || info.Cgroup() == nil || !cgroups[info.Cgroup().CgroupId] {
			continue
		}
		found.links[links.ID], found.programs[info.Program] = true, true
	}
	for id := range found.programs {
		program, err := ebpf.NewProgramFromID(id)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := program.Info(); err == nil {
			ids, _ := info.MapIDs()
			for _, id := range ids {
				found.maps[id] = true
			}
		}
		program.Close()
	}
	if len(found.links) == 0 || len(found.maps) == 0 {
		t.Errorf("lab %s has %d eBPF links and %d maps", s.Spec.Name, len(found.links), len(found.maps))
	}
	return found
}

// remaining names those that still exist.
func (o objects) remaining() []string {
	var left []string
	for id := range o.links {
		if l, err := link.NewFromID(id); err == nil {
			l.Close()
			left = append(left, fmt.Sprintf("eBPF link %d", id))
		}
	}
	for id := range o.programs {
		if p, err := ebpf.NewProgramFromID(id); err == nil {
			p.Close()
			left = append(left, fmt.Sprintf("eBPF program %d", id))
		}
	}
	for id := range o.maps {
		if m, err := ebpf.NewMapFromID(id); err == nil {
			m.Close()
			left = append(left, fmt.Sprintf("eBPF map %d", id))
		}
	}
	return left
}

// interfaces are those of this machine's own network.
func interfaces(t *testing.T) []string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names
}

// remains reports what is left of the lab.
func (s *ship) remains(had objects) error {
	left := had.remaining()
	name := "xb-" + s.Spec.Name
	processes, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, file := range processes {
		if data, err := os.ReadFile(file); err == nil && strings.Contains(string(data), "/"+name) {
			left = append(left, "process "+filepath.Base(filepath.Dir(file)))
		}
	}
	for _, pattern := range []string{
		"/run/netns/" + name + "-*", "/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name, "/run/xebec/labs/" + s.Spec.Name,
		s.Spec.StateDir, s.config,
	} {
		files, _ := filepath.Glob(pattern)
		left = append(left, files...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, s.Spec.StateDir) || strings.Contains(line, name) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("left: %s", strings.Join(left, "\n"))
	}
	return nil
}
