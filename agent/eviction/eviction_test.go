package eviction

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestParse(t *testing.T) {
	got, err := Parse(Settings{
		Hard: []string{"memory.available<100Mi", "nodefs.available < 10%"}, Soft: []string{"memory.available<200Mi"},
		SoftGrace: []string{"memory.available=1m30s"}, MinimumReclaim: []string{"memory.available=64Mi"},
	})
	if err != nil || len(got) != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	if g := got[0]; g.Signal != MemoryAvailable || g.Least.Of(1) != 100<<20 || g.Grace != 0 || g.Reclaim.Of(1) != 64<<20 {
		t.Errorf("hard: %+v", g)
	}
	if g := got[1]; g.Least.Of(1000) != 100 || g.Least.String() != "10%" {
		t.Errorf("a share: %+v", g)
	}
	if g := got[2]; g.Grace != 90*time.Second {
		t.Errorf("soft: %+v", g)
	}
	_, err = Parse(Settings{
		Hard: []string{"memory.free<1", "memory.available=5", "pid.available<-1", "nodefs.available<110%"}, Soft: []string{"pid.available<10"},
		SoftGrace: []string{"memory.available=soon"}, MinimumReclaim: []string{"x=1"},
	})
	for _, want := range []string{"memory.free", "memory.available=5", "-1", "110%", "pid.available<10: a soft threshold requires", "soon", "x=1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
}

func pod(name string, priority int32, used int64, requests map[string]string) Pod {
	r := &corev1.ResourceRequirements{Requests: map[string]*metav1.Quantity{}}
	for k, v := range requests {
		r.Requests[k] = &metav1.Quantity{String_: v}
	}
	return Pod{&corev1.Pod{
		Metadata: &metav1.ObjectMeta{Name: name, Uid: name},
		Spec:     &corev1.PodSpec{Priority: &priority, Containers: []*corev1.Container{{Name: "main", Resources: r}}},
	}, used}
}

// whole makes a pod that asks for memory as a whole.
func whole(p Pod, memory string) Pod {
	p.Spec.Resources = &corev1.ResourceRequirements{Requests: map[string]*metav1.Quantity{"memory": {String_: memory}}}
	return p
}

func TestRank(t *testing.T) {
	const mi = 1 << 20
	for _, tt := range []struct {
		name   string
		signal Signal
		pods   []Pod
		want   string
	}{
		{"within their requests come last, whatever they use", MemoryAvailable, []Pod{
			pod("within", 0, 500*mi, map[string]string{"memory": "600Mi"}), pod("beyond", 0, 20*mi, map[string]string{"memory": "10Mi"}),
		}, "beyond within"},
		{"then by priority", MemoryAvailable, []Pod{
			pod("high", 1000, 500*mi, nil), pod("low", 0, 10*mi, nil), pod("within", -5, 1*mi, map[string]string{"memory": "10Mi"}),
		}, "low high within"},
		{"then by what is used beyond the requests", MemoryAvailable, []Pod{
			pod("a", 0, 100*mi, map[string]string{"memory": "90Mi"}), pod("b", 0, 50*mi, map[string]string{"memory": "10Mi"}), pod("c", 0, 30*mi, nil),
		}, "b c a"},
		{"what a pod asks for as a whole counts", MemoryAvailable, []Pod{
			whole(pod("whole", 0, 500*mi, map[string]string{"memory": "1Mi"}), "600Mi"), pod("beyond", 0, 20*mi, map[string]string{"memory": "10Mi"}),
		}, "beyond whole"},
		{"critical pods never", MemoryAvailable, []Pod{pod("critical", criticalPriority, 900*mi, nil), pod("other", 0, 1*mi, nil)}, "other"},
		{"processes: by priority and number", PIDAvailable, []Pod{pod("few", 0, 3, nil), pod("many", 0, 90, nil), pod("dear", 10, 200, nil)}, "many few dear"},
		{"disk: by requests too", NodeFSAvailable, []Pod{
			pod("asked", 0, 90*mi, map[string]string{"ephemeral-storage": "100Mi"}), pod("took", 0, 5*mi, nil),
		}, "took asked"},
	} {
		var got []string
		for _, p := range rank(tt.pods, tt.signal) {
			got = append(got, p.GetMetadata().GetName())
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
}

// TestSteps lets time pass by hand.
func TestSteps(t *testing.T) {
	thresholds, err := Parse(Settings{
		Hard: []string{"memory.available<100"}, Soft: []string{"memory.available<200", "nodefs.available<10%"},
		SoftGrace: []string{"memory.available=10s", "nodefs.available=5s"}, MinimumReclaim: []string{"memory.available=50"},
	})
	if err != nil {
		t.Fatal(err)
	}
	left := map[Signal]Observation{MemoryAvailable: {500, 1000}, NodeFSAvailable: {500, 1000}}
	pods := []Pod{pod("big", 0, 800, nil), pod("small", 0, 10, nil)}
	var evicted []string
	var graces []time.Duration
	var pressures map[Pressure]bool
	reclaimed := 0
	registry := prometheus.NewRegistry()
	e := New(Config{
		Metrics:    NewMetrics(registry),
		Thresholds: thresholds, Transition: time.Minute, MaxGrace: 7 * time.Second, Log: zap.NewNop(),
		Observe: func(context.Context) (map[Signal]Observation, error) { return left, nil },
		Pods:    func(context.Context, Signal) ([]Pod, error) { return append([]Pod(nil), pods...), nil },
		Reclaim: func(context.Context) error { reclaimed++; return nil },
		Evict: func(uid, _ string, grace time.Duration) {
			evicted, graces = append(evicted, uid), append(graces, grace)
		},
		Changed: func(p map[Pressure]bool) { pressures = p },
	})
	now := time.Now()
	step := func(d time.Duration, memory, disk int64) {
		t.Helper()
		now = now.Add(d)
		left = map[Signal]Observation{MemoryAvailable: {memory, 1000}, NodeFSAvailable: {disk, 1000}}
		if err := e.step(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what, uids string, memory, disk bool) {
		t.Helper()
		if got := strings.Join(evicted, " "); got != uids || pressures[MemoryPressure] != memory || pressures[DiskPressure] != disk || pressures[PIDPressure] {
			t.Errorf("%s: evicted %q, pressures %v", what, got, pressures)
		}
	}
	pods[0].Spec.TerminationGracePeriodSeconds = new(int64(30))
	step(0, 500, 500)
	expect("all is well", "", false, false)
	step(time.Second, 150, 500)
	expect("soft, within its grace", "", true, false)
	step(5*time.Second, 220, 500)
	expect("back above it, but not by the minimum", "", true, false)
	step(5*time.Second, 220, 500)
	expect("soft, beyond its grace", "big", true, false)
	step(time.Second, 220, 500)
	expect("the pod is on its way", "big", true, false)
	pods = pods[1:]
	step(time.Second, 50, 500)
	expect("hard: at once", "big small", true, false)
	if graces[0] != 7*time.Second || graces[1] != 0 {
		t.Errorf("graces are %v", graces)
	}
	pods = []Pod{pod("disk", 0, 1, nil)}
	step(time.Second, 500, 50)
	expect("memory is back, the disk is full", "big small", true, true)
	step(5*time.Second, 500, 50)
	expect("the disk stays full", "big small disk", true, true)
	if reclaimed != 1 {
		t.Errorf("room was made %d times before the pod was evicted", reclaimed)
	}
	step(50*time.Second, 500, 500)
	expect("just before the transition period ends", "big small disk", true, true)
	step(20*time.Second, 500, 500)
	expect("after the transition period", "big small disk", false, false)
	counted := metricstest.Values(t, registry, metrics.Evictions)
	if counted["memory.available"] != 2 || counted["nodefs.available"] != 1 || counted["pid.available"] != 0 || len(counted) != len(signals)+len(limits) {
		t.Errorf("counted %v", counted)
	}
}
