// Package core has the kinds of the core group: their rules, defaults, columns, selectable fields
// and constants, and the questions about pods, nodes and services that several components ask.
package core

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Phases of a pod.
const (
	PodPending   = "Pending"
	PodRunning   = "Running"
	PodSucceeded = "Succeeded"
	PodFailed    = "Failed"
	PodUnknown   = "Unknown"
)

// Types of pod condition.
const (
	PodScheduled              = "PodScheduled"
	PodInitialized            = "Initialized"
	PodReady                  = "Ready"
	PodContainersReady        = "ContainersReady"
	PodReadyToStartContainers = "PodReadyToStartContainers"
	PodDisruptionTarget       = "DisruptionTarget"
)

// Restart policies.
const (
	RestartAlways    = "Always"
	RestartOnFailure = "OnFailure"
	RestartNever     = "Never"
)

// Quality of service classes of pods.
const (
	QOSGuaranteed = "Guaranteed"
	QOSBurstable  = "Burstable"
	QOSBestEffort = "BestEffort"
)

// DefaultServiceAccount is the account of pods that name none.
const DefaultServiceAccount = "default"

// DefaultGracePeriod is the default of a pod's termination grace period, in seconds.
const DefaultGracePeriod = 30

// reasonNodeLost is the status reason of a pod whose node is unreachable.
const reasonNodeLost = "NodeLost"

var (
	podRules = rules.For[*corev1.Pod]{
		Name:     rules.NameIsSubdomain,
		Defaults: defaultPod,
		Check:    checkPod,
		CheckNew: func(p *corev1.Pod, c *rules.Checker) {
			checkNoEphemeral(c, field.NewPath("spec"), p.GetSpec())
			checkKeysOfNewPod(c, field.NewPath("spec"), p)
		},
		CheckUpdate: checkPodUpdate,
		CheckStatus: checkPodStatus,
		// The class is set at creation; agents of earlier versions may leave it out.
		PrepareStatus: func(new, old *corev1.Pod) {
			if new.GetStatus().GetQosClass() == "" && old.GetStatus().GetQosClass() != "" {
				if new.Status == nil {
					new.Status = &corev1.PodStatus{}
				}
				new.Status.QosClass = old.GetStatus().GetQosClass()
			}
		},
		Create: createPod,
		// A manifest that is applied again does not have the toleration that creation added.
		Update: func(p, _ *corev1.Pod) { copeWithPressure(p) },
		Warn:   func(p *corev1.Pod) []string { return WarnPod(nil, p.GetMetadata(), p.GetSpec()) },
	}
	podColumns = []scheme.Column{
		column.New("READY", podReady),
		column.New("STATUS", PodStatus),
		column.Aged("RESTARTS", podRestarts),
		column.AgeColumn,
		column.Wide("IP", func(p *corev1.Pod) string { return column.OrNone(p.GetStatus().GetPodIp()) }),
		column.Wide("NODE", func(p *corev1.Pod) string { return column.OrNone(p.GetSpec().GetNodeName()) }),
		column.Wide("NOMINATED NODE", func(p *corev1.Pod) string { return column.OrNone(p.GetStatus().GetNominatedNodeName()) }),
		column.Wide("READINESS GATES", podReadinessGates),
	}
	podFields = map[string][]protowire.Number{
		"spec.restartPolicy":       {2, 3},
		"spec.serviceAccountName":  {2, 8},
		"spec.nodeName":            {2, 10},
		"spec.hostNetwork":         {2, 11},
		"spec.schedulerName":       {2, 19},
		"status.phase":             {3, 1},
		"status.podIP":             {3, 6},
		"status.nominatedNodeName": {3, 11},
	}
)

// PodCondition is the pod's condition of a type, nil when it has none.
func PodCondition(p *corev1.Pod, typ string) *corev1.PodCondition {
	for _, c := range p.GetStatus().GetConditions() {
		if c.GetType() == typ {
			return c
		}
	}
	return nil
}

