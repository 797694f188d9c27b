package endpoints

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/discovery"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

const (
	// mirrored is the value of the label managed-by on slices that mirror an Endpoints object.
	mirrored = "endpointslicemirroring-controller.k8s.io"
	// labelSkipMirror set to true, and annotationLeader, which marks the locks of old elections, keep
	// Endpoints from being mirrored.
	labelSkipMirror  = "endpointslice.kubernetes.io/skip-mirror"
	annotationLeader = "control-plane.alpha.kubernetes.io/leader"
	// These annotations are not copied to the slices.
	annotationTriggerTime = "endpoints.kubernetes.io/last-change-trigger-time"
	annotationLastApplied = "kubectl.kubernetes.io/last-applied-configuration"
)

// mirror keeps slices that mirror the Endpoints that users write for services without a selector.
type mirror struct {
	writer
	services  *client.Informer[*corev1.Service]
	endpoints *client.Informer[*corev1.Endpoints]
	slices    *client.Informer[*discoveryv1.EndpointSlice]
	events    *events.Recorder
}

func (m *mirror) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	if m.written.IsBehind(key, m.slices.Revision()) {
		return controller.Result{RequeueAfter: controller.WrittenPause}, nil
	}
	have := m.slices.ByIndex(byService, key.String())
	e, ok := m.endpoints.Get(key.Namespace, key.Name)
	svc, known := m.services.Get(key.Namespace, key.Name)
	if !ok || !known || len(svc.GetSpec().GetSelector()) > 0 || !mirrors(e) {
		return controller.Result{}, m.write(ctx, key, plan{remove: have})
	}
	p, skipped := planMirror(e, have)
	if skipped > 0 {
		m.events.Event(e, events.Warning, "TooManyAddressesToMirror",
			"A max of %d addresses can be mirrored to EndpointSlices per Endpoints subset. %d addresses were skipped", maxSubsetAddresses, skipped)
	}
	return controller.Result{}, m.write(ctx, key, p)
}

// mirrors reports whether an Endpoints object is mirrored: it is none of ours, and is not marked.
func mirrors(e *corev1.Endpoints) bool {
	m := e.GetMetadata()
	_, lock := m.GetAnnotations()[annotationLeader]
	return m.GetDeletionTimestamp() == nil && !lock && m.GetLabels()[labelSkipMirror] != "true" &&
		m.GetLabels()[core.LabelEndpointsManagedBy] != core.EndpointsController
}

// planMirror computes the writes that turn the slices there are into those that mirror an Endpoints
// object: one for the ports of a subset and for each family of its addresses. It also returns how
// many addresses were skipped because their subset has too many.
func planMirror(e *corev1.Endpoints, have []*discoveryv1.EndpointSlice) (p plan, skipped int) {
	groups := map[string]*group{}
	for _, subset := range e.GetSubsets() {
		ports := make([]*discoveryv1.EndpointPort, len(subset.GetPorts()))
		for i, port := range subset.GetPorts() {
			ports[i] = &discoveryv1.EndpointPort{
				Name: proto.String(port.GetName()), Port: proto.Int32(port.GetPort()), Protocol: proto.String(protocolOf(port.GetProtocol())),
				AppProtocol: port.AppProtocol,
			}
		}
		added := 0
		add := func(addresses []*corev1.EndpointAddress, ready bool) {
			for _, a := range addresses {
				family := discovery.AddressTypeOf(a.GetIp())
				if family == "" {
					continue
				}
				if added == maxSubsetAddresses {
					skipped++
					continue
				}
				added++
				key := groupKey(family, ports)
				if groups[key] == nil {
					groups[key] = &group{addressType: family, ports: ports, endpoints: map[string]*discoveryv1.Endpoint{}}
				}
				out := mirroredEndpoint(a, ready)
				groups[key].endpoints[endpointKey(out)] = out
			}
		}
		add(subset.GetAddresses(), true)
		add(subset.GetNotReadyAddresses(), false)
	}
	byGroup := map[string][]*discoveryv1.EndpointSlice{}
	for _, s := range have {
		g := groupKey(s.GetAddressType(), s.GetPorts())
		if groups[g] == nil || s.GetMetadata().GetDeletionTimestamp() != nil {
			p.remove = append(p.remove, s)
			continue
		}
		byGroup[g] = append(byGroup[g], s)
	}
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		p.group(mirroredHead(e), groups[g], byGroup[g], maxSubsetAddresses)
	}
	return p, skipped
}

func mirroredEndpoint(a *corev1.EndpointAddress, ready bool) *discoveryv1.Endpoint {
	e := &discoveryv1.Endpoint{
		Addresses: []string{a.GetIp()}, Conditions: &discoveryv1.EndpointConditions{Ready: &ready},
		TargetRef: a.GetTargetRef(), NodeName: a.NodeName,
	}
	if a.GetHostname() != "" {
		e.Hostname = proto.String(a.GetHostname())
	}
	return e
}

// mirroredHead is the head of the slices of an Endpoints object: they have its labels and
// annotations.
func mirroredHead(e *corev1.Endpoints) head {
	m := e.GetMetadata()
	labels := map[string]string{}
	maps.Copy(labels, m.GetLabels())
	labels[labelServiceName], labels[labelManagedBy] = m.GetName(), mirrored
	annotations := map[string]string{}
	maps.Copy(annotations, m.GetAnnotations())
	delete(annotations, annotationTriggerTime)
	delete(annotations, annotationLastApplied)
	return head{
		namespace: m.GetNamespace(), name: m.GetName(), labels: labels, annotations: annotations, owner: kinds.NewControllerRef(e),
	}
}
