package status

import (
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

var noon = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)

func ended(code int32) *checkpoint.Exit {
	return &checkpoint.Exit{ContainerID: "x", Code: code, Reason: ReasonError, StartedAt: noon.Add(-time.Minute), FinishedAt: noon}
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
	running := Container{Running: true, Ready: true, Started: true, Rec: checkpoint.Record{StartedAt: noon}}
	unready := Container{Running: true, Started: true, Rec: checkpoint.Record{StartedAt: noon}}
	created := Container{Waiting: Cause{Reason: ReasonContainerCreating}}
	crashing := Container{Waiting: Cause{Reason: ReasonCrashLoop}, Rec: checkpoint.Record{Attempt: 2, Exit: ended(1)}}
	good, bad := Container{Over: true, Rec: checkpoint.Record{Exit: ended(0)}}, Container{Over: true, Rec: checkpoint.Record{Exit: ended(1)}}
	side := running
	side.Spec = &corev1.Container{Name: "side", RestartPolicy: &always}
	sideStarting := created
	sideStarting.Spec = side.Spec
	sideRestarts := Container{Spec: side.Spec, Waiting: Cause{Reason: ReasonCrashLoop}, Rec: checkpoint.Record{Attempt: 1, Exit: ended(1)}}
	sideCrashed, sideEnded := sideRestarts, Container{Spec: side.Spec, Rec: checkpoint.Record{Exit: ended(0)}, Passed: true}
	sideCrashed.Passed = true
	for name, c := range map[string]struct {
		init, main  []Container
		deleted     bool
		renewing    bool
		phase       string
		ready       bool
		initialized bool
	}{
		"nothing yet":                    {main: []Container{created}, phase: core.PodPending, initialized: true},
		"one of two":                     {main: []Container{running, created}, phase: core.PodPending, initialized: true},
		"running":                        {main: []Container{running, running}, phase: core.PodRunning, ready: true, initialized: true},
		"not ready":                      {main: []Container{running, unready}, phase: core.PodRunning, initialized: true},
		"crash loop":                     {main: []Container{crashing}, phase: core.PodRunning, initialized: true},
		"one done":                       {main: []Container{running, good}, phase: core.PodRunning, initialized: true},
		"all done":                       {main: []Container{good, good}, phase: core.PodSucceeded, initialized: true},
		"one failed":                     {main: []Container{good, bad}, phase: core.PodFailed, initialized: true},
		"initializing":                   {init: []Container{good, running}, main: []Container{created}, phase: core.PodPending},
		"initialized":                    {init: []Container{good}, main: []Container{running}, phase: core.PodRunning, ready: true, initialized: true},
		"init failed":                    {init: []Container{bad}, main: []Container{created}, phase: core.PodFailed},
		"sidecar starts":                 {init: []Container{sideStarting}, main: []Container{created}, phase: core.PodPending},
		"sidecar runs":                   {init: []Container{side}, main: []Container{running}, phase: core.PodRunning, ready: true, initialized: true},
		"sidecar fails before it starts": {init: []Container{sideRestarts}, main: []Container{created}, phase: core.PodPending},
		"sidecar crashes beside others":  {init: []Container{sideCrashed}, main: []Container{running}, phase: core.PodRunning, initialized: true},
		"done, and so is the sidecar":    {init: []Container{sideEnded}, main: []Container{good}, phase: core.PodSucceeded, initialized: true},
		"being deleted and serving":      {main: []Container{running}, deleted: true, phase: core.PodRunning, ready: true, initialized: true},
		"being deleted and unready":      {main: []Container{unready}, deleted: true, phase: core.PodRunning, initialized: true},
		"done while sidecar goes on":     {init: []Container{side}, main: []Container{good}, phase: core.PodSucceeded, initialized: true},
		"all restart":                    {init: []Container{side}, main: []Container{running}, renewing: true, phase: core.PodPending, initialized: true},
		"all were, and begin":            {init: []Container{good}, main: []Container{{Rec: checkpoint.Record{Attempt: 2, Renewed: 2, Last: ended(0)}}}, phase: core.PodPending, initialized: true},
		"all were, and one restarts":     {main: []Container{{Rec: checkpoint.Record{Attempt: 3, Renewed: 2, Last: ended(0)}}}, phase: core.PodRunning, initialized: true},
		"no more than what was asked of": {main: []Container{running}, phase: core.PodRunning, ready: true, initialized: true},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Metadata: &metav1.ObjectMeta{}, Spec: &corev1.PodSpec{}}
			fill := func(list []Container, to *[]*corev1.Container) {
				for i := range list {
					if list[i].Spec == nil {
						list[i].Spec = &corev1.Container{Name: "c"}
					}
					*to = append(*to, list[i].Spec)
				}
			}
			fill(c.init, &pod.Spec.InitContainers)
			fill(c.main, &pod.Spec.Containers)
			if c.deleted {
				pod.Metadata.DeletionTimestamp = timestamppb.New(noon)
			}
			st := Of(pod, Observation{Init: c.init, Main: c.main, Now: noon, Network: true, Renewing: c.renewing})
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

// TestStatusIsStable checks that the same sight gives the same status later, so that nothing is
// written in vain, and that what others decide is kept.
func TestStatusIsStable(t *testing.T) {
	spec := &corev1.Container{Name: "web", Image: "web"}
	pod := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{},
		Spec:     &corev1.PodSpec{Containers: []*corev1.Container{spec}},
		Status: &corev1.PodStatus{NominatedNodeName: "node-9", Conditions: []*corev1.PodCondition{
			{Type: "DisruptionTarget", Status: "True", LastTransitionTime: timestamppb.New(noon)},
		}},
	}
	s := Observation{
		Main:    []Container{{Spec: spec, Running: true, Ready: true, Started: true, ID: "u-web-1", Rec: checkpoint.Record{Attempt: 1, Image: "docker.io/library/web:latest", ImageID: "sha256:1", StartedAt: noon, Last: ended(3)}}},
		Network: true, IP: netip.MustParseAddr("10.244.1.7"), HostIP: netip.MustParseAddr("10.0.0.1"), Now: noon,
	}
	first := Of(pod, s)
	if first.GetPodIp() != "10.244.1.7" || first.GetNominatedNodeName() != "node-9" || conditionOf(first, "DisruptionTarget") == nil {
		t.Errorf("status is %v", first)
	}
	if s := Of(pod, Observation{Main: []Container{{Spec: spec}}, Now: noon}).GetContainerStatuses()[0]; s.LastState != nil {
		t.Errorf("a container that never ended has a last state: %v", s)
	}
	cs := first.GetContainerStatuses()[0]
	if cs.GetContainerId() != "containerd://u-web-1" || cs.GetRestartCount() != 1 || cs.GetLastState().GetTerminated().GetExitCode() != 3 || cs.GetImageId() != "sha256:1" {
		t.Errorf("container status is %v", cs)
	}
	pod.Status = first
	s.Now = noon.Add(time.Hour)
	if second := Of(pod, s); !proto.Equal(first, second) {
		t.Errorf("the status changed by itself:\n%v\n%v", first, second)
	}
	s.Main[0].Ready = false
	if c := conditionOf(Of(pod, s), "Ready"); c.GetStatus() != "False" || !c.GetLastTransitionTime().AsTime().Equal(s.Now) || c.GetReason() != "ContainersNotReady" {
		t.Errorf("condition is %v", c)
	}
}
