package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	"github.com/xebec-project/xebec/internal/wire"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// What a node may write is decided in two places: authz allows it to write its own node, lease,
// events and statuses of pods, and the functions here check what it writes there, as Kubernetes'
// NodeRestriction admission does. A compromised node must neither attract pods that are not meant
// for it nor write in the name of other nodes.

// restrictMirror allows a node to create only the mirror pods of its static pods: bound to it,
// owned by its node object, and without references that would let the node read other objects.
func restrictMirror(ctx context.Context, get storage.Reader, pod *corev1.Pod) error {
	name, agent := callerOf(ctx).Node()
	if !agent {
		return nil
	}
	k := kinds.Of(pod)
	refuse := func(why string) error { return apierr.Forbidden(k, pod.GetMetadata().GetName(), why) }
	nodes := kinds.Of(new(corev1.Node))
	node, err := get(ctx, registry.KeyOf(nodes, "", name))
	if err != nil {
		return refuse("node " + name + " is not registered")
	}
	owners := pod.GetMetadata().GetOwnerReferences()
	switch {
	case !core.IsMirrorPod(pod):
		return refuse("a node may only create mirror pods, with annotation " + core.MirrorAnnotation)
	case pod.GetSpec().GetNodeName() != name:
		return refuse("a node may only create mirror pods that are bound to it")
	case len(owners) != 1 || owners[0].GetKind() != "Node" || owners[0].GetName() != name || owners[0].GetUid() != node.Meta().GetUid():
		return refuse("a mirror pod must have its node, and nothing else, as its owner")
	case pod.GetSpec().GetServiceAccountName() != "":
		return refuse("a mirror pod may not have a service account")
	case core.PodRefersTo(pod.GetSpec()) != "":
		return refuse("a mirror pod may not refer to config maps or secrets")
	}
	return nil
}

// restrictNode refuses changes by which an agent would attract pods to its node or repel them, and
// the choice of its own range of pod addresses. old is nil when the node registers.
func (s *Service) restrictNode(ctx context.Context, node, old *corev1.Node) error {
	if _, agent := callerOf(ctx).Node(); !agent {
		return nil
	}
	meta, before := node.GetMetadata(), old.GetMetadata()
	refuse := func(why string) error { return apierr.Forbidden(kinds.Of(node), meta.GetName(), why) }
	if labels := forbiddenLabels(meta.GetLabels(), before.GetLabels()); len(labels) > 0 {
		return refuse(fmt.Sprintf("a node may not set, change or remove its own labels %s: an administrator does, with xebec label node %s",
			strings.Join(labels, ", "), meta.GetName()))
	}
	sameOwner := func(a, b *metav1.OwnerReference) bool { return proto.Equal(a, b) }
	switch {
	case !slices.EqualFunc(node.GetSpec().GetTaints(), old.GetSpec().GetTaints(), func(a, b *corev1.Taint) bool { return proto.Equal(a, b) }):
		return refuse("a node may not choose or change its own taints: an administrator does, with xebec taint node " + meta.GetName())
	case node.GetSpec().GetPodCidr() != old.GetSpec().GetPodCidr() || !slices.Equal(node.GetSpec().GetPodCidrs(), old.GetSpec().GetPodCidrs()):
		return refuse("a node may not choose or change its own pod range: the nodes service assigns one")
	case !slices.EqualFunc(meta.GetOwnerReferences(), before.GetOwnerReferences(), sameOwner):
		return refuse("a node may not choose or change its own owners: it would be deleted with them")
	}
	return s.restrictNodeStatus(ctx, node, old)
}

