package job

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds/batch"
	"github.com/xebec-project/xebec/internal/kinds/core"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// world is a cluster with one Job: what the API stores, what the controller sees of it, and what
// has really happened to the pods.
type world struct {
	t   *testing.T
	r   *rand.Rand
	now time.Time
	job *batchv1.Job
	// version is the resourceVersion of the Job.
	version int
	pods    map[string]*corev1.Pod // by uid, as stored
	next    int
	// seenJob and seenPods are the controller's view, and seenVersion the version of the Job in it.
	// They lag behind, but not behind the controller's own creations and deletions.
	seenJob     *batchv1.Job
	seenVersion int
	seenPods    map[string]*corev1.Pod
	// counted are the pods that were counted, by uid.
	counted map[string]string
	// most is the largest number of pods that were active at once.
	most int
	log  []string
}

func (w *world) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s\nstatus %v", fmt.Sprintf(format, args...), strings.Join(w.log[max(0, len(w.log)-60):], "\n"), w.job.GetStatus())
}

// look brings the controller's view up to date.
func (w *world) look() {
	w.seenJob, w.seenVersion, w.seenPods = proto.CloneOf(w.job), w.version, map[string]*corev1.Pod{}
	for uid, p := range w.pods {
		w.seenPods[uid] = proto.CloneOf(p)
	}
}

// store stores a change of a pod, and removes a pod that nothing holds any more.
func (w *world) store(p *corev1.Pod) {
	uid := p.GetMetadata().GetUid()
	if isDeleted(p) && p.GetMetadata().GetDeletionGracePeriodSeconds() == 0 && len(p.GetMetadata().GetFinalizers()) == 0 {
		delete(w.pods, uid)
		return
	}
	w.pods[uid] = p
}

// see shows the controller its own write of a pod, which its expectations wait for.
func (w *world) see(uid string) {
	if p := w.pods[uid]; p != nil {
		w.seenPods[uid] = proto.CloneOf(p)
	} else {
		delete(w.seenPods, uid)
	}
}

func (w *world) active() int {
	n := 0
	for _, p := range w.pods {
		if podcontrol.IsActive(p) {
			n++
		}
	}
	return n
}

// succeeded is how many pods have succeeded, counted or not.
func (w *world) succeeded() int {
	n := 0
	for uid, p := range w.pods {
		if _, counted := w.counted[uid]; !counted && isTracked(p) && p.GetStatus().GetPhase() == core.PodSucceeded {
			n++
		}
	}
	return n + int(w.job.GetStatus().GetSucceeded())
}

func (w *world) delete(uid string) {
	p := w.pods[uid]
	if p == nil || isDeleted(p) {
		return
	}
	p = proto.CloneOf(p)
	grace := int64(30)
	if p.GetSpec().GetNodeName() == "" || core.IsPodFinished(p) {
		grace = 0
	}
	p.Metadata.DeletionTimestamp, p.Metadata.DeletionGracePeriodSeconds = timestamppb.New(w.now), &grace
	w.store(p)
}

// release takes the finalizer from pods, all or none: it fails when one has lost it.
func (w *world) release(pods []*corev1.Pod) bool {
	for _, p := range pods {
		if stored := w.pods[p.GetMetadata().GetUid()]; stored == nil || !isTracked(stored) {
			return false
		}
	}
	for _, p := range pods {
		stored := proto.CloneOf(w.pods[p.GetMetadata().GetUid()])
		stored.Metadata.Finalizers = nil
		w.store(stored)
	}
	return true
}

// write is the transaction that stores the status and releases pods. It checks that the counters
// grow by the pods that are released, each of which is counted once.
func (w *world) write(p *plan) bool {
	if w.seenVersion != w.version {
		return false // The version that the controller read is not the current one.
	}
	before := w.job.GetStatus()
	finished := map[string]string{}
	for _, pod := range p.release {
		if stored := w.pods[pod.GetMetadata().GetUid()]; stored != nil {
			finished[pod.GetMetadata().GetUid()] = stored.GetStatus().GetPhase()
		}
	}
	if !w.release(p.release) {
		return false
	}
	w.job = proto.CloneOf(w.job)
	w.job.Status = proto.CloneOf(p.status)
	w.version++
	for uid, phase := range finished {
		if was, twice := w.counted[uid]; twice {
			w.fail("%s was counted twice, as %s and %s", uid, was, phase)
		}
		w.counted[uid] = phase
	}
	grown := p.status.GetSucceeded() + p.status.GetFailed() - before.GetSucceeded() - before.GetFailed()
	if int(grown) > len(p.release) {
		w.fail("the counters grew by %d for %d pods", grown, len(p.release))
	}
	if !isIndexed(w.job) && int(grown) != len(p.release) && p.status.GetFailed() == before.GetFailed() && batch.Finished(w.job) == nil && standingType(p) != batch.JobSuccessCriteriaMet {
		w.fail("the counters grew by %d for %d pods", grown, len(p.release))
	}
	return true
}

