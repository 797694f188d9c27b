package describe

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// leaseNamespace holds the heartbeats of nodes.
const leaseNamespace = "kube-node-lease"

func describeNode(ctx context.Context, cl *client.Client, r *report, n *corev1.Node) error {
	pods, _, err := client.List[*corev1.Pod](ctx, cl, client.ListOptions{FieldSelector: "spec.nodeName=" + n.GetMetadata().GetName()})
	if err != nil {
		return err
	}
	lease, err := client.Get[*coordinationv1.Lease](ctx, cl, leaseNamespace, n.GetMetadata().GetName())
	alive := "yes, lease current"
	switch {
	case apierr.IsNotFound(err):
		alive = "no, lease expired"
	case err != nil:
		alive = "unknown, lease not readable: " + apierr.Message(err)
	}
	r.metadata(n)
	var roles []string
	for label := range n.GetMetadata().GetLabels() {
		if role, ok := strings.CutPrefix(label, core.LabelNodeRolePrefix); ok {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	r.field("Roles", printer.OrNone(strings.Join(roles, ",")))
	r.labels(n)
	r.time("Created", n.GetMetadata().GetCreationTimestamp())
	r.ends(n)
	var taints []string
	for _, t := range n.GetSpec().GetTaints() {
		taints = append(taints, printer.Taint(t))
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
	r.field("Pod CIDR", printer.OrNone(n.GetSpec().GetPodCidr()))
	r.podsOnNode(n, pods)
	return nil
}

// podsOnNode writes the pods that count on the node and what they ask for.
func (r *report) podsOnNode(n *corev1.Node, pods []*corev1.Pod) {
	pods = slices.DeleteFunc(pods, core.IsPodFinished)
	if len(pods) == 0 {
		r.field("Pods", "<none>")
		return
	}
	r.line(fmt.Sprintf("Pods: %d in total", len(pods)))
	sum := map[string]*resource.Quantity{}
	request := func(p *corev1.Pod, name string) string {
		var total resource.Quantity
		if all, err := core.PodRequests(p.GetSpec()); err == nil {
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
			p.GetMetadata().GetNamespace(), p.GetMetadata().GetName(), core.PodStatus(p),
			request(p, core.ResourceCPU), request(p, core.ResourceMemory), column.Age(p.GetMetadata().GetCreationTimestamp(), r.now),
		})
	}
	r.sub([]string{"Namespace", "Name", "Status", "CPU Requests", "Memory Requests", "Age"}, rows)
	r.line("Requested:")
	rows = nil
	for _, name := range []string{core.ResourceCPU, core.ResourceMemory} {
		allocatable, err := object.Amount(n.GetStatus().GetAllocatable()[name])
		share := ""
		if err == nil && allocatable.MilliValue() > 0 {
			share = fmt.Sprintf("%d%%", sum[name].MilliValue()*100/allocatable.MilliValue())
		}
		rows = append(rows, []string{name, sum[name].String(), share})
	}
	r.sub([]string{"Resource", "Requests", "Share"}, rows)
}
