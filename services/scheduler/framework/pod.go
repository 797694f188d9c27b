package framework

import (
	"strings"
	"time"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/scheduling"
	"github.com/xebec-project/xebec/internal/nodeaffinity"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Pod is what scheduling a pod depends on. It is immutable.
type Pod struct {
	// Namespace, Name and UID identify the pod.
	Namespace, Name, UID string
	// Labels are metadata.labels.
	Labels map[string]string
	// Deleting says that the pod is being deleted.
	Deleting bool
	// PodGroup is spec.schedulingGroup.podGroupName, empty for none.
	PodGroup string
	// SchedulerName is spec.schedulerName.
	SchedulerName string
	// Priority orders waiting pods: the highest comes first.
	Priority int32
	// NeverPreempts says that the pod does not take the place of pods with lower priority.
	NeverPreempts bool
	// Preempted says that the pod is being deleted to make room for another.
	Preempted bool
	// Started is when its node began to run the pod; the zero time when it has not.
	Started time.Time
	// Node is the node that the pod is bound to, empty while it waits.
	Node string
	// NominatedNode is status.nominatedNodeName: room is made there for the waiting pod.
	NominatedNode string
	// Requests are the amounts that the pod takes of its node, sorted by name, without zeros. They
	// include one of "pods".
	Requests []Request
	// RequiredNodes are the nodes that it may run on.
	RequiredNodes nodeaffinity.Required
	// PreferredNodes are the nodes that it prefers.
	PreferredNodes []nodeaffinity.Preferred
	// Terms are the terms of its affinity to pods and of its anti-affinity, by TermKind.
	Terms [termKinds][]PodTerm
	// Spread is spec.topologySpreadConstraints.
	Spread []SpreadConstraint
	// Tolerations is spec.tolerations.
	Tolerations []*corev1.Toleration
	// HostPorts are the ports that the containers take on the node.
	HostPorts []HostPort
	// Images are the full names of the containers' images.
	Images []string
	// Controller is the uid of the pod's controller, empty for none, and ControllerKind its kind.
	Controller, ControllerKind string

	group string // the key of its podGroup
}

// HostPort is a port that a pod takes on its node. The address 0.0.0.0 stands for all.
type HostPort struct {
	// IP is the address of the node, 0.0.0.0 when the pod does not name one.
	IP string
	// Protocol is TCP, UDP or SCTP.
	Protocol string
	// Port is the number.
	Port int32
}

const anyAddress = "0.0.0.0"

// Conflicts reports whether two pods on one node cannot have these ports.
func (p HostPort) Conflicts(o HostPort) bool {
	return p.Port == o.Port && p.Protocol == o.Protocol && (p.IP == o.IP || p.IP == anyAddress || o.IP == anyAddress)
}

// NewPod reads what matters out of a pod; the error names a resource that does not parse.
func NewPod(p *corev1.Pod) (*Pod, error) {
	spec := p.GetSpec()
	requests, err := podRequests(p)
	if err != nil {
		return nil, err
	}
	out := &Pod{
		Namespace: p.GetMetadata().GetNamespace(), Name: p.GetMetadata().GetName(), UID: p.GetMetadata().GetUid(),
		Labels: p.GetMetadata().GetLabels(), Deleting: p.GetMetadata().GetDeletionTimestamp() != nil,
		PodGroup:      spec.GetSchedulingGroup().GetPodGroupName(),
		SchedulerName: spec.GetSchedulerName(), Terms: podTerms(p), Spread: spreadConstraints(p),
		Priority: spec.GetPriority(), Node: spec.GetNodeName(), Requests: requests,
		NeverPreempts: spec.GetPreemptionPolicy() == scheduling.PreemptNever, Preempted: isPreempted(p),
		NominatedNode: p.GetStatus().GetNominatedNodeName(),
		RequiredNodes: nodeaffinity.RequiredOf(spec), PreferredNodes: nodeaffinity.PreferredOf(spec), Tolerations: spec.GetTolerations(),
	}
	if t := p.GetStatus().GetStartTime(); t != nil {
		out.Started = t.AsTime()
	}
	for _, c := range spec.GetContainers() {
		out.Images = append(out.Images, normalImage(c.GetImage()))
		for _, port := range c.GetPorts() {
			if port.GetHostPort() == 0 {
				continue
			}
			ip := port.GetHostIp()
			if ip == "" {
				ip = anyAddress
			}
			out.HostPorts = append(out.HostPorts, HostPort{ip, port.GetProtocol(), port.GetHostPort()})
		}
	}
	if owner := kinds.ControllerOf(p); owner != nil {
		out.Controller, out.ControllerKind = owner.GetUid(), owner.GetKind()
	}
	out.group = groupKey(out)
	return out, nil
}

// ReasonPreempted is the reason of the condition DisruptionTarget of pods that are deleted to make
// room for others.
const ReasonPreempted = "PreemptionByScheduler"

func isPreempted(p *corev1.Pod) bool {
	c := core.PodCondition(p, core.PodDisruptionTarget)
	return p.GetMetadata().GetDeletionTimestamp() != nil && c.GetStatus() == condition.True && c.GetReason() == ReasonPreempted
}

// Request returns the amount of a resource that the pod takes, 0 when it requests none.
func (p *Pod) Request(name string) int64 {
	for _, r := range p.Requests {
		if r.Name == name {
			return r.Amount
		}
	}
	return 0
}

// normalImage completes an image's name as Docker does, so that the short name and the full one are
// the same: the default registry and repository, and the tag latest.
func normalImage(name string) string {
	first, rest, hasSlash := strings.Cut(name, "/")
	switch {
	case !hasSlash:
		name = "docker.io/library/" + name
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		name = "docker.io/" + name
	case first == "docker.io" && !strings.Contains(rest, "/"):
		name = "docker.io/library/" + rest
	}
	if at := strings.LastIndexAny(name, ":@"); at < strings.LastIndexByte(name, '/') {
		name += ":latest"
	}
	return name
}