func standingType(p *plan) string {
	for _, c := range p.status.GetConditions() {
		if c.GetType() == batch.JobSuccessCriteriaMet {
			return c.GetType()
		}
	}
	return ""
}

// reconcile makes a plan by what the controller sees, and carries out a part of it: the controller
// may crash after each write, and sees everything when it starts again.
func (w *world) reconcile() {
	if batch.Finished(w.seenJob) != nil {
		return
	}
	pods := make([]*corev1.Pod, 0, len(w.seenPods))
	for _, p := range w.seenPods {
		pods = append(pods, p)
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return strings.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName())
	})
	p := newPlan(w.seenJob, pods, w.now)
	w.note("plan: %s", p)
	crashes := func() bool {
		if w.r.IntN(8) > 0 {
			return false
		}
		w.note("crash")
		w.look()
		return true
	}
	if len(p.create) > 0 && w.seenVersion != w.version {
		return // Pods are created on the condition that the Job is as the controller sees it.
	}
	for _, n := range p.create {
		w.create(n.build(w.seenJob))
	}
	if crashes() {
		return
	}
	var tracked []*corev1.Pod
	for _, pod := range p.remove {
		if isTracked(pod) {
			tracked = append(tracked, pod)
		}
	}
	if !w.release(tracked) || crashes() {
		return
	}
	for _, pod := range p.remove {
		w.delete(pod.GetMetadata().GetUid())
		w.see(pod.GetMetadata().GetUid())
	}
	if crashes() || !w.write(p) || crashes() {
		return
	}
	for _, pod := range p.end {
		w.delete(pod.GetMetadata().GetUid())
		w.see(pod.GetMetadata().GetUid())
	}
}

func (w *world) create(p *corev1.Pod) {
	w.next++
	p.Metadata.Name, p.Metadata.Uid = fmt.Sprintf("p%03d", w.next), fmt.Sprintf("u%03d", w.next)
	p.Metadata.CreationTimestamp, p.Status = timestamppb.New(w.now), &corev1.PodStatus{Phase: core.PodPending}
	w.store(p)
	w.see(p.Metadata.Uid)
	w.most = max(w.most, w.active())
	if limit := int(w.job.GetSpec().GetParallelism()); w.active() > limit {
		w.fail("%d pods are active, %d are allowed", w.active(), limit)
	}
	if most := int(w.job.GetSpec().GetCompletions()); w.succeeded()+w.active() > most {
		w.fail("%d pods succeeded and %d are active, for %d completions", w.succeeded(), w.active(), most)
	}
}

// live lets something happen to a pod: its agent runs it to its end, or a person deletes it.
func (w *world) live(uid string, failures int) {
	p := proto.CloneOf(w.pods[uid])
	switch {
	case core.IsPodFinished(p):
		if isDeleted(p) {
			p.Metadata.DeletionGracePeriodSeconds = proto.Int64(0)
		}
	case p.GetSpec().GetNodeName() == "" && !isDeleted(p):
		p.Spec.NodeName, p.Status.Phase = "n", core.PodRunning
	case p.GetSpec().GetNodeName() == "":
	case w.r.IntN(12) == 0:
		w.delete(uid)
		w.note("%s is deleted", uid)
		return
	default:
		code := int32(0)
		p.Status.Phase = core.PodSucceeded
		if w.r.IntN(100) < failures || isDeleted(p) {
			p.Status.Phase, code = core.PodFailed, 1
		}
		p.Status.ContainerStatuses = []*corev1.ContainerStatus{{Name: "main", State: &corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: timestamppb.New(w.now)},
		}}}
		w.note("%s has ended: %s", uid, p.Status.Phase)
	}
	w.store(p)
}

