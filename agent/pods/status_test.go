package pods

import (
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

var noon = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)

func ended(code int32) *exit {
	return &exit{ContainerID: "x", Code: code, Reason: reasonError, StartedAt: noon.Add(-time.Minute), FinishedAt: noon}
}

func conditionOf(st *corev1.PodStatus, kind string) *corev1.PodCondition {
	for _, c := range st.GetConditions() {
		if c.GetType() == kind {
			return c
		}
	}
	return nil
}

func TestPhaseAndReadiness(t *testing.T) {
	always := "Always"
	running := view{running: true, ready: true, started: true, rec: record{StartedAt: noon}}
	unready := view{running: true, started: true, rec: record{StartedAt: noon}}
	created := view{waiting: cause{reason: reasonContainerCreating}}
	crashing := view{waiting: cause{reason: reasonCrashLoop}, rec: record{Attempt: 2, Exit: ended(1)}}
	good, bad := view{over: true, rec: record{Exit: ended(0)}}, view{over: true, rec: record{Exit: ended(1)}}
	side := running
	side.spec = &corev1.Container{Name: "side", RestartPolicy: &always}
	sideStarting := created
	sideStarting.spec = side.spec
	sideRestarts := view{spec: side.spec, waiting: cause{reason: reasonCrashLoop}, rec: record{Attempt: 1, Exit: ended(1)}}
	sideCrashed, sideEnded := sideRestarts, view{spec: side.spec, rec: record{Exit: ended(0)}, passed: true}
	sideCrashed.passed = true
	for name, c := range map[string]struct {
		init, main  []view
		deleted     bool
		renewing    bool
		phase       string
		ready       bool
		initialized bool
	}{
		"nothing yet":                    {main: []view{created}, phase: kind.PodPending, initialized: true},
		"one of two":                     {main: []view{running, created}, phase: kind.PodPending, initialized: true},
		"running":                        {main: []view{running, running}, phase: kind.PodRunning, ready: true, initialized: true},
		"not ready":                      {main: []view{running, unready}, phase: kind.PodRunning, initialized: true},
		"crash loop":                     {main: []view{crashing}, phase: kind.PodRunning, initialized: true},
		"one done":                       {main: []view{running, good}, phase: kind.PodRunning, initialized: true},
		"all done":                       {main: []view{good, good}, phase: kind.PodSucceeded, initialized: true},
		"one failed":                     {main: []view{good, bad}, phase: kind.PodFailed, initialized: true},
		"initializing":                   {init: []view{good, running}, main: []view{created}, phase: kind.PodPending},
		"initialized":                    {init: []view{good}, main: []view{running}, phase: kind.PodRunning, ready: true, initialized: true},
		"init failed":                    {init: []view{bad}, main: []view{created}, phase: kind.PodFailed},
		"sidecar starts":                 {init: []view{sideStarting}, main: []view{created}, phase: kind.PodPending},
		"sidecar runs":                   {init: []view{side}, main: []view{running}, phase: kind.PodRunning, ready: true, initialized: true},
		"sidecar fails before it starts": {init: []view{sideRestarts}, main: []view{created}, phase: kind.PodPending},
		"sidecar crashes beside others":  {init: []view{sideCrashed}, main: []view{running}, phase: kind.PodRunning, initialized: true},
		"done, and so is the sidecar":    {init: []view{sideEnded}, main: []view{good}, phase: kind.PodSucceeded, initialized: true},
		"being deleted and serving":      {main: []view{running}, deleted: true, phase: kind.PodRunning, ready: true, initialized: true},
		"being deleted and unready":      {main: []view{unready}, deleted: true, phase: kind.PodRunning, initialized: true},
		"done while sidecar goes on":     {init: []view{side}, main: []view{good}, phase: kind.PodSucceeded, initialized: true},
		"all are to be restarted":        {init: []view{side}, main: []view{running}, renewing: true, phase: kind.PodPending, initialized: true},
		"all were, and begin":            {init: []view{good}, main: []view{{rec: record{Attempt: 2, Renewed: 2, Last: ended(0)}}}, phase: kind.PodPending, initialized: true},
		"all were, and one restarts":     {main: []view{{rec: record{Attempt: 3, Renewed: 2, Last: ended(0)}}}, phase: kind.PodRunning, initialized: true},
		"no more than what was asked of": {main: []view{running}, phase: kind.PodRunning, ready: true, initialized: true},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Metadata: &metav1.ObjectMeta{}, Spec: &corev1.PodSpec{}}
			fill := func(list []view, to *[]*corev1.Container) {
				for i := range list {
					if list[i].spec == nil {
						list[i].spec = &corev1.Container{Name: "c"}
					}
					*to = append(*to, list[i].spec)
				}
			}
			fill(c.init, &pod.Spec.InitContainers)
			fill(c.main, &pod.Spec.Containers)
			if c.deleted {
				pod.Metadata.DeletionTimestamp = timestamppb.New(noon)
			}
			st := podStatus(pod, seen{init: c.init, main: c.main, now: noon, network: true, renewing: c.renewing})
			if st.GetPhase() != c.phase {
				t.Errorf("phase %s, want %s", st.GetPhase(), c.phase)
			}
			if got := conditionOf(st, "Ready").GetStatus() == "True"; got != c.ready {
				t.Errorf("ready %v, want %v: %v", got, c.ready, conditionOf(st, "Ready"))
			}
			if got := conditionOf(st, "Initialized").GetStatus() == "True"; got != c.initialized {
				t.Errorf("initialized %v, want %v", got, c.initialized)
			}
		})
	}
}

