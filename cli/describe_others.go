package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// leaseNamespace holds the heartbeats of nodes.
const leaseNamespace = "kube-node-lease"

func (s *shell) describeNode(ctx context.Context, cl *client.Client, r *report, n *corev1.Node) error {
	pods, _, err := client.List[*corev1.Pod](ctx, cl, client.ListOptions{FieldSelector: "spec.nodeName=" + n.GetMetadata().GetName()})
	if err != nil {
		return err
	}
	lease, err := client.Get[*coordinationv1.Lease](ctx, cl, leaseNamespace, n.GetMetadata().GetName())
	alive := "yes: its lease is held"
	switch {
	case apierr.IsNotFound(err):
		alive = "no: its lease has lapsed"
	case err != nil:
		alive = "unknown: its lease can't be read: " + apierr.Message(err)
	}
	r.metadata(n)
	var roles []string
	for label := range n.GetMetadata().GetLabels() {
		if role, ok := strings.CutPrefix(label, kind.LabelNodeRolePrefix); ok {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	r.field("Roles", orNone(strings.Join(roles, ",")))
	r.labels(n)
	r.time("Created", n.GetMetadata().GetCreationTimestamp())
	r.ends(n)
	var taints []string
	for _, t := range n.GetSpec().GetTaints() {
		taints = append(taints, taintText(t))
	}
	r.list("Taints", taints)
	r.field("Unschedulable", strconv.FormatBool(n.GetSpec().GetUnschedulable()))
	r.field("Alive", alive)
	if lease.GetSpec().GetHolderIdentity() != "" {
		r.field("Lease Holder", lease.GetSpec().GetHolderIdentity())
	}
	conditions(r, n.GetStatus().GetConditions())
	r.group("Addresses", func() {
		for _, a := range n.GetStatus().GetAddresses() {
			r.field(a.GetType(), a.GetAddress())
		}
	})
	for _, part := range []struct {
		name string
		all  map[string]*metav1.Quantity
	}{{"Capacity", n.GetStatus().GetCapacity()}, {"Allocatable", n.GetStatus().GetAllocatable()}} {
		r.group(part.name, func() {
			for _, key := range slices.Sorted(maps.Keys(part.all)) {
				r.field(key, part.all[key].GetString_())
			}
		})
	}
	info := n.GetStatus().GetNodeInfo()
	r.group("System Info", func() {
		r.optional("Machine ID", info.GetMachineId())
		r.optional("Boot ID", info.GetBootId())
		r.optional("Kernel Version", info.GetKernelVersion())
		r.optional("OS Image", info.GetOsImage())
		r.optional("Architecture", info.GetArchitecture())
		r.optional("Container Runtime", info.GetContainerRuntimeVersion())
		r.optional("Agent Version", info.GetKubeletVersion())
	})
	r.field("Pod CIDR", orNone(n.GetSpec().GetPodCidr()))
	r.podsOnNode(n, pods)
	return nil
}

// podsOnNode writes the pods that count on the node and what they ask for.
func (r *report) podsOnNode(n *corev1.Node, pods []*corev1.Pod) {
	pods = slices.DeleteFunc(pods, kind.IsPodFinished)
	if len(pods) == 0 {
		r.field("Pods", "<none>")
		return
	}
	r.line(fmt.Sprintf("Pods: %d in total", len(pods)))
	sum := map[string]*resource.Quantity{}
	request := func(p *corev1.Pod, name string) string {
		var total resource.Quantity
		if all, err := kind.PodRequests(p.GetSpec()); err == nil {
			total = all[name]
		}
		if sum[name] == nil {
			sum[name] = &resource.Quantity{}
		}
		sum[name].Add(total)
		return total.String()
	}
	var rows [][]string
	for _, p := range pods {
		rows = append(rows, []string{
			p.GetMetadata().GetNamespace(), p.GetMetadata().GetName(), kind.PodStatus(p),
			request(p, kind.ResourceCPU), request(p, kind.ResourceMemory), kind.Age(p.GetMetadata().GetCreationTimestamp(), r.now),
		})
	}
	r.sub([]string{"Namespace", "Name", "Status", "CPU Requests", "Memory Requests", "Age"}, rows)
	r.line("Requested:")
	rows = nil
	for _, name := range []string{kind.ResourceCPU, kind.ResourceMemory} {
		allocatable, err := kind.Amount(n.GetStatus().GetAllocatable()[name])
		share := ""
		if err == nil && allocatable.MilliValue() > 0 {
			share = fmt.Sprintf("%d%%", sum[name].MilliValue()*100/allocatable.MilliValue())
		}
		rows = append(rows, []string{name, sum[name].String(), share})
	}
	r.sub([]string{"Resource", "Requests", "Share"}, rows)
}

func taintText(t *corev1.Taint) string {
	text := t.GetKey()
	if t.GetValue() != "" {
		text += "=" + t.GetValue()
	}
	return text + ":" + t.GetEffect()
}

func (s *shell) describeDeployment(ctx context.Context, cl *client.Client, r *report, d *appsv1.Deployment) error {
	sets, err := setsOf(ctx, cl, d)
	if err != nil {
		return err
	}
	spec, status := d.GetSpec(), d.GetStatus()
	r.metadata(d)
	r.time("Created", d.GetMetadata().GetCreationTimestamp())
	r.labels(d)
	r.ends(d)
	r.field("Selector", kind.FormatLabelSelector(spec.GetSelector()))
	r.field("Replicas", fmt.Sprintf("%d desired | %d updated | %d total | %d available | %d unavailable",
		spec.GetReplicas(), status.GetUpdatedReplicas(), status.GetReplicas(), status.GetAvailableReplicas(), status.GetUnavailableReplicas()))
	r.field("Strategy", spec.GetStrategy().GetType())
	if u := spec.GetStrategy().GetRollingUpdate(); u != nil {
		r.field("Rolling Update", fmt.Sprintf("%s max unavailable, %s max surge", intOrString(u.GetMaxUnavailable()), intOrString(u.GetMaxSurge())))
	}
	r.field("Min Ready Seconds", strconv.Itoa(int(spec.GetMinReadySeconds())))
	if spec.GetPaused() {
		r.field("Paused", "yes: changes wait for 'xebec rollout resume'")
	}
	r.template(spec.GetTemplate())
	conditions(r, status.GetConditions())
	var old []string
	current := "<none>"
	for _, set := range sets {
		text := fmt.Sprintf("%s (%d/%d replicas ready)", set.GetMetadata().GetName(), set.GetStatus().GetReadyReplicas(), set.GetSpec().GetReplicas())
		switch {
		case revisionOf(set) == revisionOf(d):
			current = text
		case set.GetSpec().GetReplicas() > 0 || set.GetStatus().GetReplicas() > 0:
			old = append(old, text)
		}
	}
	r.list("Old ReplicaSets", old)
	r.field("New ReplicaSet", current)
	return nil
}

// describeTemplate writes a pod template.
func describeTemplate(w io.Writer, now time.Time, t *corev1.PodTemplateSpec) error {
	r := newReport(w, now)
	r.template(t)
	return r.flush()
}

func (r *report) template(t *corev1.PodTemplateSpec) {
	r.group("Pod Template", func() {
		r.list("Labels", lines(t.GetMetadata().GetLabels(), "="))
		r.list("Annotations", lines(t.GetMetadata().GetAnnotations(), ": "))
		if a := t.GetSpec().GetServiceAccountName(); a != "" {
			r.field("Service Account", a)
		}
		if len(t.GetSpec().GetInitContainers()) > 0 {
			r.group("Init Containers", func() {
				for _, c := range t.GetSpec().GetInitContainers() {
					r.container(c, nil)
				}
			})
		}
		r.group("Containers", func() {
			for _, c := range t.GetSpec().GetContainers() {
				r.container(c, nil)
			}
		})
		r.volumes(t.GetSpec().GetVolumes())
	})
}

func (r *report) replicaSet(rs *appsv1.ReplicaSet) {
	r.metadata(rs)
	r.field("Selector", kind.FormatLabelSelector(rs.GetSpec().GetSelector()))
	r.labels(rs)
	r.ends(rs)
	r.field("Replicas", fmt.Sprintf("%d desired | %d current | %d ready | %d available", rs.GetSpec().GetReplicas(),
		rs.GetStatus().GetReplicas(), rs.GetStatus().GetReadyReplicas(), rs.GetStatus().GetAvailableReplicas()))
	r.template(rs.GetSpec().GetTemplate())
	conditions(r, rs.GetStatus().GetConditions())
}

func (s *shell) describeService(ctx context.Context, cl *client.Client, r *report, svc *corev1.Service) error {
	slicesOf, _, err := client.List[*discoveryv1.EndpointSlice](ctx, cl, client.ListOptions{
		Namespace: svc.GetMetadata().GetNamespace(), LabelSelector: kind.LabelServiceName + "=" + svc.GetMetadata().GetName(),
	})
	if err != nil {
		return err
	}
	spec := svc.GetSpec()
	r.metadata(svc)
	r.labels(svc)
	r.ends(svc)
	r.field("Selector", pairs(spec.GetSelector(), ","))
	r.field("Type", spec.GetType())
	r.optional("IP Family Policy", spec.GetIpFamilyPolicy())
	r.field("IP", orNone(spec.GetClusterIp()))
	r.optional("External Name", spec.GetExternalName())
	for _, p := range spec.GetPorts() {
		r.field("Port", strings.TrimSpace(fmt.Sprintf("%s %d/%s", p.GetName(), p.GetPort(), p.GetProtocol())))
		r.field("Target Port", intOrString(p.GetTargetPort())+"/"+p.GetProtocol())
		if p.GetNodePort() != 0 {
			r.field("Node Port", fmt.Sprintf("%d/%s", p.GetNodePort(), p.GetProtocol()))
		}
		ready, others := endpointsFor(slicesOf, p)
		r.field("Endpoints", orNone(strings.Join(ready, ", ")))
		if len(others) > 0 {
			r.field("Not Ready", strings.Join(others, ", "))
		}
	}
	r.field("Session Affinity", orNone(spec.GetSessionAffinity()))
	r.optional("Internal Traffic Policy", spec.GetInternalTrafficPolicy())
	return nil
}

// endpointsFor lists the addresses behind a port, those that take traffic apart from those that do not.
func endpointsFor(all []*discoveryv1.EndpointSlice, port *corev1.ServicePort) (ready, others []string) {
	for _, slice := range all {
		for _, p := range slice.GetPorts() {
			if p.GetName() != port.GetName() {
				continue
			}
			for _, e := range slice.GetEndpoints() {
				for _, a := range e.GetAddresses() {
					text := fmt.Sprintf("%s:%d", a, p.GetPort())
					// Readiness that is not told counts as ready.
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

func (r *report) configMap(c *corev1.ConfigMap) {
	r.metadata(c)
	r.labels(c)
	r.ends(c)
	r.line("")
	r.line("Data")
	r.line("====")
	for _, key := range slices.Sorted(maps.Keys(c.GetData())) {
		r.line(key + ":")
		r.line("----")
		_ = r.w.Flush()
		fmt.Fprintf(r.w, "%s\n\n", escape(strings.TrimRight(strings.ReplaceAll(c.GetData()[key], "\t", "    "), "\n")))
	}
	for _, key := range slices.Sorted(maps.Keys(c.GetBinaryData())) {
		r.field(key, fmt.Sprintf("%d bytes", len(c.GetBinaryData()[key])))
	}
}

func (r *report) secret(c *corev1.Secret) {
	r.metadata(c)
	r.labels(c)
	r.ends(c)
	r.field("Type", c.GetType())
	r.group("Data", func() {
		for _, key := range slices.Sorted(maps.Keys(c.GetData())) {
			r.field(key, fmt.Sprintf("%d bytes", len(c.GetData()[key])))
		}
	})
}