// step lets one thing happen.
func (w *world) step(failures int) {
	uids := make([]string, 0, len(w.pods))
	for uid := range w.pods {
		uids = append(uids, uid)
	}
	slices.Sort(uids)
	switch n := w.r.IntN(20); {
	case n < 7 && len(uids) > 0:
		w.live(uids[w.r.IntN(len(uids))], failures)
	case n < 12:
		w.reconcile()
	case n < 14:
		w.look()
	case n < 15 && len(uids) > 0: // A part of what happened is seen: one pod, or all, but not the Job.
		if w.r.IntN(2) == 0 {
			uids = uids[w.r.IntN(len(uids)):][:1]
		}
		for _, uid := range uids {
			w.see(uid)
		}
	case n < 16:
		w.seenJob, w.seenVersion = proto.CloneOf(w.job), w.version
	case n < 17 && batch.Finished(w.job) == nil:
		w.job = proto.CloneOf(w.job)
		w.job.Spec.Suspend = proto.Bool(!w.job.GetSpec().GetSuspend() && w.r.IntN(4) == 0)
		w.version++
	default:
		w.now = w.now.Add(time.Duration(w.r.IntN(60)) * time.Second)
	}
}

// TestEachPodIsCountedOnce plays Jobs at random: pods end and are deleted, the controller sees that
// late or in part, and crashes after each of its writes, and Jobs are suspended. Each pod is
// counted once, no more pods are active than allowed, and a Job completes with exactly as many
// successes as it needs.
func TestEachPodIsCountedOnce(t *testing.T) {
	jobs := map[string]func() *batchv1.Job{
		"plain":          func() *batchv1.Job { return newJob(completions(7), parallelism(3), backoffLimit(1000)) },
		"replace failed": func() *batchv1.Job { return newJob(completions(7), parallelism(3), backoffLimit(1000), replaceFailed) },
		"indexed":        func() *batchv1.Job { return newJob(indexed, completions(7), parallelism(3), backoffLimit(1000)) },
		"per index":      func() *batchv1.Job { return newJob(indexed, completions(7), parallelism(3), perIndex(2)) },
		"policy": func() *batchv1.Job {
			return newJob(indexed, completions(7), parallelism(3), backoffLimit(1000), failurePolicy(onCode("Ignore", 1)))
		},
		"few failures": func() *batchv1.Job { return newJob(completions(7), parallelism(3), backoffLimit(2)) },
		"success policy": func() *batchv1.Job {
			return newJob(indexed, completions(7), parallelism(3), backoffLimit(1000), successPolicy(&batchv1.SuccessPolicyRule{SucceededCount: proto.Int32(4)}))
		},
	}
	for name, build := range jobs {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(12) {
				w := &world{t: t, r: rand.New(rand.NewPCG(seed, 7)), now: epoch, job: build(), pods: map[string]*corev1.Pod{}, counted: map[string]string{}}
				w.look()
				for range 400 {
					w.step(25)
				}
				w.job = proto.CloneOf(w.job)
				w.job.Spec.Suspend = proto.Bool(false)
				w.version++
				w.finish()
			}
		})
	}
}

// finish lets everything come to its end, and checks the Job.
func (w *world) finish() {
	for range 3000 {
		if batch.Finished(w.job) != nil {
			break
		}
		for uid := range w.pods {
			if p := w.pods[uid]; p != nil {
				w.live(uid, 0)
			}
		}
		w.now = w.now.Add(time.Hour)
		w.look()
		w.reconcile()
	}
	s, status := w.job.GetSpec(), w.job.GetStatus()
	end := batch.Finished(w.job)
	if end == nil {
		w.fail("the job does not end")
	}
	if status.GetActive() != 0 || status.GetTerminating() != 0 || w.active() > 0 {
		w.fail("%d pods are active after the end", w.active())
	}
	succeeded := 0
	for _, phase := range w.counted {
		if phase == core.PodSucceeded {
			succeeded++
		}
	}
	switch {
	case end.GetType() != batch.JobComplete:
	case isIndexed(w.job):
		want := s.GetCompletions()
		if s.GetSuccessPolicy() != nil {
			want = min(want, status.GetSucceeded())
		}
		if status.GetSucceeded() != want || int(status.GetSucceeded()) != batch.ReadIndexes(status.GetCompletedIndexes(), int(s.GetCompletions())).Len() {
			w.fail("complete with %d indexes: %s", status.GetSucceeded(), status.GetCompletedIndexes())
		}
	case status.GetSucceeded() != s.GetCompletions() || succeeded != int(s.GetCompletions()):
		w.fail("complete with %d successes, %d pods of which succeeded", status.GetSucceeded(), succeeded)
	}
}
