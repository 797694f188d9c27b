package runtime_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
)

// testPodBounds shows that a pod's containers share what the pod may use, and that what they use is
// reported.
func testPodBounds(n *node) {
	n.uid = uuid.NewString()
	bounds := runtime.Resources{MilliCPURequest: 500, MilliCPULimit: 1500, MemoryLimit: 32 << 20}
	if _, err := n.rt.PodLimits(n.uid); !errors.Is(err, fs.ErrNotExist) {
		n.Errorf("a pod that is not set up: %v", err)
	}
	for _, set := range []runtime.Resources{{MilliCPURequest: 500}, bounds, bounds} {
		if err := n.rt.SetUpPod(n.uid, set, 20); err != nil {
			n.Fatal(err)
		}
		set.MilliCPURequest = 0
		if got, err := n.rt.PodLimits(n.uid); err != nil || got != set {
			n.Errorf("limits are %+v, want %+v: %v", got, set, err)
		}
	}
	pod := filepath.Join(n.daemon.CgroupParent, "pod"+n.uid)
	want := func(v1, v2 string, values ...string) {
		n.Helper()
		for i, path := range []string{v1, v2} {
			tree, file := filepath.Split(path)
			if b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", tree, pod, file)); err == nil {
				if got := strings.TrimSpace(string(b)); got != values[i] {
					n.Errorf("%s is %s, want %s", file, got, values[i])
				}
				return
			}
		}
		n.Errorf("the pod's cgroup has neither %s nor %s", v1, v2)
	}
	want("cpu/cpu.shares", "cpu.weight", "512", "20")
	want("cpu/cpu.cfs_quota_us", "cpu.max", "150000", "150000 100000")
	want("memory/memory.limit_in_bytes", "memory.max", "33554432", "33554432")
	want("pids/pids.max", "pids.max", "20", "20")

	// The container itself has no bound: the pod's is what it meets.
	hog := n.config("hog", "sh", "-c", "x=$(dd if=/dev/zero bs=1M count=64 2>/dev/null | tr '\\0' a); echo $x | wc -c")
	s := n.start(hog)
	if e := n.wait(n.rt, s.ID); e.Code == 0 {
		n.Errorf("it used more than the pod may: %s", n.output(hog, ""))
	}
	if now, err := n.rt.Status(n.Context(), s.ID); err != nil || !n.rt.OOMKilled(now) {
		n.Errorf("killed for its memory is not seen: %v", err)
	}
	busy := n.start(n.config("busy", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 60"))
	containerdtest.Eventually(n.T, 60*time.Second, "the CPU time is counted", func() bool {
		u, err := n.rt.ContainerUsage(n.uid, busy.ID)
		return err == nil && u.CPU > 0 && u.Memory > 0 && u.Processes > 0
	})
	// The container's use before and after that of its pod: its shell may become another program
	// meanwhile, which uses less.
	var used [2]runtime.Usage
	var all runtime.Usage
	var errs [3]error
	used[0], errs[0] = n.rt.ContainerUsage(n.uid, busy.ID)
	all, errs[1] = n.rt.PodUsage(n.uid)
	used[1], errs[2] = n.rt.ContainerUsage(n.uid, busy.ID)
	if err := errors.Join(errs[:]...); err != nil || all.CPU < used[0].CPU || all.Memory < min(used[0].Memory, used[1].Memory)/2 {
		n.Errorf("the pod uses %+v, its container %+v: %v", all, used, err)
	}
	if err := n.rt.SetUpPod(n.uid, runtime.Resources{MemoryLimit: 4 << 10}, 20); !errors.Is(err, runtime.ErrInUse) {
		n.Errorf("a limit below what is in use: %v", err)
	}
	if err := n.rt.Update(n.Context(), busy.ID, runtime.Resources{MemoryLimit: 4 << 10}); !errors.Is(err, runtime.ErrInUse) {
		n.Errorf("a container's limit below what is in use: %v", err)
	}
	for _, id := range []string{s.ID, busy.ID} {
		if err := n.rt.Remove(n.Context(), id); err != nil {
			n.Error(err)
		}
	}
	if err := n.rt.RemovePod(n.Context(), n.uid); err != nil {
		n.Error(err)
	}
	if _, err := n.rt.PodUsage(n.uid); !errors.Is(err, fs.ErrNotExist) {
		n.Errorf("a pod that is gone: %v", err)
	}
}
