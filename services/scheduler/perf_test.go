package scheduler

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/scheduler/queue"
	"github.com/xebec-project/xebec/services/scheduler/schedulerperftest"
)

// perSecond is how many measured pods come with the churn and the deletions of a second: the loop
// has no clock, and most of Kubernetes' thresholds are of this size.
const perSecond = 150

// BenchmarkSchedulerPerf runs Kubernetes' scheduler_perf workloads on the loop with its queue,
// cache and plug-ins: from the informer's event of a pod to the event that it is bound. No API is
// called: bindings succeed at once, so the figures are those of deciding. Kubernetes measures with
// an API server and etcd, as the rows sched-* of the bench do. It prints pods per second, and per
// second of processor time for machines that do other work too.
func BenchmarkSchedulerPerf(b *testing.B) {
	for _, w := range schedulerperftest.Workloads {
		b.Run(w.Name, func(b *testing.B) {
			var used time.Duration
			for b.Loop() {
				b.StopTimer()
				l, deleted := perfLoop(b, w)
				measured := perfPods(w.Measured)
				churned := 0
				b.StartTimer()
				before := processorTime(b)
				for second := range slices.Chunk(measured, perSecond) {
					if w.Churn != nil {
						for range schedulerperftest.ChurnPerSecond {
							l.podChanged(nil, perfPod(w.Churn, churned))
							churned++
						}
					}
					for range min(len(deleted), schedulerperftest.DeletionsPerSecond) {
						l.podChanged(deleted[0], nil)
						deleted = deleted[1:]
					}
					scheduleAll(b, l, second)
				}
				used += processorTime(b) - before
			}
			pods := float64(w.Measured.Count * b.N)
			b.ReportMetric(pods/used.Seconds(), "pods/cpu-s")
			b.ReportMetric(pods/b.Elapsed().Seconds(), "pods/s")
		})
	}
}

// perfLoop returns a loop with the nodes and the pods that are there before the measurement, and
// those pods that are deleted during it.
func perfLoop(b *testing.B, w schedulerperftest.Workload) (l *loop, deleted []*corev1.Pod) {
	b.Helper()
	l = idleLoop(b)
	for _, n := range w.AllNodes() {
		l.nodeChanged(nil, n)
	}
	for _, p := range perfPods(w.Waiting) {
		l.podChanged(nil, p)
	}
	scheduleAll(b, l, perfPods(w.Initial))
	return l, scheduleAll(b, l, perfPods(w.Deleted))
}

func perfPods(of *schedulerperftest.Pods) []*corev1.Pod {
	if of == nil {
		return nil
	}
	pods := make([]*corev1.Pod, of.Count)
	for i := range pods {
		pods[i] = perfPod(of, i)
	}
	return pods
}

// perfPod returns a pod as the apiserver makes it.
func perfPod(of *schedulerperftest.Pods, i int) *corev1.Pod {
	p := of.Pod(i)
	p.Metadata.Uid, p.Metadata.Generation = p.GetMetadata().GetName(), 1
	p.Spec.SchedulerName, p.Status = DefaultName, &corev1.PodStatus{Phase: "Pending"}
	return p
}

// processorTime returns what the process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// scheduleAll reports pods to the loop until they are bound, and returns them as they are then. It
// plays the informer that shows bound pods, and victims of preemption gone. Pods of the churn may
// stay pending.
func scheduleAll(b *testing.B, l *loop, pods []*corev1.Pod) []*corev1.Pod {
	b.Helper()
	pending := map[string]*corev1.Pod{}
	for _, p := range pods {
		pending[p.GetMetadata().GetUid()] = p
		l.podChanged(nil, p)
	}
	bound := make([]*corev1.Pod, 0, len(pods))
	for len(pending) > 0 {
		assignments, _ := l.schedule()
		preemptions := l.takePreemptions()
		for _, task := range preemptions {
			for _, v := range task.Victims {
				l.podChanged(&corev1.Pod{Metadata: &metav1.ObjectMeta{Uid: v.UID}}, nil)
			}
		}
		for _, a := range assignments {
			p := pending[a.Pod.UID]
			if p == nil {
				continue // A pod of the churn: its assignment holds its place.
			}
			on := proto.CloneOf(p)
			on.Spec.NodeName = a.Node
			l.podChanged(p, on)
			delete(pending, a.Pod.UID)
			bound = append(bound, on)
		}
		if len(assignments)+len(preemptions) == 0 && len(pending) > 0 {
			at, ok := l.queue.Next()
			if !ok || time.Until(at) > queue.BackoffMax {
				b.Fatalf("%d pods fit on no node", len(pending))
			}
			<-time.After(time.Until(at)) // The pods that preempt are in back-off.
		}
	}
	return bound
}
