package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/eviction"
	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// imageGCEvery is how often the disk of images is looked at.
const imageGCEvery = 5 * time.Minute

// imageCollector makes room for images.
func (a *Agent) imageCollector(rt *runtime.Runtime, set *pods.Set, recorded *events.Recorder) *images.Collector {
	return images.NewCollector(rt.Images(), images.GC{
		High: a.cfg.ImageGCHighThresholdPercent, Low: a.cfg.ImageGCLowThresholdPercent, MinAge: a.cfg.ImageMinimumGCAge,
		Every: imageGCEvery, InUse: set.Images,
		Failed: func(reason, message string) {
			recorded.EventAt(nodeReference(a.cfg.Node), "Warning", reason, "%s", message)
		},
		Log: a.log,
	})
}

// evictEvery is how often it is looked at what is left on the node.
const evictEvery = 2 * time.Second

// evictor ends pods before the node runs out of something.
func (a *Agent) evictor(
	m machine,
	rt *runtime.Runtime,
	set *pods.Set,
	r *registrar,
	collector *images.Collector,
	counted *eviction.Metrics,
) (*eviction.Evictor, error) {
	thresholds, err := a.cfg.thresholds()
	if err != nil {
		return nil, err
	}
	o := observer{machine: m, runtime: rt, set: set, stateDir: a.cfg.StateDir}
	return eviction.New(eviction.Config{
		Thresholds: thresholds, Every: evictEvery, Transition: a.cfg.Eviction.PressureTransitionPeriod,
		MaxGrace: a.cfg.Eviction.MaxPodGracePeriod,
		Observe:  o.observe, Pods: o.pods, Evict: set.Evict, Changed: r.setPressures, Metrics: counted, Log: a.log,
		Reclaim: func(ctx context.Context) error {
			freed, err := collector.FreeUnused(ctx)
			a.log.Info("Removed unused images", zap.Int64(metrics.KeyFreed, freed))
			return err
		},
	}), nil
}

// admit returns why a node under pressure does not take a pod: one without requests while memory is
// short, any while disk or process ids are, but for those that the node can't do without and those
// that tolerate it.
func (r *registrar) admit(pod *corev1.Pod) string {
	if pod.GetSpec().GetPriority() >= 2_000_000_000 {
		return ""
	}
	r.mu.Lock()
	pressures := r.pressures
	r.mu.Unlock()
	var under []string
	for _, p := range eviction.Pressures {
		if !pressures[p] ||
			p == eviction.MemoryPressure && (core.PodQOS(pod.GetSpec()) != "BestEffort" || tolerates(pod, core.TaintMemoryPressure)) {
			continue
		}
		under = append(under, string(p))
	}
	if len(under) == 0 {
		return ""
	}
	return fmt.Sprintf("The node had condition: %v.", under)
}

func tolerates(pod *corev1.Pod, key string) bool {
	return slices.ContainsFunc(pod.GetSpec().GetTolerations(), func(t *corev1.Toleration) bool {
		return core.Tolerates(t, &corev1.Taint{Key: key, Effect: core.TaintNoSchedule})
	})
}

// nodeReference is what events of the node are about.
func nodeReference(name string) *corev1.ObjectReference {
	return &corev1.ObjectReference{ApiVersion: "v1", Kind: "Node", Name: name, Uid: name}
}
