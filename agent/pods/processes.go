package pods

import (
	"fmt"
	"path/filepath"

	"github.com/xebec-project/xebec/agent/reaper"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// reaperCgroup is the cgroup of a pod's first process, below the pod's.
const reaperCgroup = "reaper"

// processes says where the process namespace is that the pod's containers share, if they do.
func (w *worker) processes() reaper.Config {
	return reaper.Config{
		Pin:    filepath.Join(w.dir.Sandbox(), "pid"),
		Join:   []string{w.sandbox.Net, w.sandbox.IPC, w.sandbox.UTS},
		Place:  func(pid int) error { return w.cfg.Runtime.Place(w.uid, reaperCgroup, pid) },
		Placed: func() ([]int, error) { return w.cfg.Runtime.Placed(w.uid, reaperCgroup) },
	}
}

// sharedProcesses returns the pin of the process namespace that the pod's containers share, and
// makes it when there is none; empty when each has its own.
func (w *worker) sharedProcesses(pod *corev1.Pod) (string, error) {
	if !pod.GetSpec().GetShareProcessNamespace() || pod.GetSpec().GetHostPid() {
		return "", nil
	}
	cfg := w.processes()
	made, err := reaper.Ensure(cfg)
	if err != nil {
		return "", fmt.Errorf("sharing the pod's processes: %w", err)
	}
	if made {
		w.log.Debug("Process namespace created")
	}
	return cfg.Pin, nil
}
