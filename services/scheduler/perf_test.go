package scheduler

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/scheduler/queue"
)

// perfNodes is the number of nodes of the workloads.
const perfNodes = 5000

// workload is one of Kubernetes' scheduler_perf workloads at 5,000 nodes.
type workload struct {
	name string
	// initial pods are scheduled before the measurement, as pods of these kinds.
	initial int
	before  func(*corev1.Pod)
	// measured pods are those that are timed.
	measured int
	pod      func(*corev1.Pod)
	// unschedulable pods wait meanwhile, gated pods have a scheduling gate.
	unschedulable, gated int
	// churn is a pod with high priority that comes before every so many measured ones.
	churn      func(*corev1.Pod)
	churnEvery int
}

// perfWorkloads are the pods of scheduler_perf's templates: 100m of cpu and 500Mi of memory.
var perfWorkloads = []workload{
	{name: "SchedulingBasic", initial: 1000, measured: 1000, pod: func(*corev1.Pod) {}},
	{name: "TopologySpreading", initial: 5000, measured: 2000, pod: spreading("blue", "DoNotSchedule", 5)},
	{name: "PreferredTopologySpreading", initial: 5000, measured: 2000, pod: spreading("blue", "ScheduleAnyway", 5)},
	{name: "SchedulingPodAffinity", initial: 5000, before: affine("topology.kubernetes.io/zone"), measured: 1000,
		pod: affine("topology.kubernetes.io/zone")},
	{name: "SchedulingPodAntiAffinity", initial: 1000, before: antiAffine("sched-0"), measured: 1000, pod: antiAffine("sched-1")},
	{name: "SchedulingNodeAffinity", initial: 5000, before: inZone1, measured: 1000, pod: inZone1},
	{name: "SchedulingWhileGated", gated: 10000, measured: 10000, pod: func(*corev1.Pod) {}},
	// As many low pods as fit: four on each node.
	{name: "PreemptionBasic", initial: 20000, before: requesting(900, 0), measured: 1000, pod: requesting(3000, 10)},
	// The pods that preempt come beside others, which are measured. Kubernetes creates five a second
	// and schedules at least 160 others meanwhile.
	{name: "PreemptionAsync", initial: 20000, before: requesting(900, 0), measured: 1000, pod: func(*corev1.Pod) {},
		churn: requesting(3000, 10), churnEvery: 32},
	{name: "Unschedulable", unschedulable: 200, measured: 1000, pod: func(*corev1.Pod) {}},
}

// requesting returns pods of scheduler_perf's templates with low and high priority.
func requesting(milliCPU int, priority int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Priority = &priority
		p.Spec.Containers[0].Resources.Requests["cpu"] = &metav1.Quantity{String_: fmt.Sprintf("%dm", milliCPU)}
	}
}

func spreading(color, whenUnsatisfiable string, skew int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Metadata.Labels = map[string]string{"color": color}
		p.Spec.TopologySpreadConstraints = []*corev1.TopologySpreadConstraint{{
			MaxSkew: skew, TopologyKey: core.LabelZone, WhenUnsatisfiable: whenUnsatisfiable,
			LabelSelector: &metav1.LabelSelector{MatchLabels: p.Metadata.Labels},
		}}
	}
}

func colored(color, topologyKey string) *corev1.PodAffinityTerm {
	return &corev1.PodAffinityTerm{
		TopologyKey: topologyKey, Namespaces: []string{"sched-0", "sched-1"},
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"color": color}},
	}
}

func affine(topologyKey string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Metadata.Namespace, p.Metadata.Labels = "sched-0", map[string]string{"color": "blue"}
		nearPods(colored("blue", topologyKey))(p)
	}
}

func antiAffine(namespace string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Metadata.Namespace, p.Metadata.Labels = namespace, map[string]string{"color": "green"}
		apartFrom(colored("green", core.LabelHostname))(p)
	}
}

func inZone1(p *corev1.Pod) {
	p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []*corev1.NodeSelectorTerm{{MatchExpressions: []*corev1.NodeSelectorRequirement{{
			Key: core.LabelZone, Operator: "In", Values: []string{"zone1", "zone2"},
		}}}},
	}}}
}

