// Package chaos kills the leaders of services while workloads roll out, and checks all that a watch
// saw of the pods and Jobs against what must hold at every moment.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/tests/cluster"
)

const (
	masters     = 3
	namespace   = "default"
	replicas    = 3 // of a StatefulSet
	completions = 6 // of a Job
	parallelism = 3
	// last is the name of the pod and of the Job that end the history.
	last = "last"
	// killedPerRollout is how many leaders are killed while one rollout is under way.
	killedPerRollout = 4
)

// size is how much the test does.
type size struct {
	kills, objects, nodes int
	limit                 time.Duration
}

// sizeOf is a short run, unless XEBEC_CHAOS says how many leaders are killed: 50 objects of each
// kind roll out then.
func sizeOf(t *testing.T) size {
	value := os.Getenv("XEBEC_CHAOS")
	if value == "" {
		return size{kills: killedPerRollout, objects: 4, nodes: 4, limit: 5 * time.Minute}
	}
	kills, err := strconv.Atoi(value)
	if err != nil || kills < 1 {
		t.Fatalf("XEBEC_CHAOS: %q is not a number of kills, such as 100", value)
	}
	return size{kills: kills, objects: 50, nodes: 8, limit: 80 * time.Minute}
}

// TestLeadersKilledDuringRollouts rolls out StatefulSets and DaemonSets and runs Jobs, again and
// again, while the leaders of workloads and scheduler are killed in turn. Every event of a pod or a
// Job is checked by the model.
func TestLeadersKilledDuringRollouts(t *testing.T) {
	s := sizeOf(t)
	ctx, cancel := context.WithTimeout(t.Context(), s.limit)
	defer cancel()
	r := start(ctx, t, s)
	stop := r.record(ctx)
	for killed, rollout := 0, 1; killed < s.kills; rollout++ {
		if err := r.rollOut(ctx, rollout); err != nil {
			t.Fatal(err)
		}
		for range min(killedPerRollout, s.kills-killed) {
			pause(ctx, time.Duration(r.random.Int64N(int64(time.Second))))
			r.kill(ctx, []string{"workloads", "scheduler"}[killed%2])
			killed++
		}
		r.waitRolledOut(ctx, rollout)
		t.Logf("rollout %d is complete, %d leaders killed", rollout, killed)
	}
	r.end(ctx)
	stop()
	r.model.finish(t)
}

// run is one run of the test.
type run struct {
	t       *testing.T
	size    size
	cluster *cluster.Cluster
	api     *client.Client
	random  *rand.Rand
	model   *model
}

// start brings up the masters and the simulated nodes.
func start(ctx context.Context, t *testing.T, s size) *run {
	binaries, remove, err := cluster.Build(ctx, "xebecd", "xebec-agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	c, err := cluster.Start(ctx, cluster.Config{Binaries: binaries, Masters: masters})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.StartHollow(s.nodes, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := c.Dial("gateway")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := &run{t: t, size: s, cluster: c, api: client.New(conn, client.WithFieldManager("chaos")), random: rand.New(rand.NewPCG(seed, 1)), model: newModel()}
	r.eventually(ctx, "all nodes are ready", func() (string, bool) {
		nodes, _, err := client.List[*corev1.Node](ctx, r.api, client.ListOptions{})
		ready := 0
		for _, n := range nodes {
			if len(n.GetSpec().GetTaints()) == 0 && core.NodeCondition(n, core.NodeReady).GetStatus() == "True" && n.GetSpec().GetPodCidr() != "" {
				ready++
			}
		}
		return fmt.Sprintf("%d are, %v", ready, err), ready == s.nodes
	})
	return r
}

// record passes every change of a pod and of a Job to the model until stop is called.
func (r *run) record(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return follow(ctx, r.api, r.model.pod) })
	group.Go(func() error { return follow(ctx, r.api, r.model.job) })
	return func() {
		cancel()
		if err := group.Wait(); err != nil {
			r.t.Error(err)
		}
	}
}

// end creates objects that nothing acts on, and waits until the watches have shown them: all events
// before them have been checked then.
func (r *run) end(ctx context.Context) {
	j := job(last, 0)
	j.Spec.Suspend = proto.Bool(true)
	pod := &corev1.Pod{Metadata: &metav1.ObjectMeta{Namespace: namespace, Name: last}, Spec: template("", 0, "").Spec}
	pod.Spec.SchedulingGates = []*corev1.PodSchedulingGate{{Name: "example.com/never"}}
	if err := errors.Join(r.apply(ctx, j), r.apply(ctx, pod)); err != nil {
		r.t.Fatal(err)
	}
	r.eventually(ctx, "the watches have shown all", func() (string, bool) { return "", r.model.hasEnded() })
}

// follow watches a kind from its first object on, and resumes the watch where it ended.
func follow[T scheme.Object](ctx context.Context, api *client.Client, event func(object T, deleted bool)) error {
	reached := ""
	for ctx.Err() == nil {
		for e, err := range client.Watch[T](ctx, api, client.WatchOptions{Namespace: namespace, ResourceVersion: reached}) {
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil && !apierr.IsUnavailable(err):
				return fmt.Errorf("watch after revision %s: %w", reached, err)
			case err != nil:
				pause(ctx, 100*time.Millisecond)
				continue
			}
			if e.ResourceVersion != "" {
				reached = e.ResourceVersion
			}
			if e.Object.GetMetadata() != nil {
				event(e.Object, strings.HasSuffix(e.Type.String(), "DELETED"))
			}
		}
	}
	return nil
}

