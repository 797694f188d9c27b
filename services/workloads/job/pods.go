package job

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/batch"
	"github.com/xebec-project/xebec/internal/kinds/core"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// noIndex is the completion index of a pod that has none.
const noIndex = -1

// isIndexed reports whether each pod of a Job has an index.
func isIndexed(j *batchv1.Job) bool { return j.GetSpec().GetCompletionMode() == batch.Indexed }

// isTracked reports whether a pod holds the finalizer: its Job has not counted it.
func isTracked(p *corev1.Pod) bool {
	return slices.Contains(p.GetMetadata().GetFinalizers(), batch.FinalizerTracking)
}

// indexOf is the completion index of a pod.
func indexOf(p *corev1.Pod) int {
	i, err := strconv.Atoi(p.GetMetadata().GetAnnotations()[batch.CompletionIndex])
	if err != nil || i < 0 {
		return noIndex
	}
	return i
}

// hasValidIndex reports whether a pod of an Indexed Job has an index below completions.
func hasValidIndex(j *batchv1.Job, p *corev1.Pod) bool {
	i := indexOf(p)
	return i != noIndex && i < int(j.GetSpec().GetCompletions())
}

func isDeleted(p *corev1.Pod) bool { return p.GetMetadata().GetDeletionTimestamp() != nil }

func isSucceeded(p *corev1.Pod) bool { return p.GetStatus().GetPhase() == core.PodSucceeded }

// isGone reports whether nothing runs of a pod that is being deleted: it never had a node, or its
// agent confirmed the end. Only finalizers hold it.
func isGone(p *corev1.Pod) bool {
	return isDeleted(p) && (p.GetSpec().GetNodeName() == "" || p.GetMetadata().GetDeletionGracePeriodSeconds() == 0)
}

// isTerminating reports whether a pod that is being deleted may still run.
func isTerminating(p *corev1.Pod) bool { return isDeleted(p) && !core.IsPodFinished(p) && !isGone(p) }

// replacesOnlyFailed reports whether a pod that is being deleted is replaced, and counts as failed,
// only when it has ended.
func replacesOnlyFailed(s *batchv1.JobSpec) bool {
	return s.GetPodReplacementPolicy() == batch.ReplaceFailed || s.GetPodFailurePolicy() != nil
}

// isFailed reports whether a pod counts as failed. One that is deleted may never reach a phase in
// which it has ended.
func isFailed(s *batchv1.JobSpec, p *corev1.Pod) bool {
	switch {
	case core.IsPodFinished(p):
		return p.GetStatus().GetPhase() == core.PodFailed
	case replacesOnlyFailed(s):
		return isGone(p)
	}
	return isDeleted(p)
}

// endOf is when a pod ended, as well as its status tells.
func endOf(p *corev1.Pod) time.Time {
	if t, ended := containersEnd(p); ended {
		return t
	}
	m := p.GetMetadata()
	if ready := core.PodCondition(p, core.PodReady); ready.GetStatus() == condition.False && ready.GetLastTransitionTime() != nil {
		return ready.GetLastTransitionTime().AsTime()
	}
	if isDeleted(p) {
		return m.GetDeletionTimestamp().AsTime().Add(-time.Duration(m.GetDeletionGracePeriodSeconds()) * time.Second)
	}
	return m.GetCreationTimestamp().AsTime()
}

// containersEnd is when the last container of a pod ended, sidecars included, if all have.
func containersEnd(p *corev1.Pod) (time.Time, bool) {
	statuses := slices.Clone(p.GetStatus().GetContainerStatuses())
	for _, c := range p.GetSpec().GetInitContainers() {
		if c.GetRestartPolicy() != core.RestartAlways {
			continue
		}
		for _, s := range p.GetStatus().GetInitContainerStatuses() {
			if s.GetName() == c.GetName() {
				statuses = append(statuses, s)
			}
		}
	}
	var last time.Time
	for _, s := range statuses {
		end := s.GetState().GetTerminated().GetFinishedAt()
		if end == nil {
			return time.Time{}, false
		}
		if t := end.AsTime(); t.After(last) {
			last = t
		}
	}
	return last, len(statuses) > 0
}

// newPod says which pod of a Job is created.
type newPod struct {
	// index is the pod's completion index, noIndex in a Job without indexes.
	index int
	// replaces is the failed pod of the index that counts against backoffLimitPerIndex, if there is
	// one.
	replaces *corev1.Pod
}

// build makes a pod from the template of its Job.
func (n newPod) build(j *batchv1.Job) *corev1.Pod {
	p := podcontrol.FromTemplate(j, j.GetSpec().GetTemplate())
	m := p.Metadata
	if !isTracked(p) {
		m.Finalizers = append(m.Finalizers, batch.FinalizerTracking)
	}
	if n.index == noIndex {
		return p
	}
	name, index := j.GetMetadata().GetName(), strconv.Itoa(n.index)
	m.GenerateName = podcontrol.GenerateName(name, "-"+index+"-")
	set(&m.Annotations, batch.CompletionIndex, index)
	set(&m.Labels, batch.CompletionIndex, index)
	p.Spec.Hostname = name + "-" + index
	for _, list := range [][]*corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			setIndexVariable(c)
		}
	}
	if j.GetSpec().BackoffLimitPerIndex != nil {
		counted, ignored := failuresAfter(j, n.replaces)
		set(&m.Annotations, batch.AnnotationFailureCount, strconv.Itoa(counted))
		if ignored > 0 {
			set(&m.Annotations, batch.AnnotationIgnoredFailureCount, strconv.Itoa(ignored))
		}
	}
	return p
}

func set(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}

// indexVariable is the environment variable in which containers find their pod's index.
const indexVariable = "JOB_COMPLETION_INDEX"

func setIndexVariable(c *corev1.Container) {
	if slices.ContainsFunc(c.GetEnv(), func(e *corev1.EnvVar) bool { return e.GetName() == indexVariable }) {
		return
	}
	c.Env = append(c.Env, &corev1.EnvVar{Name: indexVariable, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['" + batch.CompletionIndex + "']"},
	}})
}

// byIndex sorts pods by completion index, and those of the same index as surplus pods are chosen.
func byIndex(pods []*corev1.Pod) {
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(indexOf(a), indexOf(b)) })
}

// indexesOf returns the indexes that some pods have.
func indexesOf(pods []*corev1.Pod) batch.Indexes {
	sorted := make([]int, 0, len(pods))
	for _, p := range pods {
		if i := indexOf(p); i != noIndex {
			sorted = append(sorted, i)
		}
	}
	slices.Sort(sorted)
	return batch.IndexesOf(sorted...)
}