// IsPodReady reports that the pod's Ready condition is true.
func IsPodReady(p *corev1.Pod) bool {
	return PodCondition(p, PodReady).GetStatus() == condition.True
}

// IsPodFinished reports whether the pod's containers have ended and are not restarted.
func IsPodFinished(p *corev1.Pod) bool {
	return p.GetStatus().GetPhase() == PodSucceeded || p.GetStatus().GetPhase() == PodFailed
}

// PodAddresses returns the pod's IP addresses as they are written, the primary one first.
func PodAddresses(p *corev1.Pod) []string {
	var out []string
	add := func(ip string) {
		if ip != "" && !slices.Contains(out, ip) {
			out = append(out, ip)
		}
	}
	add(p.GetStatus().GetPodIp())
	for _, ip := range p.GetStatus().GetPodIps() {
		add(ip.GetIp())
	}
	return out
}

// podGracePeriod is 0 for pods without running containers.
func podGracePeriod(o scheme.Object) int64 {
	p := o.(*corev1.Pod)
	switch {
	case p.GetSpec().GetNodeName() == "" || IsPodFinished(p):
		return 0
	case p.GetSpec() == nil || p.Spec.TerminationGracePeriodSeconds == nil:
		return DefaultGracePeriod
	}
	return p.GetSpec().GetTerminationGracePeriodSeconds()
}

// defaultPod also sets the service account, which templates may leave out.
func defaultPod(p *corev1.Pod) {
	defaultPodSpec(p.GetSpec())
	if !IsMirrorPod(p) {
		setDefault(&p.Spec.ServiceAccountName, DefaultServiceAccount)
	}
	p.Spec.ServiceAccount = p.Spec.GetServiceAccountName()
}

func createPod(p *corev1.Pod) {
	copeWithPressure(p)
	p.Status = &corev1.PodStatus{Phase: PodPending, QosClass: PodQOS(p.GetSpec())}
	if len(p.GetSpec().GetSchedulingGates()) > 0 {
		p.Status.Conditions = []*corev1.PodCondition{{
			Type: PodScheduled, Status: condition.False, Reason: "SchedulingGated",
			Message:            "Scheduling is blocked due to non-empty scheduling gates",
			LastTransitionTime: p.GetMetadata().GetCreationTimestamp(),
		}}
	}
}

func podReady(p *corev1.Pod) string {
	ready, total := 0, len(p.GetSpec().GetContainers())
	for _, s := range p.GetStatus().GetContainerStatuses() {
		if s.GetReady() && s.GetState().GetRunning() != nil {
			ready++
		}
	}
	for _, c := range p.GetSpec().GetInitContainers() {
		if c.GetRestartPolicy() != RestartAlways {
			continue
		}
		total++
		if s := containerStatus(p.GetStatus().GetInitContainerStatuses(), c.GetName()); s.GetReady() && s.GetState().GetRunning() != nil {
			ready++
		}
	}
	return fmt.Sprintf("%d/%d", ready, total)
}

func containerStatus(all []*corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for _, s := range all {
		if s.GetName() == name {
			return s
		}
	}
	return nil
}

// PodStatus summarizes the pod's state in a word, as tables show it: the phase, or a more specific
// reason such as Terminating, CrashLoopBackOff or Init:0/1.
func PodStatus(p *corev1.Pod) string {
	reason := p.GetStatus().GetPhase()
	if r := p.GetStatus().GetReason(); r != "" {
		reason = r
	}
	if c := PodCondition(p, PodScheduled); c.GetReason() == "SchedulingGated" {
		reason = "SchedulingGated"
	}
	if init, waiting := initStatus(p); waiting {
		reason = init
	} else {
		reason = containersStatus(p, reason)
	}
	switch {
	case p.GetMetadata().GetDeletionTimestamp() == nil:
	case p.GetStatus().GetReason() == reasonNodeLost:
		reason = PodUnknown
	case !IsPodFinished(p):
		reason = "Terminating"
	}
	if reason == "" {
		return PodUnknown
	}
	return reason
}