// TestStatusIsStable checks that the same sight gives the same status later, so that nothing is written in vain, and that
// what others decide is kept.
func TestStatusIsStable(t *testing.T) {
	spec := &corev1.Container{Name: "web", Image: "web"}
	pod := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{},
		Spec:     &corev1.PodSpec{Containers: []*corev1.Container{spec}},
		Status: &corev1.PodStatus{NominatedNodeName: "node-9", Conditions: []*corev1.PodCondition{
			{Type: "DisruptionTarget", Status: "True", LastTransitionTime: timestamppb.New(noon)},
		}},
	}
	s := seen{
		main:    []view{{spec: spec, running: true, ready: true, started: true, id: "u-web-1", rec: record{Attempt: 1, Image: "docker.io/library/web:latest", ImageID: "sha256:1", StartedAt: noon, Last: ended(3)}}},
		network: true, ip: netip.MustParseAddr("10.244.1.7"), hostIP: netip.MustParseAddr("10.0.0.1"), now: noon,
	}
	first := podStatus(pod, s)
	if first.GetPodIp() != "10.244.1.7" || first.GetNominatedNodeName() != "node-9" || conditionOf(first, "DisruptionTarget") == nil {
		t.Errorf("status is %v", first)
	}
	if s := podStatus(pod, seen{main: []view{{spec: spec}}, now: noon}).GetContainerStatuses()[0]; s.LastState != nil {
		t.Errorf("a container that never ended has a last state: %v", s)
	}
	cs := first.GetContainerStatuses()[0]
	if cs.GetContainerId() != "containerd://u-web-1" || cs.GetRestartCount() != 1 || cs.GetLastState().GetTerminated().GetExitCode() != 3 || cs.GetImageId() != "sha256:1" {
		t.Errorf("container status is %v", cs)
	}
	pod.Status = first
	s.now = noon.Add(time.Hour)
	if second := podStatus(pod, s); !proto.Equal(first, second) {
		t.Errorf("the status changed by itself:\n%v\n%v", first, second)
	}
	s.main[0].ready = false
	if c := conditionOf(podStatus(pod, s), "Ready"); c.GetStatus() != "False" || !c.GetLastTransitionTime().AsTime().Equal(s.now) || c.GetReason() != "ContainersNotReady" {
		t.Errorf("condition is %v", c)
	}
}
