package describe

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/discovery"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

func describeService(ctx context.Context, cl *client.Client, r *report, svc *corev1.Service) error {
	slicesOf, _, err := client.List[*discoveryv1.EndpointSlice](ctx, cl, client.ListOptions{
		Namespace: svc.GetMetadata().GetNamespace(), LabelSelector: discovery.LabelServiceName + "=" + svc.GetMetadata().GetName(),
	})
	if err != nil {
		return err
	}
	spec := svc.GetSpec()
	r.metadata(svc)
	r.labels(svc)
	r.ends(svc)
	r.field("Selector", printer.Pairs(spec.GetSelector(), ","))
	r.field("Type", spec.GetType())
	r.optional("IP Family Policy", spec.GetIpFamilyPolicy())
	r.field("IP", printer.OrNone(spec.GetClusterIp()))
	r.optional("External Name", spec.GetExternalName())
	for _, p := range spec.GetPorts() {
		r.field("Port", strings.TrimSpace(fmt.Sprintf("%s %d/%s", p.GetName(), p.GetPort(), p.GetProtocol())))
		r.field("Target Port", printer.IntOrString(p.GetTargetPort())+"/"+p.GetProtocol())
		if p.GetNodePort() != 0 {
			r.field("Node Port", fmt.Sprintf("%d/%s", p.GetNodePort(), p.GetProtocol()))
		}
		ready, others := endpointsFor(slicesOf, p)
		r.field("Endpoints", printer.OrNone(strings.Join(ready, ", ")))
		if len(others) > 0 {
			r.field("Not Ready", strings.Join(others, ", "))
		}
	}
	r.field("Session Affinity", printer.OrNone(spec.GetSessionAffinity()))
	r.optional("Internal Traffic Policy", spec.GetInternalTrafficPolicy())
	return nil
}

// endpointsFor lists the addresses behind a port: those that take traffic, and the others.
func endpointsFor(all []*discoveryv1.EndpointSlice, port *corev1.ServicePort) (ready, others []string) {
	for _, slice := range all {
		for _, p := range slice.GetPorts() {
			if p.GetName() != port.GetName() {
				continue
			}
			for _, e := range slice.GetEndpoints() {
				for _, a := range e.GetAddresses() {
					text := fmt.Sprintf("%s:%d", a, p.GetPort())
					// Unknown readiness counts as ready.
					if c := e.GetConditions(); c == nil || c.Ready == nil || c.GetReady() {
						ready = append(ready, text)
					} else {
						others = append(others, text)
					}
				}
			}
		}
	}
	slices.Sort(ready)
	slices.Sort(others)
	return ready, others
}