// kill ends the process of a service's leader as a crash would, and starts it again after a while,
// as systemd does.
func (r *run) kill(ctx context.Context, service string) {
	var leader *cluster.Process
	r.eventually(ctx, service+" has a leader", func() (string, bool) {
		l, err := client.Get[*coordinationv1.Lease](ctx, r.api, "kube-system", service)
		if err != nil {
			return err.Error(), false
		}
		for _, m := range r.cluster.Masters() {
			if l.GetSpec().GetHolderIdentity() == service+"@"+m.Name {
				leader = m.Process(service)
			}
		}
		return "holder " + l.GetSpec().GetHolderIdentity(), leader != nil && leader.Running()
	})
	leader.Kill()
	pause(ctx, time.Duration(r.random.Int64N(int64(2*time.Second))))
	if err := leader.Start(); err != nil {
		r.t.Fatal(err)
	}
}

// rollOut gives all sets another template and creates the Jobs of the rollout.
func (r *run) rollOut(ctx context.Context, rollout int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range r.size.objects {
		group.Go(func() error { return r.apply(ctx, statefulSet(fmt.Sprint("set-", i), rollout)) })
		group.Go(func() error { return r.apply(ctx, daemonSet(fmt.Sprint("daemon-", i), rollout)) })
		group.Go(func() error { return r.apply(ctx, job(fmt.Sprintf("job-%d-%d", rollout, i), rollout)) })
	}
	return group.Wait()
}

func (r *run) apply(ctx context.Context, o scheme.Object) error {
	_, _, err := client.Apply(ctx, r.api, o)
	return err
}

func statefulSet(name string, rollout int) *appsv1.StatefulSet {
	return &appsv1.StatefulSet{
		Metadata: &metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: &appsv1.StatefulSetSpec{
			Replicas: proto.Int32(replicas), ServiceName: name, Selector: selector(name), Template: template(name, rollout, ""),
		},
	}
}

func daemonSet(name string, rollout int) *appsv1.DaemonSet {
	return &appsv1.DaemonSet{
		Metadata: &metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:     &appsv1.DaemonSetSpec{Selector: selector(name), Template: template(name, rollout, "")},
	}
}

func job(name string, rollout int) *batchv1.Job {
	return &batchv1.Job{
		Metadata: &metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: &batchv1.JobSpec{
			Completions: proto.Int32(completions), Parallelism: proto.Int32(parallelism), Template: template("", rollout, core.RestartNever),
		},
	}
}

func selector(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

func template(app string, rollout int, restart string) *corev1.PodTemplateSpec {
	t := &corev1.PodTemplateSpec{
		Metadata: &metav1.ObjectMeta{Annotations: map[string]string{"rollout": fmt.Sprint(rollout)}},
		Spec:     &corev1.PodSpec{RestartPolicy: restart, Containers: []*corev1.Container{{Name: "main", Image: "chaos:1"}}},
	}
	if app != "" {
		t.Metadata.Labels = map[string]string{"app": app}
	}
	return t
}

// waitRolledOut waits until all sets have the pods of the rollout and its Jobs are complete.
func (r *run) waitRolledOut(ctx context.Context, rollout int) {
	r.eventually(ctx, fmt.Sprintf("rollout %d is complete", rollout), func() (string, bool) {
		sets, _, err1 := client.List[*appsv1.StatefulSet](ctx, r.api, client.ListOptions{Namespace: namespace})
		daemons, _, err2 := client.List[*appsv1.DaemonSet](ctx, r.api, client.ListOptions{Namespace: namespace})
		jobs, _, err3 := client.List[*batchv1.Job](ctx, r.api, client.ListOptions{Namespace: namespace})
		if err := errors.Join(err1, err2, err3); err != nil {
			return err.Error(), false
		}
		done := map[string]int{}
		for _, s := range sets {
			st := s.GetStatus()
			if st.GetObservedGeneration() == s.GetMetadata().GetGeneration() && st.GetUpdatedReplicas() == replicas &&
				st.GetAvailableReplicas() == replicas && st.GetCurrentRevision() == st.GetUpdateRevision() {
				done["sets"]++
			}
		}
		want := int32(r.size.nodes)
		for _, d := range daemons {
			st := d.GetStatus()
			if st.GetObservedGeneration() == d.GetMetadata().GetGeneration() && st.GetUpdatedNumberScheduled() == want && st.GetNumberAvailable() == want {
				done["daemons"]++
			}
		}
		for _, j := range jobs {
			if j.GetStatus().GetCompletionTime() != nil && strings.HasPrefix(j.GetMetadata().GetName(), fmt.Sprintf("job-%d-", rollout)) {
				done["jobs"]++
			}
		}
		n := r.size.objects
		return fmt.Sprintf("%v of %d each", done, n), done["sets"] == n && done["daemons"] == n && done["jobs"] == n
	})
}

// eventually waits until a condition holds. Without it the test ends with what was the case last.
func (r *run) eventually(ctx context.Context, what string, holds func() (now string, ok bool)) {
	r.t.Helper()
	said := time.Now()
	for {
		now, ok := holds()
		if ok {
			return
		}
		if time.Since(said) > 20*time.Second {
			r.t.Logf("%s: not yet: %s", what, now)
			said = time.Now()
		}
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			r.t.Fatalf("%s: not in time: %s", what, now)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
