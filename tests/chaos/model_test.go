package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// model holds what the watches have shown and finds what must never be:
//   - a second pod of a DaemonSet on a node, while the first is not being deleted
//   - a StatefulSet with more than one pod that is not available, once all were
//   - a pod of a set that was replaced though it is of the rollout already
//   - a Job with more pods than completions, with more than its parallelism at once, or with a
//     count that its pods do not show
//   - a pod that changes its node
//
// The events of pods come in their order, and so do those of Jobs.
type model struct {
	mu       sync.Mutex
	pods     map[string]map[string]*corev1.Pod // those that exist, by owner and uid
	created  map[string]int                    // pods ever created, by owner, for sets also by name and rollout
	finished map[string]int                    // pods that succeeded, by owner
	complete map[string]bool                   // StatefulSets that have had all pods ready
	jobs     map[string]*batchv1.Job
	history  map[string][]string // what happened, by owner
	failures map[string][]string // by owner
	ended    map[string]bool     // the kinds whose last object has come
}

func newModel() *model {
	return &model{
		pods: map[string]map[string]*corev1.Pod{}, created: map[string]int{}, finished: map[string]int{}, complete: map[string]bool{},
		jobs: map[string]*batchv1.Job{}, history: map[string][]string{}, failures: map[string][]string{}, ended: map[string]bool{},
	}
}

func (m *model) fail(of, format string, args ...any) {
	m.failures[of] = append(m.failures[of], fmt.Sprintf(format, args...))
}

// note keeps an event, so that a failure can be understood.
func (m *model) note(of string, meta *metav1.ObjectMeta, format string, args ...any) {
	m.history[of] = append(m.history[of], fmt.Sprintf("%s %s: ", meta.GetResourceVersion(), meta.GetName())+fmt.Sprintf(format, args...))
}

// pod takes a change of a pod.
func (m *model) pod(p *corev1.Pod, deleted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.GetMetadata().GetName() == last {
		m.ended["pods"] = true
		return
	}
	uid, name := p.GetMetadata().GetUid(), p.GetMetadata().GetName()
	owner := kinds.ControllerOf(p)
	of := owner.GetKind() + " " + owner.GetName()
	if m.pods[of] == nil {
		m.pods[of] = map[string]*corev1.Pod{}
	}
	before := m.pods[of][uid]
	if deleted {
		delete(m.pods[of], uid)
	} else {
		m.pods[of][uid] = p
	}
	m.note(of, p.GetMetadata(), "%s on %q, finalizers %v, being deleted %t, deleted %t", p.GetStatus().GetPhase(), p.GetSpec().GetNodeName(),
		p.GetMetadata().GetFinalizers(), p.GetMetadata().GetDeletionTimestamp() != nil, deleted)
	if node := before.GetSpec().GetNodeName(); node != "" && node != p.GetSpec().GetNodeName() {
		m.fail(of, "pod %s was on node %s and is on %s", name, node, p.GetSpec().GetNodeName())
	}
	if before == nil && !deleted {
		m.created[of]++
	}
	switch owner.GetKind() {
	case "StatefulSet":
		if before == nil {
			m.createdOnce(of, name, p)
		}
		m.statefulSet(of)
	case "DaemonSet":
		node := p.GetSpec().GetNodeName()
		if before.GetSpec().GetNodeName() == "" && node != "" {
			m.createdOnce(of, node, p)
		}
		m.daemonSet(of, node)
	case "Job":
		if !finished(before) && finished(p) {
			m.finished[of]++
		}
		m.jobPods(of)
	default:
		m.fail(of, "pod %s has no owner", name)
	}
}

// createdOnce checks that a rollout creates no second pod of an identity: no pod fails here.
func (m *model) createdOnce(of, identity string, p *corev1.Pod) {
	key := fmt.Sprintf("%s: rollout %s created a pod for %s", of, p.GetMetadata().GetAnnotations()["rollout"], identity)
	if m.created[key]++; m.created[key] > 1 {
		m.fail(of, "%s %d times", key, m.created[key])
	}
}