// forbiddenLabels are the labels that differ and that a node may not set on itself, sorted.
func forbiddenLabels(labels, before map[string]string) []string {
	var out []string
	for key := range labels {
		if old, had := before[key]; (!had || old != labels[key]) && !core.NodeMaySetLabel(key) {
			out = append(out, key)
		}
	}
	for key := range before {
		if _, has := labels[key]; !has && !core.NodeMaySetLabel(key) {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// restrictNodeStatus refuses addresses of a node that are in the ranges of pods or services: pods
// in the node's network report the node's addresses as theirs.
func (s *Service) restrictNodeStatus(ctx context.Context, node, old *corev1.Node) error {
	if _, agent := callerOf(ctx).Node(); !agent {
		return nil
	}
	known := addressTexts(old)
	var added []netip.Addr
	for _, text := range addressTexts(node) {
		if slices.Contains(known, text) {
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return apierr.Forbidden(kinds.Of(node), node.GetMetadata().GetName(),
				fmt.Sprintf("a node may only report IP addresses as its own, not %q", text))
		}
		added = append(added, addr.Unmap().WithZone(""))
	}
	if len(added) == 0 {
		return nil
	}
	reserved := slices.Clone(s.serviceCIDRs)
	nodes, err := s.store.List(ctx, storage.ListOptions{Kind: "Node", Stale: true})
	if err != nil {
		return storage.APIError(err)
	}
	for _, o := range nodes.Objects {
		reserved = append(reserved, podRanges(o)...)
	}
	for _, addr := range added {
		if i := slices.IndexFunc(reserved, func(p netip.Prefix) bool { return p.Contains(addr) }); i >= 0 {
			return apierr.Forbidden(kinds.Of(node), node.GetMetadata().GetName(),
				fmt.Sprintf("a node may not report %s as its own address: it is in %s, a range of pods or services", addr, reserved[i]))
		}
	}
	return nil
}

// addressTexts are the IP addresses that a node reports as its own.
func addressTexts(node *corev1.Node) []string {
	var out []string
	for _, a := range node.GetStatus().GetAddresses() {
		if a.GetType() == core.NodeInternalIP || a.GetType() == core.NodeExternalIP {
			out = append(out, a.GetAddress())
		}
	}
	return out
}

// Field numbers of a node's pod ranges: spec.podCIDRs.
const (
	nodeSpec    = protowire.Number(2)
	specPodCIDR = protowire.Number(7)
)

// podRanges reads the pod ranges of a stored node without decoding the rest, which is large.
func podRanges(o *storage.Object) []netip.Prefix {
	var out []netip.Prefix
	_ = wire.Each(o.Bytes, nodeSpec, func(spec []byte) error {
		return wire.Each(spec, specPodCIDR, func(text []byte) error {
			if p, err := netip.ParsePrefix(string(text)); err == nil {
				out = append(out, p)
			}
			return nil
		})
	})
	return out
}

// restrictStatus checks a status that a node writes.
func (s *Service) restrictStatus(ctx context.Context, get storage.Reader, o, old scheme.Object) error {
	switch o := o.(type) {
	case *corev1.Node:
		return s.restrictNodeStatus(ctx, o, old.(*corev1.Node))
	case *corev1.Pod:
		return restrictPodStatus(ctx, get, o, old.(*corev1.Pod))
	}
	return nil
}

// restrictPodStatus keeps an agent from reporting addresses for its pods that are not its to give:
// services, network policies and DNS go by them. Addresses that the pod has already may stay.
func restrictPodStatus(ctx context.Context, get storage.Reader, pod, old *corev1.Pod) error {
	name, agent := callerOf(ctx).Node()
	if !agent {
		return nil
	}
	podIPs, hostIPs := reportedIPs(pod.GetStatus())
	hadPodIPs, hadHostIPs := reportedIPs(old.GetStatus())
	podIPs, hostIPs = without(podIPs, hadPodIPs), without(hostIPs, hadHostIPs)
	if len(podIPs)+len(hostIPs) == 0 {
		return nil
	}
	refuse := func(format string, args ...any) error {
		return apierr.Forbidden(kinds.Of(pod), pod.GetMetadata().GetName(), fmt.Sprintf(format, args...))
	}
	nodes := kinds.Of(new(corev1.Node))
	stored, err := get(ctx, registry.KeyOf(nodes, "", name))
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return refuse("node %s is not registered", name)
	case err != nil:
		return storage.APIError(err)
	}
	o, err := registry.Decode(nodes, stored)
	if err != nil {
		return err
	}
	node := o.(*corev1.Node)
	own := addressTexts(node)
	for _, ip := range hostIPs {
		if !containsAddress(own, ip) {
			return refuse("the host IP %q is not an address of node %s", ip, name)
		}
	}
	ranges := podRanges(stored)
	for _, ip := range podIPs {
		switch addr, err := netip.ParseAddr(ip); {
		case err != nil:
			return refuse("the pod IP %q is not an address", ip)
		case pod.GetSpec().GetHostNetwork() && !containsAddress(own, ip):
			return refuse("the pod is in the node's network, and its IP %s is not an address of node %s", ip, name)
		case !pod.GetSpec().GetHostNetwork() && !slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(addr) }):
			return refuse("the pod IP %s is not in the pod range of node %s, which is %s", ip, name, rangesText(ranges))
		}
	}
	return nil
}