// initStatus returns the progress of the init containers and whether the pod waits for them.
func initStatus(p *corev1.Pod) (string, bool) {
	containers := p.GetSpec().GetInitContainers()
	for i, s := range p.GetStatus().GetInitContainerStatuses() {
		sidecar := slices.ContainsFunc(containers, func(c *corev1.Container) bool {
			return c.GetName() == s.GetName() && c.GetRestartPolicy() == RestartAlways
		})
		ended, waiting := s.GetState().GetTerminated(), s.GetState().GetWaiting()
		switch {
		case ended != nil && ended.GetExitCode() == 0, sidecar && s.GetStarted():
			continue
		case ended != nil:
			return "Init:" + endReason(ended), true
		case waiting.GetReason() != "" && waiting.GetReason() != "PodInitializing":
			return "Init:" + waiting.GetReason(), true
		}
		if c := PodCondition(p, PodInitialized); c.GetStatus() == condition.True {
			return "", false
		}
		return fmt.Sprintf("Init:%d/%d", i, len(containers)), true
	}
	return "", false
}

// containersStatus is the reason of the first container that has one, else the pod's own.
func containersStatus(p *corev1.Pod, reason string) string {
	running := false
	for _, s := range slices.Backward(p.GetStatus().GetContainerStatuses()) {
		ended := s.GetState().GetTerminated()
		switch w := s.GetState().GetWaiting(); {
		case w.GetReason() != "":
			reason = w.GetReason()
		case ended != nil:
			reason = endReason(ended)
		case s.GetReady() && s.GetState().GetRunning() != nil:
			running = true
		}
	}
	if reason != "Completed" || !running {
		return reason
	}
	// One container has completed and others run: the pod as a whole runs.
	if IsPodReady(p) {
		return PodRunning
	}
	return "NotReady"
}

func endReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.GetReason() != "":
		return t.GetReason()
	case t.GetSignal() != 0:
		return fmt.Sprintf("Signal:%d", t.GetSignal())
	}
	return fmt.Sprintf("ExitCode:%d", t.GetExitCode())
}

func podRestarts(p *corev1.Pod, now time.Time) string {
	total := 0
	var last time.Time
	for _, s := range slices.Concat(p.GetStatus().GetInitContainerStatuses(), p.GetStatus().GetContainerStatuses()) {
		total += int(s.GetRestartCount())
		if t := s.GetLastState().GetTerminated().GetFinishedAt(); t != nil && t.AsTime().After(last) {
			last = t.AsTime()
		}
	}
	if total == 0 || last.IsZero() {
		return strconv.Itoa(total)
	}
	return fmt.Sprintf("%d (%s ago)", total, column.HumanDuration(now.Sub(last)))
}

func podReadinessGates(p *corev1.Pod) string {
	gates := p.GetSpec().GetReadinessGates()
	if len(gates) == 0 {
		return column.None
	}
	passed := 0
	for _, g := range gates {
		if PodCondition(p, g.GetConditionType()).GetStatus() == condition.True {
			passed++
		}
	}
	return fmt.Sprintf("%d/%d", passed, len(gates))
}

func checkPod(p *corev1.Pod, c *rules.Checker) {
	spec := field.NewPath("spec")
	checkPodSpec(c, spec, p.GetSpec())
	for i, v := range p.GetSpec().GetVolumes() {
		if image := v.GetVolumeSource().GetImage(); image != nil && image.GetReference() == "" {
			c.Required(spec.Child("volumes").Index(i).Child("image", "reference"), "")
		}
	}
	if n := p.GetSpec().GetNodeName(); n != "" && len(p.GetSpec().GetSchedulingGates()) > 0 {
		c.Forbidden(spec.Child("nodeName"), "cannot be set until all schedulingGates have been cleared")
	}
}

// podIsImmutable lists the fields that an update may change, as Kubernetes does; the rest of a
// pod's spec is immutable.
const podIsImmutable = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`," +
	"`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

