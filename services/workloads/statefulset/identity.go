package statefulset

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/apps"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// podName is the name of a set's pod.
func podName(set *appsv1.StatefulSet, ordinal int) string {
	return fmt.Sprintf("%s-%d", set.GetMetadata().GetName(), ordinal)
}

// ordinalOf is the number of a set's pod, false when a pod's name is not one of the set's.
func ordinalOf(set *appsv1.StatefulSet, pod *corev1.Pod) (int, bool) {
	name, ok := strings.CutPrefix(pod.GetMetadata().GetName(), set.GetMetadata().GetName()+"-")
	n, err := strconv.ParseInt(name, 10, 32)
	if !ok || err != nil || n < 0 || strconv.FormatInt(n, 10) != name {
		return 0, false
	}
	return int(n), true
}

// revisionOf is the name of the revision that a pod was made from.
func revisionOf(pod *corev1.Pod) string {
	return pod.GetMetadata().GetLabels()[apps.LabelControllerRevisionHash]
}

// newPod is a set's pod of a revision: of its template, with a name, a host name, labels and claims
// of its own.
func newPod(set *appsv1.StatefulSet, r revision, ordinal int) *corev1.Pod {
	pod := podcontrol.FromTemplate(set, r.template)
	name := podName(set, ordinal)
	pod.Metadata.Name, pod.Metadata.GenerateName = name, ""
	pod.Metadata.Labels = withIdentity(pod.GetMetadata().GetLabels(), name, ordinal)
	pod.Metadata.Labels[apps.LabelControllerRevisionHash] = r.name
	if pod.Spec == nil {
		pod.Spec = &corev1.PodSpec{}
	}
	pod.Spec.Hostname, pod.Spec.Subdomain = name, set.GetSpec().GetServiceName()
	pod.Spec.Volumes = withClaims(set, ordinal, pod.GetSpec().GetVolumes())
	return pod
}

func withIdentity(labels map[string]string, name string, ordinal int) map[string]string {
	with := maps.Clone(labels)
	if with == nil {
		with = map[string]string{}
	}
	with[apps.LabelStatefulSetPodName], with[apps.LabelPodIndex] = name, strconv.Itoa(ordinal)
	return with
}

// withClaims is the volumes with one for each claim of the pod, in the place of those of the same
// name.
func withClaims(set *appsv1.StatefulSet, ordinal int, volumes []*corev1.Volume) []*corev1.Volume {
	var all []*corev1.Volume
	claimed := map[string]bool{}
	for _, t := range set.GetSpec().GetVolumeClaimTemplates() {
		name := t.GetMetadata().GetName()
		if claimed[name] {
			continue
		}
		claimed[name] = true
		all = append(all, &corev1.Volume{Name: name, VolumeSource: &corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(set, t, ordinal)},
		}})
	}
	for _, v := range volumes {
		if !claimed[v.GetName()] {
			all = append(all, v)
		}
	}
	return all
}

// claimName is the name of the claim that a pod has of a template.
func claimName(set *appsv1.StatefulSet, template *corev1.PersistentVolumeClaim, ordinal int) string {
	return fmt.Sprintf("%s-%s-%d", template.GetMetadata().GetName(), set.GetMetadata().GetName(), ordinal)
}

// newClaim is the claim that a pod has of a template.
func newClaim(set *appsv1.StatefulSet, template *corev1.PersistentVolumeClaim, ordinal int) *corev1.PersistentVolumeClaim {
	claim := proto.CloneOf(template)
	if claim.Metadata == nil {
		claim.Metadata = &metav1.ObjectMeta{}
	}
	labels := maps.Clone(set.GetSpec().GetSelector().GetMatchLabels())
	for k, v := range claim.GetMetadata().GetLabels() {
		if _, ok := labels[k]; !ok {
			if labels == nil {
				labels = map[string]string{}
			}
			labels[k] = v
		}
	}
	claim.Metadata.Name, claim.Metadata.Namespace = claimName(set, template, ordinal), set.GetMetadata().GetNamespace()
	claim.Metadata.Labels = labels
	claim.Status = nil
	return claim
}