// reportedIPs are the addresses in a pod's status, as they are written there.
func reportedIPs(st *corev1.PodStatus) (pod, host []string) {
	pod, host = append(pod, st.GetPodIp()), append(host, st.GetHostIp())
	for _, ip := range st.GetPodIps() {
		pod = append(pod, ip.GetIp())
	}
	for _, ip := range st.GetHostIps() {
		host = append(host, ip.GetIp())
	}
	return pod, host
}

// without returns the texts that are neither empty nor known.
func without(texts, known []string) []string {
	return slices.DeleteFunc(texts, func(t string) bool { return t == "" || slices.Contains(known, t) })
}

func containsAddress(texts []string, text string) bool {
	addr, err := netip.ParseAddr(text)
	return err == nil && slices.ContainsFunc(texts, func(t string) bool {
		other, err := netip.ParseAddr(t)
		return err == nil && other == addr
	})
}

func rangesText(ranges []netip.Prefix) string {
	if len(ranges) == 0 {
		return "not assigned yet"
	}
	texts := make([]string, len(ranges))
	for i, p := range ranges {
		texts[i] = p.String()
	}
	return strings.Join(texts, " and ")
}

// restrictEvent allows a node only events in its own name, about itself and its pods. A pod that
// does not exist may have been one of them: the last events of a pod are often written after its
// deletion. old is nil for a new event.
func restrictEvent(ctx context.Context, get storage.Reader, event, old *corev1.Event) error {
	name, agent := callerOf(ctx).Node()
	if !agent {
		return nil
	}
	refuse := func(format string, args ...any) error {
		return apierr.Forbidden(kinds.Of(event), event.GetMetadata().GetName(), fmt.Sprintf(format, args...))
	}
	if old != nil && !reportedBy(old, name) {
		return refuse("a node may only change events that it reported, which have %s in source.host and reportingInstance", name)
	}
	if !reportedBy(event, name) {
		return refuse("a node may only report in its own name: source.host and reportingInstance must be %s, or one of them empty", name)
	}
	about := event.GetInvolvedObject()
	switch {
	case about.GetKind() == "Node" && about.GetName() == name && about.GetNamespace() == "":
		return nil
	case about.GetKind() != "Pod":
		return refuse("a node may only report events of itself and of its pods, not of %s %s", about.GetKind(), about.GetName())
	}
	pods := kinds.Of(new(corev1.Pod))
	stored, err := get(ctx, registry.KeyOf(pods, about.GetNamespace(), about.GetName()))
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil
	case err != nil:
		return storage.APIError(err)
	case registry.NodeOf(pods, stored) != name:
		return refuse("pod %s/%s is not bound to node %s", about.GetNamespace(), about.GetName(), name)
	}
	return nil
}

// reportedBy reports whether an event names a node as its reporter, in at least one of its two
// places and no other in either.
func reportedBy(event *corev1.Event, node string) bool {
	host, instance := event.GetSource().GetHost(), event.GetReportingInstance()
	return (host == node || host == "") && (instance == node || instance == "") && host+instance != ""
}