// perfPod returns a pod of a template of scheduler_perf.
func perfPod(name string, change func(*corev1.Pod)) *corev1.Pod {
	p := newPod(name, "100m", change)
	p.Spec.Containers[0].Resources.Requests["memory"] = &metav1.Quantity{String_: "500Mi"}
	return p
}

// BenchmarkSchedulerPerf runs Kubernetes' scheduler_perf workloads at 5,000 nodes on the loop with
// its queue, cache and plug-ins: from the informer's event of a pod to the event that it is bound.
// No API is called: bindings succeed at once, so the figures are those of deciding. Kubernetes
// measures with an API server and etcd. It prints pods per second, and per second of processor time
// for machines that do other work too.
func BenchmarkSchedulerPerf(b *testing.B) {
	for _, w := range perfWorkloads {
		b.Run(w.name, func(b *testing.B) {
			var used time.Duration
			for b.Loop() {
				b.StopTimer()
				l := perfLoop(b, w)
				var pods []*corev1.Pod
				for i := range w.measured {
					if w.churn != nil && i%w.churnEvery == 0 {
						pods = append(pods, perfPod(fmt.Sprint("churn-", i), w.churn))
					}
					pods = append(pods, perfPod(fmt.Sprint("measured-", i), w.pod))
				}
				b.StartTimer()
				before := processorTime(b)
				scheduleAll(b, l, pods)
				used += processorTime(b) - before
			}
			b.ReportMetric(float64(w.measured*b.N)/used.Seconds(), "pods/cpu-s")
			b.ReportMetric(float64(w.measured*b.N)/b.Elapsed().Seconds(), "pods/s")
		})
	}
}

// perfLoop returns a loop with the nodes and the pods that are there before the measurement.
func perfLoop(b *testing.B, w workload) *loop {
	b.Helper()
	l := idleLoop(b)
	for i := range perfNodes {
		name := fmt.Sprint("node-", i)
		n := newNode(name, "4", labelled(core.LabelHostname, name))
		n.Metadata.Labels[core.LabelZone] = fmt.Sprint("zone", i%3+1)
		n.Status.Allocatable["memory"] = &metav1.Quantity{String_: "32Gi"}
		l.nodeChanged(nil, n)
	}
	for i := range w.gated {
		l.podChanged(nil, perfPod(fmt.Sprint("gated-", i), func(p *corev1.Pod) {
			p.Spec.SchedulingGates = []*corev1.PodSchedulingGate{{Name: "test.k8s.io/hold"}}
		}))
	}
	for i := range w.unschedulable {
		l.podChanged(nil, newPod(fmt.Sprint("large-", i), "9"))
	}
	if w.before == nil {
		w.before = func(*corev1.Pod) {}
	}
	pods := make([]*corev1.Pod, w.initial)
	for i := range pods {
		pods[i] = perfPod(fmt.Sprint("initial-", i), w.before)
	}
	scheduleAll(b, l, pods)
	return l
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

// scheduleAll reports pods to the loop and plays the informer that shows them bound, and the
// victims of preemption gone.
func scheduleAll(b *testing.B, l *loop, pods []*corev1.Pod) {
	b.Helper()
	byUID := map[string]*corev1.Pod{}
	for _, p := range pods {
		byUID[p.GetMetadata().GetUid()] = p
		l.podChanged(nil, p)
	}
	for left := len(pods); left > 0; {
		assignments, _ := l.schedule()
		preemptions := l.takePreemptions()
		for _, task := range preemptions {
			for _, v := range task.Victims {
				l.podChanged(&corev1.Pod{Metadata: &metav1.ObjectMeta{Uid: v.UID}}, nil)
			}
		}
		for _, a := range assignments {
			bound := proto.CloneOf(byUID[a.Pod.UID])
			bound.Spec.NodeName = a.Node
			l.podChanged(byUID[a.Pod.UID], bound)
		}
		if left -= len(assignments); len(assignments)+len(preemptions) == 0 && left > 0 {
			at, ok := l.queue.Next()
			if !ok || time.Until(at) > queue.BackoffMax {
				b.Fatalf("%d pods fit on no node", left)
			}
			<-time.After(time.Until(at)) // The pods that preempt are in back-off.
		}
	}
}