func (m *model) statefulSet(of string) {
	pods, ready := m.pods[of], 0
	for _, p := range pods {
		if core.IsPodReady(p) && p.GetMetadata().GetDeletionTimestamp() == nil {
			ready++
		}
	}
	if ready == replicas {
		m.complete[of] = true
	}
	if len(pods) > replicas {
		m.fail(of, "%s has %d pods, of %d", of, len(pods), replicas)
	}
	if m.complete[of] && ready < replicas-1 {
		m.fail(of, "%s has %d pods that are available, of %d", of, ready, replicas)
	}
}

func (m *model) daemonSet(of, node string) {
	var there []string
	for _, p := range m.pods[of] {
		if node != "" && p.GetSpec().GetNodeName() == node && p.GetMetadata().GetDeletionTimestamp() == nil {
			there = append(there, p.GetMetadata().GetName())
		}
	}
	if len(there) > 1 {
		slices.Sort(there)
		m.fail(of, "%s has %s on node %s", of, strings.Join(there, " and "), node)
	}
}

func (m *model) jobPods(of string) {
	active := 0
	for _, p := range m.pods[of] {
		if !finished(p) && p.GetMetadata().GetDeletionTimestamp() == nil {
			active++
		}
	}
	if active > parallelism {
		m.fail(of, "%s has %d pods at once, of %d", of, active, parallelism)
	}
	if m.created[of] > completions {
		m.fail(of, "%s created %d pods, for %d completions", of, m.created[of], completions)
	}
}

// job takes a change of a Job. Jobs and their pods come by two watches, so that the counts are
// compared at the end.
func (m *model) job(j *batchv1.Job, _ bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := j.GetMetadata().GetName()
	if name == last {
		m.ended["jobs"] = true
		return
	}
	of := "Job " + name
	m.note(of, j.GetMetadata(), "active %d, succeeded %d, failed %d", j.GetStatus().GetActive(), j.GetStatus().GetSucceeded(), j.GetStatus().GetFailed())
	was, is := m.jobs[name].GetStatus(), j.GetStatus()
	switch {
	case is.GetSucceeded() < was.GetSucceeded():
		m.fail(of, "job %s counted %d pods that succeeded and now %d", name, was.GetSucceeded(), is.GetSucceeded())
	case is.GetSucceeded() > completions, is.GetFailed() > 0:
		m.fail(of, "job %s counts %d pods that succeeded and %d that failed, of %d", name, is.GetSucceeded(), is.GetFailed(), completions)
	case is.GetCompletionTime() != nil && is.GetSucceeded() != completions:
		m.fail(of, "job %s is complete with %d pods that succeeded, of %d", name, is.GetSucceeded(), completions)
	}
	m.jobs[name] = j
}

// hasEnded reports whether both watches have shown their last object.
func (m *model) hasEnded() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended["pods"] && m.ended["jobs"]
}

func finished(p *corev1.Pod) bool { return p != nil && core.IsPodFinished(p) }

// finish reports what was found, and compares the Jobs with their pods.
func (m *model) finish(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, j := range m.jobs {
		if n := m.finished["Job "+name]; n != int(j.GetStatus().GetSucceeded()) {
			m.fail("Job "+name, "job %s counts %d pods that succeeded, but %d did", name, j.GetStatus().GetSucceeded(), n)
		}
	}
	for i, of := range slices.Sorted(maps.Keys(m.failures)) {
		if i == 10 {
			t.Errorf("and failures of %d others", len(m.failures)-i)
			break
		}
		t.Errorf("%s\n  by resource version:\n    %s", strings.Join(slices.Compact(m.failures[of]), "\n"), strings.Join(m.history[of], "\n    "))
	}
	sum := 0
	for of, n := range m.created {
		if !strings.Contains(of, ":") {
			sum += n
		}
	}
	t.Logf("%d pods of %d Jobs and the sets", sum, len(m.jobs))
}