func checkPodUpdate(new, old *corev1.Pod, c *rules.Checker) {
	spec := field.NewPath("spec")
	now, was := new.GetSpec(), old.GetSpec()
	if len(now.GetContainers()) != len(was.GetContainers()) {
		c.Forbidden(spec.Child("containers"), "pod updates may not add or remove containers")
		return
	}
	if len(now.GetInitContainers()) != len(was.GetInitContainers()) {
		c.Forbidden(spec.Child("initContainers"), "pod updates may not add or remove containers")
		return
	}
	checkDeadlineUpdate(c, spec.Child("activeDeadlineSeconds"), now, was)
	kept := rules.SetOf(now.GetTolerations(), tolerationKey)
	for i, t := range was.GetTolerations() {
		if !kept[tolerationKey(t)] {
			c.Forbidden(spec.Child("tolerations"),
				fmt.Sprintf("existing toleration at index %d can not be modified except its tolerationSeconds", i))
		}
	}
	gates := rules.SetOf(was.GetSchedulingGates(), (*corev1.PodSchedulingGate).GetName)
	for i, g := range now.GetSchedulingGates() {
		if !gates[g.GetName()] {
			c.Forbidden(spec.Child("schedulingGates").Index(i),
				fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.GetName()))
		}
	}

	// Fields that may change are set to their old values; then the specs must be equal.
	if now == nil || was == nil {
		if now != was {
			c.Forbidden(spec, podIsImmutable)
		}
		return
	}
	same := proto.CloneOf(now)
	for i := range same.GetContainers() {
		keepMutable(same.Containers[i], was.GetContainers()[i])
	}
	for i := range same.GetInitContainers() {
		keepMutable(same.InitContainers[i], was.GetInitContainers()[i])
	}
	same.ActiveDeadlineSeconds = was.ActiveDeadlineSeconds
	same.Tolerations = was.GetTolerations()
	same.SchedulingGates = was.GetSchedulingGates()
	if was.GetTerminationGracePeriodSeconds() < 0 && now.GetTerminationGracePeriodSeconds() == 1 {
		same.TerminationGracePeriodSeconds = was.TerminationGracePeriodSeconds
	}
	if gated := len(was.GetSchedulingGates()) > 0; gated {
		// The node selector of a gated pod may be narrowed.
		same.NodeSelector = was.GetNodeSelector()
		for key, value := range was.GetNodeSelector() {
			if now.GetNodeSelector()[key] != value {
				c.Invalid(spec.Child("nodeSelector"), now.GetNodeSelector(),
					"only additions are allowed to spec.nodeSelector (no mutations or deletions)")
				break
			}
		}
	}
	if !proto.Equal(same, was) {
		c.Forbidden(spec, podIsImmutable+": differs in "+differing(spec, same, was))
	}
}

// keepMutable sets what an update may change of a container to its old value. Resources without
// content are the same as none.
func keepMutable(x, was *corev1.Container) {
	x.Image = was.GetImage()
	if proto.Size(x.GetResources()) == 0 && proto.Size(was.GetResources()) == 0 {
		x.Resources = was.GetResources()
	}
}

func checkDeadlineUpdate(c *rules.Checker, p *field.Path, now, was *corev1.PodSpec) {
	if was == nil || was.ActiveDeadlineSeconds == nil {
		return
	}
	switch {
	case now == nil || now.ActiveDeadlineSeconds == nil:
		c.Invalid(p, was.GetActiveDeadlineSeconds(), "must not update from a positive integer to nil value")
	case now.GetActiveDeadlineSeconds() > was.GetActiveDeadlineSeconds():
		c.Invalid(p, now.GetActiveDeadlineSeconds(), "must be less than or equal to previous value")
	}
}

// tolerationKey has the fields of a toleration that may not change: all but its seconds.
func tolerationKey(t *corev1.Toleration) [4]string {
	return [4]string{t.GetKey(), t.GetOperator(), t.GetValue(), t.GetEffect()}
}
