package apiserver

import (
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/pipeline"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// wholeFrame is an event as all watchers of whole objects share it.
//
//nolint:unparam // it has the signature of summaryFrame
func wholeFrame(e storage.Event) ([]byte, error) { return e.Frame(), nil }

// frameOf returns the encoder of events for watches of a version that is not stored.
func frameOf(k *scheme.Kind) func(storage.Event) ([]byte, error) {
	return func(e storage.Event) ([]byte, error) {
		if e.Object == nil {
			return e.Frame(), nil
		}
		object, err := pipeline.EncodeStored(k, e.Object)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(&apiv1.WatchResponse{Type: e.Type, Object: object, ResourceVersion: strconv.FormatInt(e.Revision, 10)})
	}
}

// summaryFrame is an event with the summary of its pod, encoded. The summary of a pod that cannot
// be decoded has only metadata.
func summaryFrame(e storage.Event) ([]byte, error) {
	if e.Object == nil {
		return e.Frame(), nil
	}
	var pod corev1.Pod
	if proto.Unmarshal(e.Object.Value(), &pod) != nil {
		pod = corev1.Pod{Metadata: e.Object.Meta()}
	}
	object, err := anypb.New(summary(&pod))
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&apiv1.WatchResponse{Type: e.Type, Object: object, ResourceVersion: strconv.FormatInt(e.Revision, 10)})
}

// summary returns the fields of a pod from which other nodes recognize its traffic.
func summary(p *corev1.Pod) *corev1.Pod {
	m := p.GetMetadata()
	out := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{
			Name: m.GetName(), Namespace: m.GetNamespace(), Uid: m.GetUid(), Labels: m.GetLabels(), ResourceVersion: m.GetResourceVersion(),
			CreationTimestamp: m.GetCreationTimestamp(), DeletionTimestamp: m.GetDeletionTimestamp(),
		},
		Spec:   &corev1.PodSpec{NodeName: p.GetSpec().GetNodeName(), HostNetwork: p.GetSpec().GetHostNetwork()},
		Status: &corev1.PodStatus{Phase: p.GetStatus().GetPhase(), PodIp: p.GetStatus().GetPodIp(), PodIps: p.GetStatus().GetPodIps()},
	}
	out.Spec.Containers = namedPorts(p.GetSpec().GetContainers())
	out.Spec.InitContainers = namedPorts(p.GetSpec().GetInitContainers())
	return out
}

// namedPorts returns the containers that have ports with names, with nothing but these ports.
func namedPorts(containers []*corev1.Container) []*corev1.Container {
	var out []*corev1.Container
	for _, c := range containers {
		var ports []*corev1.ContainerPort
		for _, p := range c.GetPorts() {
			if p.GetName() != "" {
				ports = append(ports, &corev1.ContainerPort{Name: p.GetName(), ContainerPort: p.GetContainerPort(), Protocol: p.GetProtocol()})
			}
		}
		if len(ports) > 0 {
			out = append(out, &corev1.Container{Name: c.GetName(), Ports: ports})
		}
	}
	return out
}
